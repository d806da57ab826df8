//! `cat [TARGET:]PATH...`: the content of files, exact.

use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;

use rustix::io::Errno;
use serde::Serialize;

use crate::bytes::{Bytes, escape_content};
use crate::command::asked::{Asked, asked, note_covers};
use crate::command::{Answer, Context, Ended, Group, Help, Label, Outcome, Verb};
use crate::dir::{Content, Kind, Passed};
use crate::error::{Error, Result, errno_of};
use crate::render::{Format, Look, json};
use crate::restore::locate::{Located, Sought, locate};
use crate::union::{Entry, Follow};

/// Print files of any container, image or layer
///
/// Links are followed inside the union. What is no file is refused, and never opened. A terminal
/// is shown control bytes escaped; everything else gets the exact bytes.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Every argument is a path of this union, byte for byte
    #[arg(long = "in", value_name = "TARGET")]
    within: Option<OsString>,
    /// Print the version that a mark hides; exit status 1 if none does
    #[arg(long)]
    hidden: bool,
    /// Send a terminal the exact bytes, too
    #[arg(long)]
    raw: bool,
    /// Without TARGET the union whose mount point it lies under
    #[arg(required = true, value_name = "[TARGET:]PATH")]
    paths: Vec<OsString>,
}

/// A file, in formats for machines.
#[derive(Debug, Serialize, schemars::JsonSchema)]
pub struct Row {
    /// The union, as a TARGET.
    pub target: Label,
    /// The path with symbolic links resolved.
    pub path: Bytes,
    #[serde(rename = "type")]
    pub kind: Kind,
    /// Index of the branch that provides it, 0 is topmost.
    pub branch: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub layer: Option<String>,
    /// Bytes of content.
    pub size: u64,
    pub content: Bytes,
}

/// The most that is put into one object of JSON, in bytes.
const OBJECT_MAX: u64 = 64 << 20;
/// How much is read at once where the kernel does not pass it on, in bytes.
const AT_ONCE: usize = 128 << 10;

impl Verb for Args {
    const HELP: Help = Help {
        group: Group::Look,
        examples: &[
            "layerctl cat web:/etc/passwd",
            "layerctl cat web@2:/etc/passwd    as the image has it",
            "layerctl cat --hidden web:/etc/motd    what was deleted",
        ],
        exit: "0 printed; 1 one is not there; 2 could not tell, or no file",
    };

    type Answer = Contents;

    fn run(self, context: &mut Context<'_>) -> Result<Outcome<Contents>> {
        let sought = Sought::of(self.hidden);
        let paths = self.paths.iter().map(OsString::as_os_str);
        let asked = asked(context, self.within.as_deref(), paths, sought)?;
        note_covers(context, &asked);
        Outcome::yes(Contents {
            asked,
            sought,
            is_raw: self.raw,
        })
    }
}

/// What was asked for. It is read while it is shown.
pub struct Contents {
    asked: Vec<Asked>,
    sought: Sought,
    is_raw: bool,
}

impl Answer for Contents {
    type Row = Row;

    fn show(
        self,
        look: Look,
        context: &Context<'_>,
        out: &mut dyn Write,
        ended: &mut Ended,
    ) -> io::Result<()> {
        let mut rows = Vec::new();
        for asked in &self.asked {
            let file = match open(asked, self.sought) {
                Ok(Ok(file)) => file,
                Ok(Err(why)) => {
                    ended.is_no = true;
                    ended.notes.push(asked.absent(&why));
                    continue;
                }
                Err(error) => {
                    ended.problems.push(asked.label.of(error));
                    continue;
                }
            };
            let printed = match look.format {
                Format::Table if look.is_terminal && !self.is_raw => file.escaped(out)?,
                Format::Table => file.exact(context.is_direct, out)?,
                Format::Quiet | Format::Null => {
                    look.write_word(file.on_host.as_bytes(), out)?;
                    continue;
                }
                Format::Json | Format::Jsonl | Format::Template => match file.row(asked) {
                    Ok((row, changed)) => {
                        if look.format == Format::Json {
                            rows.push(row);
                        } else {
                            json::line(&row, out)?;
                        }
                        changed
                    }
                    Err(error) => Err(error),
                },
            };
            let problem = printed.err().map(|error| asked.label.of(error));
            ended.problems.extend(problem);
        }
        match look.format {
            Format::Json => json::document(&rows, out),
            _ => Ok(()),
        }
    }
}

/// A file that is open.
struct Opened {
    file: Content,
    path: Bytes,
    /// Where the content is.
    on_host: Bytes,
    branch: usize,
}

/// Opens what is meant; none where there is nothing, with the reason.
fn open(asked: &Asked, sought: Sought) -> Result<Result<Opened, String>> {
    let located = locate(&asked.union.stack, &asked.path, Follow::All, sought)?;
    let Located { path, place, entry } = match located {
        Ok(located) => located,
        Err(why) => return Ok(Err(why)),
    };
    let (Entry::Leaf { from, kind, .. }, Some((place, name))) = (&entry, place) else {
        return Err(no_file(asked, Kind::Directory));
    };
    if *kind != Kind::File {
        return Err(no_file(asked, *kind));
    }
    let data = entry.data();
    let file = place.open_content(*from, &name, data)?;
    let on_host = match data {
        Some(data) => place.stack().on_host(data.branch, &data.path),
        None => place.on_host(*from, &name),
    };
    Ok(Ok(Opened {
        file,
        path,
        on_host,
        branch: *from,
    }))
}

fn no_file(asked: &Asked, kind: Kind) -> Error {
    Error::Refused {
        what: format!(
            "{} is a {}, and only files are printed",
            asked.words(),
            kind.word()
        ),
        hint: match kind {
            Kind::Directory => "`layerctl ls` lists it, `layerctl cp` copies it".into(),
            _ => String::new(),
        },
    }
}

/// What went wrong with a file itself, once it was printed. Inside of what the output says.
type Printed = io::Result<Result<()>>;

impl Opened {
    /// Prints the exact bytes. `is_direct`: to standard output, where the kernel may do it.
    fn exact(mut self, is_direct: bool, out: &mut dyn Write) -> Printed {
        if is_direct {
            out.flush()?;
            match self.file.pass(io::stdout().as_fd()) {
                Ok(Passed::All) => return Ok(self.is_as_before()),
                Ok(Passed::ToBeRead) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        let mut buffer = vec![0; AT_ONCE];
        loop {
            match self.read(&mut buffer) {
                Ok(0) => return Ok(self.is_as_before()),
                Ok(count) => out.write_all(&buffer[..count])?,
                Err(error) => return Ok(Err(error)),
            }
        }
    }

    /// Prints what a terminal may be sent.
    fn escaped(mut self, out: &mut dyn Write) -> Printed {
        let mut buffer = vec![0; AT_ONCE];
        let mut kept = 0;
        let mut text = String::new();
        loop {
            let count = match self.read(&mut buffer[kept..]) {
                Ok(count) => count,
                Err(error) => return Ok(Err(error)),
            };
            let end = kept + count;
            let mut done = escape_content(&buffer[..end], &mut text);
            if count == 0 {
                // No more of the last character follows.
                text.push_str(&crate::bytes::escape(&buffer[done..end]));
                done = end;
            }
            out.write_all(text.as_bytes())?;
            text.clear();
            buffer.copy_within(done..end, 0);
            kept = end - done;
            if count == 0 {
                return Ok(self.is_as_before());
            }
        }
    }

    /// The object of a machine's format, and what has become of the file meanwhile.
    fn row(mut self, asked: &Asked) -> Result<(Row, Result<()>)> {
        let mut content = Vec::new();
        let limited = (&mut self.file)
            .take(OBJECT_MAX + 1)
            .read_to_end(&mut content);
        limited.map_err(|error| self.fail(errno_of(&error)))?;
        if content.len() as u64 > OBJECT_MAX {
            return Err(Error::Refused {
                what: format!(
                    "{} is larger than 64 MiB, too large for an object of JSON",
                    asked.words()
                ),
                hint: "print it without --format, or copy it with `layerctl cp`".into(),
            });
        }
        let changed = self.is_as_before();
        let union = &asked.union.target.union;
        let row = Row {
            target: asked.label.clone(),
            kind: Kind::File,
            branch: self.branch,
            layer: union.layer_id(self.branch).map(str::to_owned),
            size: content.len() as u64,
            content: Bytes(content),
            path: self.path,
        };
        Ok((row, changed))
    }

    fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
        loop {
            match self.file.read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                read => return read.map_err(|error| self.fail(errno_of(&error))),
            }
        }
    }

    fn fail(&self, errno: Errno) -> Error {
        Error::io(self.on_host.clone(), errno)
    }

    fn is_as_before(&self) -> Result<()> {
        match self.file.changed() {
            None => Ok(()),
            Some(what) => Err(Error::damaged(self.on_host.clone(), what)),
        }
    }
}
