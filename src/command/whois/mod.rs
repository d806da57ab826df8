//! `whois PATH|HASH...`: whose a directory, a layer, a mount or a process is.

mod find;

use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;

use serde::Serialize;

use crate::bytes::{Bytes, escape};
use crate::command::{Context, Outcome, Verb};
use crate::engine;
use crate::engine::inventory::short;
use crate::engine::usage::{ContainerName, ImageUse, UseKind};
use crate::error::{Error, Result, errno_of};
use crate::render::Look;
use find::{Known, Places, who};

/// Tell whose a directory, a layer, a mount, a device or a process is
///
/// With - lines are read from stdin, such as du prints, and each is annotated.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[arg(required = true, value_name = "PATH|HASH")]
    things: Vec<OsString>,
}

/// What a thing is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    Container,
    Init,
    Image,
    BuildCache,
    InProgress,
    View,
    Unused,
    /// Something needs it, although its engine's records do not have it.
    InUse,
    /// A union's mount.
    Mount,
    /// Kept beside a container's layer: configuration, logs.
    ContainerFiles,
    Volumes,
    Records,
    /// A part of a store that is none of these.
    Store,
    Unknown,
}

impl Kind {
    fn of(kind: UseKind) -> Kind {
        match kind {
            UseKind::Container => Kind::Container,
            UseKind::Init => Kind::Init,
            UseKind::Image => Kind::Image,
            UseKind::BuildCache => Kind::BuildCache,
            UseKind::InProgress => Kind::InProgress,
            UseKind::View => Kind::View,
            UseKind::Unused => Kind::Unused,
            UseKind::InUse => Kind::InUse,
            UseKind::Unknown => Kind::Unknown,
        }
    }

    pub fn words(self) -> &'static str {
        match self {
            Kind::Container => "container layer",
            Kind::Init => "init layer",
            Kind::Image => "image layer",
            Kind::BuildCache => "build cache",
            Kind::InProgress => "in progress",
            Kind::View => "snapshot view",
            Kind::Unused => "unused layer",
            Kind::InUse => "layer in use",
            Kind::Mount => "mount",
            Kind::ContainerFiles => "container's files",
            Kind::Volumes => "volumes",
            Kind::Records => "records",
            Kind::Store => "store",
            Kind::Unknown => "unknown",
        }
    }
}

/// The answer for one thing.
#[derive(Debug, Serialize, schemars::JsonSchema)]
pub struct Row {
    /// As it was asked for.
    pub query: Bytes,
    /// The line that it was found in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<Bytes>,
    pub kind: Kind,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub engine: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub driver: Option<String>,
    /// The engine's id of the layer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub layer: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub directory: Option<Bytes>,
    /// Those that use it.
    pub containers: Vec<ContainerName>,
    pub images: Vec<ImageUse>,
    /// The containers that stand on those images.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub above: Vec<ContainerName>,
    /// Where it is for those who use it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub inside: Vec<Inside>,
    /// Why nobody is known; what else is to be said of who needs it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

/// A path as a container, or an image, has it.
#[derive(Debug, Serialize, schemars::JsonSchema)]
pub struct Inside {
    /// The container's name, or the image's first tag.
    pub of: String,
    pub path: Bytes,
    pub state: Visibility,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Visibility {
    /// It is what is seen there.
    Visible,
    /// It is merged with other layers' directories.
    Merged,
    /// A layer above has another one.
    Shadowed,
    /// A layer above deletes it.
    Deleted,
}

impl Visibility {
    pub fn word(self) -> &'static str {
        match self {
            Visibility::Visible => "visible",
            Visibility::Merged => "merged",
            Visibility::Shadowed => "shadowed",
            Visibility::Deleted => "deleted",
        }
    }
}

impl Row {
    fn new(query: &[u8], kind: Kind) -> Row {
        Row {
            query: Bytes::from(query),
            line: None,
            kind,
            engine: None,
            driver: None,
            layer: None,
            directory: None,
            containers: Vec::new(),
            images: Vec::new(),
            above: Vec::new(),
            inside: Vec::new(),
            why: None,
        }
    }

    fn unknown(query: &[u8], why: impl Into<String>) -> Row {
        Row {
            why: Some(why.into()),
            ..Row::new(query, Kind::Unknown)
        }
    }

    /// The one name that says most: a container's, or an image's.
    pub fn owner(&self) -> String {
        if let Some(container) = self.containers.first() {
            return container.name.clone();
        }
        let tag = self.images.iter().find_map(|image| image.tags.first());
        if let Some(tag) = tag {
            return tag.clone();
        }
        match self.images.first() {
            Some(image) => short(&image.id).to_owned(),
            None => self.kind.words().to_owned(),
        }
    }
}

impl Verb for Args {
    type Answer = Vec<Row>;

    fn run(self, context: &mut Context<'_>) -> Result<Outcome<Vec<Row>>> {
        let (stdin, things): (Vec<&[u8]>, Vec<&[u8]>) = {
            let things = self.things.iter().map(|thing| thing.as_bytes());
            things.partition(|thing| *thing == b"-")
        };
        let text = if stdin.is_empty() {
            Vec::new()
        } else {
            read_stdin()?
        };
        context.survey.look_everywhere();
        let (rows, mut problems) = answer(context, &things, &text);
        context.problems.append(&mut problems);
        Ok(Outcome {
            is_yes: rows.iter().all(|row| row.kind != Kind::Unknown),
            answer: rows,
        })
    }
}

fn read_stdin() -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    io::stdin()
        .lock()
        .read_to_end(&mut bytes)
        .map_err(|error| Error::io("/dev/stdin", errno_of(&error)))?;
    Ok(bytes)
}

/// Whose each thing is, and each line's; and what could not be read.
fn answer(context: &Context<'_>, things: &[&[u8]], text: &[u8]) -> (Vec<Row>, Vec<Error>) {
    let (uses, mut problems) = engine::layer_uses(&context.survey);
    let known = uses
        .into_iter()
        .map(|(engine, uses)| Known::new(engine, uses));
    let known: Vec<Known<'_>> = known.collect();
    let mut rows = Vec::new();
    for thing in things {
        match who(context, &known, thing, Places::Shown) {
            Ok(row) => rows.push(row),
            Err(error) => problems.push(error),
        }
    }
    let lines = text.split(|&byte| byte == b'\n');
    for line in lines.filter(|line| !line.is_empty()) {
        let Some(thing) = thing_in(line) else {
            continue;
        };
        match who(context, &known, thing, Places::LeftOut) {
            Ok(row) => rows.push(Row {
                line: Some(Bytes::from(line)),
                ..row
            }),
            Err(error) => problems.push(error),
        }
    }
    (rows, problems)
}

/// The path in a line of `du`, `find` or `df`: from the first slash that begins a word.
fn thing_in(line: &[u8]) -> Option<&[u8]> {
    let starts = |at: &usize| line[*at] == b'/' && (*at == 0 || line[at - 1].is_ascii_whitespace());
    let start = (0..line.len()).find(starts);
    match start {
        Some(start) => Some(&line[start..]),
        // A name alone.
        None => Some(line.trim_ascii()).filter(|line| !line.is_empty()),
    }
}

impl crate::command::Row for Row {
    fn words(&self, give: &mut dyn FnMut(&[u8])) {
        give(self.owner().as_bytes());
    }

    fn table(rows: &[Row], look: Look, out: &mut dyn Write) -> io::Result<()> {
        rows.iter().try_for_each(|row| match &row.line {
            Some(line) => row.write_behind(line, look, out),
            None => row.write(look, out),
        })
    }
}

impl Row {
    /// A line of another program's is given back with what was asked for behind it.
    fn write_behind(&self, line: &Bytes, look: Look, out: &mut dyn Write) -> io::Result<()> {
        // Its tabs are its columns.
        for part in line.as_bytes().split(|&byte| byte == b'\t') {
            write!(out, "{}\t", escape(part))?;
        }
        writeln!(out, "{}", self.words_of_owner(look))
    }

    fn write(&self, look: Look, out: &mut dyn Write) -> io::Result<()> {
        let query = look.bold(&escape(self.query.as_bytes()));
        writeln!(out, "{query}  {}", self.words_of_owner(look))?;
        if let Some(directory) = &self.directory {
            writeln!(out, "  in {}", look.directory(directory))?;
        }
        if !self.above.is_empty() {
            let names = self.above.iter().map(|of| escape(of.name.as_bytes()));
            let names: Vec<_> = names.collect();
            writeln!(out, "  below {}", names.join(", "))?;
        }
        for inside in &self.inside {
            let (of, state) = (escape(inside.of.as_bytes()), inside.state.word());
            writeln!(out, "  {of}:{}  {state}", inside.path)?;
        }
        Ok(())
    }

    /// What it is, in one line.
    fn words_of_owner(&self, look: Look) -> String {
        let mut words: Vec<String> = Vec::new();
        words.extend(self.engine.map(str::to_owned));
        words.push(self.kind.words().to_owned());
        if let [image, ..] = self.images.as_slice()
            && self.kind == Kind::Image
        {
            words.push(format!("{} of {}", image.number, image.of));
        }
        let containers = self.containers.iter();
        let containers = containers.map(|of| escape(of.name.as_bytes()).into_owned());
        let mut names: Vec<String> = containers.collect();
        let tags = self.images.iter().flat_map(|image| &image.tags);
        let mut tags: Vec<String> = tags
            .map(|tag| escape(tag.as_bytes()).into_owned())
            .collect();
        tags.dedup();
        if tags.is_empty() {
            tags.extend(self.images.first().map(|image| look.id(&image.id)));
        }
        names.extend(tags);
        if !names.is_empty() {
            words.push(format!("of {}", names.join(", ")));
        }
        if let Some(why) = &self.why {
            words.push(format!("({})", escape(why.as_bytes())));
        }
        words.join(" ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_in_lines() {
        for (line, thing) in [
            (
                &b"1234\t/var/lib/docker/overlay2/ab c"[..],
                &b"/var/lib/docker/overlay2/ab c"[..],
            ),
            (b"/a/b", b"/a/b"),
            (b"  4f1c  ", b"4f1c"),
            (b"12 x/y /z", b"/z"),
        ] {
            assert_eq!(thing_in(line), Some(thing));
        }
    }
}
