//! Templates as docker has them (Go's `text/template`): each line of JSON that a verb writes is
//! shown with the template that was typed.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io::{self, Write};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use gotmpl::{MissingKey, Template, TemplateError, Value};
use serde::Serialize;
use serde_json::Value as Json;
use tabwriter::TabWriter;

use super::{Look, json};
use crate::bytes::{escape, escape_text};
use crate::error::{Error, Result};

/// What a template can name of a row.
pub struct Fields {
    /// Of a line of JSON.
    pub schema: schemars::Schema,
    /// What docker has beside that: names and headings, in the order of the values.
    pub docker: &'static [(&'static str, &'static str)],
}

/// What is between a row and what docker shows of it: a byte that JSON does not have.
const SHOWN: u8 = 0;
/// The key of a map that has the map itself, as JSON.
const WHOLE: &str = "\0json";

/// A line for a template: a row, and what docker shows of it.
///
/// # Errors
/// The output cannot be written.
pub fn line(row: &impl Serialize, shown: &[String], out: &mut dyn Write) -> io::Result<()> {
    let mut text = Vec::new();
    json::line(row, &mut text)?;
    text.pop();
    text.push(SHOWN);
    json::line(&shown, &mut text)?;
    out.write_all(&text)
}

/// Lines of JSON, each of which is shown with a template.
pub struct Lines {
    template: Template,
    fields: Fields,
    /// What is there where a row has no such key.
    absent: BTreeMap<Arc<str>, Value>,
    /// Whoever reads it would take a name for a column, or act on it.
    is_escaped: bool,
    /// The template asks for JSON.
    has_json: bool,
    /// What is written of a line that is not whole.
    part: Vec<u8>,
    /// A table, which is measured before it is shown.
    table: Option<TabWriter<Vec<u8>>>,
}

impl Lines {
    /// # Errors
    /// It is no template, or names what no row has.
    pub fn new(source: &str, fields: Fields, look: Look) -> Result<Lines> {
        // As docker, which has no other way to write them in a shell's quotes.
        let source = source.replace("\\t", "\t").replace("\\n", "\n");
        let (source, is_table) = match source.strip_prefix("table") {
            Some(rest) if rest.starts_with([' ', '\t']) => (rest.trim_start().to_owned(), true),
            _ => (source, false),
        };
        let refused = |error: &TemplateError| Error::Usage(format!("--format: {error}"));
        let template = with_functions(Template::new("format").missing_key(MissingKey::Error))
            .parse(&source)
            .map_err(|error| refused(&error))?;
        let headings = headings(&fields);
        let tried = template.execute_to_string(&Value::Map(Arc::new(headings.clone())));
        match &tried {
            Err(TemplateError::MissingKey { key }) => {
                return Err(no_such_key(key, &headings, &fields));
            }
            Err(
                error @ (TemplateError::UndefinedFunction(_)
                | TemplateError::UndefinedVariable(_)
                | TemplateError::UndefinedTemplate(_)),
            ) => return Err(refused(error)),
            // A heading is a word where a row may have a number.
            _ => {}
        }
        let table = is_table.then(|| {
            let mut table = TabWriter::new(Vec::new()).minwidth(10).padding(3);
            if let Ok(heading) = tried {
                // Memory takes whatever is written to it.
                let _ = writeln!(table, "{heading}");
            }
            table
        });
        let absent = headings.into_iter().map(|(name, heading)| {
            let absent = match heading {
                Value::List(_) => Value::List(Vec::new().into()),
                Value::Map(_) => Value::Map(Arc::default()),
                _ => Value::String("".into()),
            };
            (name, absent)
        });
        Ok(Lines {
            absent: absent.collect(),
            is_escaped: look.is_terminal || is_table,
            has_json: source.contains("json"),
            part: Vec::new(),
            template,
            fields,
            table,
        })
    }

    /// Shows whatever lines are written to it.
    pub fn to<'t>(&'t mut self, out: &'t mut dyn Write) -> impl Write + 't {
        Through { lines: self, out }
    }

    /// Shows what had to wait for the last row.
    ///
    /// # Errors
    /// The output cannot be written.
    pub fn end(self, out: &mut dyn Write) -> io::Result<()> {
        let Some(table) = self.table else {
            return Ok(());
        };
        let table = table
            .into_inner()
            .map_err(|error| io::Error::other(error.to_string()))?;
        out.write_all(&table)
    }

    fn show(&mut self, line: &[u8], out: &mut dyn Write) -> io::Result<()> {
        let mut parts = line.trim_ascii_end().split(|&byte| byte == SHOWN);
        let line = parts.next().unwrap_or_default();
        let Json::Object(row) = serde_json::from_slice(line)? else {
            return Ok(());
        };
        let mut map = self.absent.clone();
        for (key, value) in &row {
            insert(&mut map, key, self.value(value));
        }
        let shown: Vec<Json> = match parts.next() {
            Some(shown) => serde_json::from_slice(shown)?,
            None => Vec::new(),
        };
        for ((name, _), value) in self.fields.docker.iter().zip(&shown) {
            map.insert((*name).into(), self.value(value));
        }
        if self.has_json {
            let whole = String::from_utf8_lossy(line).into_owned();
            map.insert(WHOLE.into(), Value::String(whole.into()));
        }
        let text = self.template.execute_to_string(&Value::Map(Arc::new(map)));
        let text =
            text.map_err(|error| io::Error::other(Error::Usage(format!("--format: {error}"))))?;
        match &mut self.table {
            Some(table) => writeln!(table, "{text}"),
            None => writeln!(out, "{text}"),
        }
    }

    fn value(&self, value: &Json) -> Value {
        match value {
            Json::Null => Value::String("".into()),
            Json::Bool(is) => Value::Bool(*is),
            Json::Number(number) => match (number.as_u64(), number.as_i64()) {
                (Some(number), _) => Value::Uint(number),
                (None, Some(number)) => Value::Int(number),
                (None, None) => Value::Float(number.as_f64().unwrap_or_default()),
            },
            Json::String(text) if self.is_escaped => Value::String(escape_text(text).into()),
            Json::String(text) => Value::String(text.as_str().into()),
            Json::Array(list) => {
                let list: Vec<Value> = list.iter().map(|value| self.value(value)).collect();
                Value::List(list.into())
            }
            Json::Object(map) => {
                if let Some(bytes) = bytes_of(map) {
                    return Value::String(escape(&bytes).into());
                }
                let mut fields: BTreeMap<Arc<str>, Value> = BTreeMap::new();
                for (key, value) in map {
                    insert(&mut fields, key, self.value(value));
                }
                if self.has_json {
                    fields.insert(WHOLE.into(), Value::String(text_of(value).into()));
                }
                Value::Map(Arc::new(fields))
            }
        }
    }
}

/// The way from rows to the output.
struct Through<'t> {
    lines: &'t mut Lines,
    out: &'t mut dyn Write,
}

impl Write for Through<'_> {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        for part in text.split_inclusive(|&byte| byte == b'\n') {
            self.lines.part.extend_from_slice(part);
            if part.ends_with(b"\n") {
                let line = std::mem::take(&mut self.lines.part);
                self.lines.show(&line, self.out)?;
            }
        }
        Ok(text.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// A name that is no text, in JSON.
fn bytes_of(map: &serde_json::Map<String, Json>) -> Option<Vec<u8>> {
    let bytes = map.get("bytes").filter(|_| map.len() == 1)?;
    BASE64.decode(bytes.as_str()?).ok()
}

fn text_of(value: &Json) -> String {
    let mut text = Vec::new();
    // Memory takes whatever is written to it.
    let _ = json::line(value, &mut text);
    text.pop();
    String::from_utf8_lossy(&text).into_owned()
}

/// Adds a field under its key, and under the name that Go's programs would give it.
fn insert(fields: &mut BTreeMap<Arc<str>, Value>, key: &str, value: Value) {
    fields.insert(go_name(key).into(), value.clone());
    fields.insert(key.into(), value);
}

/// A key as Go's programs name a field: `image_id` is `ImageID`.
fn go_name(key: &str) -> String {
    let words = key.split('_').map(|word| match word {
        "id" | "si" => word.to_uppercase(),
        _ => {
            let mut chars = word.chars();
            let first = chars.next().map(|char| char.to_ascii_uppercase());
            first.into_iter().chain(chars).collect()
        }
    });
    words.collect()
}

/// A row of headings. What has parts has headings for them.
fn headings(fields: &Fields) -> BTreeMap<Arc<str>, Value> {
    let schema = fields.schema.as_value();
    let mut headings = match heading(schema, schema, "", 0) {
        Value::Map(map) => Arc::unwrap_or_clone(map),
        _ => BTreeMap::new(),
    };
    for (name, heading) in fields.docker {
        headings.insert((*name).into(), Value::String((*heading).into()));
    }
    headings
}

fn no_such_key(key: &str, headings: &BTreeMap<Arc<str>, Value>, fields: &Fields) -> Error {
    let is_key = |name: &&str| name.starts_with(|char: char| char.is_lowercase());
    let keys = headings.keys().map(|name| &**name).filter(is_key);
    let of_docker = fields.docker.iter().map(|(name, _)| *name);
    let known: Vec<&str> = keys.chain(of_docker).collect();
    Error::Usage(format!(
        "--format: no row has {key}; there are {}",
        known.join(" ")
    ))
}

/// How deep a row's parts are looked into.
const DEEPEST: usize = 8;

fn heading(schema: &Json, whole: &Json, name: &str, depth: usize) -> Value {
    let word = || Value::String(name.replace('_', " ").to_uppercase().into());
    if depth > DEEPEST {
        return word();
    }
    let schema = resolved(schema, whole);
    if let Some(Json::Object(properties)) = schema.get("properties") {
        // A row that is one of several kinds may have what any of them has.
        let kinds = schema.get("oneOf").and_then(Json::as_array);
        let kinds = kinds.into_iter().flatten();
        let kinds = kinds.flat_map(|kind| [kind, resolved(kind, whole)]);
        let of_kinds = kinds.filter_map(|of| of.get("properties")?.as_object());
        let properties = properties.iter().chain(of_kinds.flatten());
        let mut map = BTreeMap::new();
        for (key, of_key) in properties {
            insert(&mut map, key, heading(of_key, whole, key, depth + 1));
        }
        return Value::Map(Arc::new(map));
    }
    match schema.get("items") {
        Some(items) => Value::List(vec![heading(items, whole, name, depth + 1)].into()),
        None => word(),
    }
}

/// What a part of a schema refers to, whether it may be absent or not.
fn resolved<'s>(schema: &'s Json, whole: &'s Json) -> &'s Json {
    let choices = schema.get("anyOf").and_then(Json::as_array);
    let some = choices
        .and_then(|choices| choices.first())
        .unwrap_or(schema);
    let reference = some.get("$ref").and_then(Json::as_str);
    let pointer = reference.and_then(|reference| reference.strip_prefix('#'));
    pointer
        .and_then(|pointer| whole.pointer(pointer))
        .unwrap_or(some)
}

/// The functions that docker's templates have beside Go's own.
fn with_functions(template: Template) -> Template {
    let text = |arguments: &[Value], at: usize| match arguments.get(at) {
        Some(value) => value.to_string(),
        None => String::new(),
    };
    let changed = |template: Template, name: &str, change: fn(&str) -> String| {
        template.func(name, move |arguments| {
            Ok(Value::String(change(&text(arguments, 0)).into()))
        })
    };
    let template = changed(template, "lower", str::to_lowercase);
    let template = changed(template, "upper", str::to_uppercase);
    let template = changed(template, "title", |text| {
        let mut chars = text.chars();
        let first = chars.next().map(|char| char.to_uppercase().to_string());
        first.unwrap_or_default() + chars.as_str()
    });
    template
        .func("json", |arguments| {
            let value = arguments.first().unwrap_or(&Value::Nil);
            Ok(Value::String(json_of(value).into()))
        })
        .func("join", move |arguments| {
            let parts = match arguments.first() {
                Some(Value::List(list)) => list.iter().map(ToString::to_string).collect(),
                _ => vec![text(arguments, 0)],
            };
            Ok(Value::String(parts.join(&text(arguments, 1)).into()))
        })
        .func("split", move |arguments| {
            let (whole, mark) = (text(arguments, 0), text(arguments, 1));
            let parts = whole.split(&*mark);
            let parts: Vec<Value> = parts.map(|part| Value::String(part.into())).collect();
            Ok(Value::List(parts.into()))
        })
        .func("truncate", move |arguments| {
            let most = arguments.get(1).and_then(Value::as_int).unwrap_or(0);
            let most = usize::try_from(most).unwrap_or(0);
            let cut: String = text(arguments, 0).chars().take(most).collect();
            Ok(Value::String(cut.into()))
        })
        .func("pad", move |arguments| {
            let blanks = |at: usize| {
                let count = arguments.get(at).and_then(Value::as_int).unwrap_or(0);
                // No terminal is wider than that.
                " ".repeat(usize::try_from(count).unwrap_or(0).min(10_000))
            };
            let whole = text(arguments, 0);
            if whole.is_empty() {
                return Ok(Value::String("".into()));
            }
            Ok(Value::String(
                format!("{}{whole}{}", blanks(1), blanks(2)).into(),
            ))
        })
}

fn json_of(value: &Value) -> Cow<'_, str> {
    match value {
        Value::Map(map) => match map.get(WHOLE) {
            Some(Value::String(text)) => Cow::Borrowed(text),
            _ => Cow::Borrowed("{}"),
        },
        Value::List(list) => {
            let parts: Vec<Cow<'_, str>> = list.iter().map(json_of).collect();
            Cow::Owned(format!("[{}]", parts.join(",")))
        }
        Value::String(text) => Cow::Owned(text_of(&Json::String(text.to_string()))),
        Value::Nil => Cow::Borrowed("null"),
        plain => Cow::Owned(plain.to_string()),
    }
}
