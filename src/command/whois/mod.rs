//! `whois PATH|HASH...`: whose a directory, a layer, a mount or a process is.

mod find;

use std::collections::HashSet;
use std::ffi::OsString;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::ffi::OsStrExt;

use serde::Serialize;

use crate::bytes::{Bytes, escape};
use crate::command::{Answer, Context, Ended, Group, Help, Outcome, Verb};
use crate::engine;
use crate::engine::cover::Cover;
use crate::engine::inventory::short;
use crate::engine::usage::{ContainerName, ImageUse, UseKind};
use crate::error::{Error, Result, errno_of};
use crate::render::{Format, Look, json};
use find::{Known, Places, who};

/// Tell whose a directory, a layer, a mount, a device or a process is
///
/// With - lines are read from stdin, such as du prints, and each is annotated.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A path of the host, a hash or its beginning, a mount, a device, a PID; - reads lines
    #[arg(required = true, value_name = "PATH|HASH")]
    things: Vec<OsString>,
}

/// What a thing is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, schemars::JsonSchema)]
#[schemars(rename = "OwnerOfThing")]
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
    /// Left below a mount point while nothing was mounted there: it is in no union.
    BeneathMount,
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
            UseKind::Unknown | UseKind::Untold => Kind::Unknown,
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
            Kind::BeneathMount => "leftover under the mount point",
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
    /// The containers whose own layers stand on it.
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
    /// The container or the image, as a TARGET.
    pub target: Bytes,
    pub path: Bytes,
    pub state: Visibility,
    /// What lies over the layers there, so that they do not show it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub covered_by: Option<Cover>,
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
    const HELP: Help = Help {
        group: Group::Find,
        examples: &[
            "layerctl whois /var/lib/docker/overlay2/1f2e3d4c",
            "layerctl whois 1234    a process",
            "du -xd1 /var/lib/docker/overlay2 | sort -n | layerctl whois -",
        ],
        exit: "0 all are known; 1 one is not; 2 could not tell",
    };

    type Answer = Asked;

    fn run(self, context: &mut Context<'_>) -> Result<Outcome<Asked>> {
        context.survey.look_everywhere();
        let (stdin, things): (Vec<OsString>, Vec<OsString>) =
            self.things.into_iter().partition(|thing| thing == "-");
        Outcome::yes(Asked {
            things,
            reads_stdin: !stdin.is_empty(),
        })
    }
}

/// What was asked for. Each row is found when it is shown: whoever writes the lines that are read
/// may wait for the answer to one before the next.
pub struct Asked {
    things: Vec<OsString>,
    reads_stdin: bool,
}

impl Answer for Asked {
    type Row = Row;

    fn show(
        self,
        look: Look,
        context: &Context<'_>,
        out: &mut dyn Write,
        ended: &mut Ended,
    ) -> io::Result<()> {
        let mut finder = Finder::new(context, ended);
        match look.format {
            Format::Json => json::array(out, |give| {
                self.find(&mut finder, &mut |row| row.map_or(Ok(()), |row| give(&row)))
            }),
            _ => self.find(&mut finder, &mut |row| match row {
                Some(row) => vec![row].show(look, context, out, &mut Ended::default()),
                None => out.flush(),
            }),
        }
    }
}

/// Takes a row; with none it is told that the next may be long in coming.
type Give<'g> = dyn FnMut(Option<Row>) -> io::Result<()> + 'g;

impl Asked {
    /// Finds whose each thing is, and each line's.
    fn find(&self, finder: &mut Finder<'_, '_>, give: &mut Give<'_>) -> io::Result<()> {
        for thing in &self.things {
            if let Some(row) = finder.row_of(thing.as_bytes(), Places::Shown) {
                give(Some(row))?;
            }
        }
        if !self.reads_stdin {
            return Ok(());
        }
        let mut input = BufReader::with_capacity(INPUT, io::stdin().lock());
        let mut line = Vec::new();
        loop {
            if !input.buffer().contains(&b'\n') {
                give(None)?;
            }
            match read_line(&mut input, &mut line) {
                Ok(true) => {}
                Ok(false) => return Ok(()),
                Err(error) => {
                    let is_over = matches!(error, Error::Io { .. });
                    finder.note(error);
                    if is_over {
                        return Ok(());
                    }
                    continue;
                }
            }
            let row = thing_in(&line).and_then(|thing| finder.row_of(thing, Places::LeftOut));
            if let Some(row) = row {
                give(Some(Row {
                    line: Some(Bytes::from(&line[..])),
                    ..row
                }))?;
            }
        }
    }
}

/// How much of the input is read at once, in bytes.
const INPUT: usize = 64 << 10;

/// The longest line that is looked at, in bytes: no path is nearly as long.
const LINE_MAX: u64 = 1 << 20;

/// Reads the next line, without its end, and says whether there was one.
fn read_line(input: &mut impl BufRead, line: &mut Vec<u8>) -> Result<bool> {
    let fail = |error: io::Error| Error::io("/dev/stdin", errno_of(&error));
    line.clear();
    let read = input.by_ref().take(LINE_MAX).read_until(b'\n', line);
    if read.map_err(fail)? == 0 {
        return Ok(false);
    }
    if line.pop_if(|last| *last == b'\n').is_none() && line.len() as u64 == LINE_MAX {
        input.skip_until(b'\n').map_err(fail)?;
        let what = "has a line of more than 1 MiB, which was passed over";
        return Err(Error::damaged("/dev/stdin", what));
    }
    Ok(true)
}

/// No more problems are remembered: a stream of lines has no end.
const PROBLEMS_MAX: usize = 1000;

/// What rows are found in, and what is found beside them.
struct Finder<'f, 'h> {
    context: &'f Context<'h>,
    known: Vec<Known<'f>>,
    ended: &'f mut Ended,
    noted: HashSet<String>,
}

impl<'f, 'h> Finder<'f, 'h> {
    fn new(context: &'f Context<'h>, ended: &'f mut Ended) -> Finder<'f, 'h> {
        let mut finder = Finder {
            context,
            known: Vec::new(),
            ended,
            noted: HashSet::new(),
        };
        let (uses, problems) = engine::layer_uses(&context.survey);
        let known = uses.into_iter();
        finder.known = known
            .map(|(engine, uses)| Known::new(engine, uses))
            .collect();
        problems.into_iter().for_each(|error| finder.note(error));
        finder.note_of_engines();
        finder
    }

    /// Whose a thing is; none where that cannot be told.
    fn row_of(&mut self, thing: &[u8], places: Places) -> Option<Row> {
        let found = who(self.context, &self.known, thing, places);
        self.note_of_engines();
        match found {
            Ok(row) => {
                self.ended.is_no |= row.kind == Kind::Unknown;
                Some(row)
            }
            Err(error) => {
                self.note(error);
                None
            }
        }
    }

    fn note_of_engines(&mut self) {
        for error in self.context.survey.take_problems() {
            self.note(error);
        }
    }

    /// Remembers a problem, each once.
    fn note(&mut self, error: Error) {
        if self.noted.len() < PROBLEMS_MAX && self.noted.insert(error.to_string()) {
            self.ended.problems.push(error);
        }
    }
}

/// The path in a line of `du`, `find` or `df`: from the first slash that begins a word.
fn thing_in(line: &[u8]) -> Option<&[u8]> {
    let starts = |at: &usize| line[*at] == b'/' && (*at == 0 || line[at - 1].is_ascii_whitespace());
    let start = (0..line.len()).find(starts);
    match start {
        Some(start) => Some(&line[start..]),
        // A name alone, or behind a number.
        None => {
            let words = line.splitn(2, |&byte| byte == b'\t').last();
            words.map(<[u8]>::trim_ascii).filter(|of| !of.is_empty())
        }
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
            let state = inside.state.word();
            writeln!(out, "  {}:{}  {state}", inside.target, inside.path)?;
            if let Some(cover) = &inside.covered_by {
                writeln!(out, "    {}", cover.words())?;
            }
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
            // Images on one another have it in the same place, and not as many.
            let mut others = self.images.iter();
            let is_alike = others.all(|of| (of.number, of.of) == (image.number, image.of));
            let of = if is_alike {
                format!(" of {}", image.of)
            } else {
                String::new()
            };
            words.push(format!("{}{of}", image.number));
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
