//! `export TARGET... -o FILE|DIR|-`: images and containers, written for other engines.

use std::ffi::OsString;
use std::io::{self, IsTerminal, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use serde::Serialize;

use crate::bytes::Bytes;
use crate::command::{Answer, Context, Ended, Group, Help, Label, Outcome, Verb};
use crate::engine::{OwnerKind, Survey};
use crate::error::{Error, Result};
use crate::render::column::{Column, column, giving, optional};
use crate::render::{Format, Look};
use crate::rescue::Failure;
use crate::rescue::export::{self, Place, Spool, Wanted};
use crate::rescue::ids;
use crate::rescue::image::{Exported, LayerRow, Subject};
use crate::rescue::layer::{ArchiveOrigin, How};
use crate::rescue::packed::Compression;
use crate::restore::guard::{Outside, permit_copy};
use crate::restore::staging::Staging;

/// Write images and containers so that other engines can load them
///
/// An image's layers are written bit for bit, as their recipes have them, and proved while they are
/// written: it has the same id on the other side. A container is written as one tar of what it shows, or
/// with --as as an image, its changes in a layer of their own. Nothing that exists is overwritten without
/// --force, and a run that fails leaves nothing.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Where to; - is standard output, FILE.tar an archive
    #[arg(short, long, value_name = "FILE|DIR|-", value_hint = clap::ValueHint::AnyPath)]
    output: OsString,
    /// OCI's layout, docker's archive, or files
    #[arg(long = "as", value_name = "FORM")]
    form: Option<Form>,
    /// All that is shown as one layer
    #[arg(long)]
    flat: bool,
    /// How layers are packed
    #[arg(long, value_name = "HOW")]
    compress: Option<Compression>,
    /// Write what is lost or changed as it is, by a new id
    #[arg(long, hide_short_help = true)]
    as_is: bool,
    /// What `docker load` calls the image; a container's has no name without it
    #[arg(long, value_name = "NAME[:TAG]")]
    tag: Option<String>,
    /// Replace a file that exists
    #[arg(short, long)]
    force: bool,
    /// Permit writing under a --root other than /
    #[arg(long, hide_short_help = true)]
    write: bool,
    /// Images, containers, or any other stacks
    #[arg(required = true, value_name = "TARGET")]
    targets: Vec<OsString>,
}

/// What something is written as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, schemars::JsonSchema, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Form {
    /// An OCI image layout, as a directory or an archive
    Oci,
    /// An archive for `docker load`, an OCI image layout as well
    Docker,
    /// The files, as `docker export` writes them
    Tar,
}

/// What was written.
#[derive(Debug, Serialize, schemars::JsonSchema)]
pub struct Row {
    /// The union, as a TARGET.
    pub target: Label,
    #[serde(rename = "as")]
    pub form: Form,
    /// Where it was written to.
    pub to: Bytes,
    /// The image's id on the other side; none for a tar of files, and where nothing was written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// What the image is called on the other side; without one it is known by its id.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub names: Vec<String>,
    /// Bottom first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub layers: Vec<LayerRow>,
    /// Bytes of its layers, or of the tar, as they were written.
    pub size: u64,
    /// False where it could not be written.
    pub applied: bool,
}

/// Where it goes.
#[derive(Debug)]
enum Output {
    Stream,
    File(PathBuf),
    /// A directory that is to be made: a layout.
    Layout(PathBuf),
    /// A directory that gets a file for each.
    Files(PathBuf),
}

impl Verb for Args {
    const HELP: Help = Help {
        group: Group::Repair,
        examples: &[
            "layerctl export web:latest -o - | docker load",
            "layerctl --root /mnt/old export web --as docker --tag web:old -o web.tar",
            "layerctl export web -o web.tar    its files, as docker export has them",
        ],
        exit: "0 written; 2 could not be written whole",
    };

    type Answer = Answered;

    fn run(self, context: &mut Context<'_>) -> Result<Outcome<Answered>> {
        let name = self.tag.as_deref().map(tagged).transpose()?;
        if name.is_some() && self.targets.len() > 1 {
            let what = "--tag is for one image: name one TARGET";
            return Err(Error::Usage(what.into()));
        }
        let mut all = Vec::new();
        for typed in &self.targets {
            let target = context.find(typed.as_bytes())?;
            let label = Label::named(context.survey.label(&target.union));
            let own = target.subject().filter(|_| !target.is_layer);
            let mut stack = context.open(&target);
            let union = target.union;
            ids::show_inside(&context.survey, &union, &mut stack)?;
            let stack = Rc::new(stack);
            let subject = Subject {
                union,
                stack,
                own,
                name: name.clone(),
            };
            all.push((label, subject));
        }
        let (labels, subjects): (Vec<Label>, Vec<Subject>) = all.into_iter().unzip();
        let form = self.form_of(&subjects)?;
        if self.tag.is_some() && form == Form::Tar {
            let what =
                "--tag is for an image, and files have no name: add --as docker, or --as oci";
            return Err(Error::Usage(what.into()));
        }
        let output = self.output(form, &labels)?;
        let job = Job {
            labels,
            subjects,
            wanted: Wanted {
                how: How {
                    compression: self.compress,
                    as_is: self.as_is,
                },
                is_flat: self.flat,
                for_docker: form == Form::Docker,
            },
            form,
            may_replace: self.force,
        };
        if let Output::Stream = output {
            return Outcome::yes(Answered::Stream(Box::new(job)));
        }
        let rows = job.write(context, &output, self.write)?;
        Outcome::yes(Answered::Rows(rows))
    }
}

/// A name of an image with its tag, as docker takes it.
///
/// # Errors
/// It is none.
fn tagged(typed: &str) -> Result<String> {
    let is_word = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let (name, tag) = match typed.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => (name, tag),
        _ => (typed, "latest"),
    };
    // The registry, if there is one, may have upper case and a port.
    let (registry, path) = match name.split_once('/') {
        Some((first, rest)) if first.contains(['.', ':']) || first == "localhost" => (first, rest),
        _ => ("", name),
    };
    let is_host = |byte: u8| byte.is_ascii_alphanumeric() || b".:-".contains(&byte);
    let is_part = |part: &str| {
        let ends = [part.bytes().next(), part.bytes().next_back()];
        ends.iter().all(|byte| byte.is_some_and(is_word))
            && part
                .bytes()
                .all(|byte| is_word(byte) || b"._-".contains(&byte))
    };
    let is_tag = |tag: &str| {
        let is_first = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        tag.len() <= TAG_MAX
            && tag.bytes().next().is_some_and(is_first)
            && tag
                .bytes()
                .all(|byte| is_first(byte) || b".-".contains(&byte))
    };
    let is_name = name.len() <= NAME_MAX
        && registry.bytes().all(is_host)
        && path.split('/').all(is_part)
        && is_tag(tag);
    if is_name {
        return Ok(format!("{name}:{tag}"));
    }
    Err(Error::Usage(format!(
        "--tag {typed}: is no name of an image: NAME[:TAG], in lower case, as `docker tag` takes it"
    )))
}

/// The longest name of an image, and the longest tag, in bytes, as docker has them.
const NAME_MAX: usize = 255;
const TAG_MAX: usize = 128;

impl Args {
    /// What it is written as, if nobody says: what each is, images as images.
    fn form_of(&self, subjects: &[Subject]) -> Result<Form> {
        if let Some(form) = self.form {
            if self.flat && form == Form::Tar {
                let what = "a tar is flat by itself: leave --flat away, or name another --as";
                return Err(Error::Usage(what.into()));
            }
            return Ok(form);
        }
        let is_image = |of: &Subject| {
            let owner = of.union.owner.as_ref();
            owner.is_some_and(|owner| owner.kind == OwnerKind::Image) && of.union.view.is_none()
        };
        match subjects.iter().filter(|of| is_image(of)).count() {
            0 if !self.flat => Ok(Form::Tar),
            count if count == subjects.len() || self.flat => Ok(if self.is_archive() {
                Form::Docker
            } else {
                Form::Oci
            }),
            _ => Err(Error::Usage(
                "images and others together: say --as oci, docker or tar".into(),
            )),
        }
    }

    /// Whether the output is an archive by its name.
    fn is_archive(&self) -> bool {
        self.output == "-" || self.output.as_bytes().ends_with(b".tar") || self.is_packed()
    }

    /// Whether its name says that the archive as a whole is packed.
    fn is_packed(&self) -> bool {
        let ends: [&[u8]; 4] = [b".tar.gz", b".tgz", b".tar.zst", b".tzst"];
        ends.iter().any(|end| self.output.as_bytes().ends_with(end))
    }

    /// Sees that what is written is what the name of the output says.
    fn check_name(&self, form: Form) -> Result<()> {
        if !self.is_packed() {
            return Ok(());
        }
        let with = match form {
            Form::Tar => "",
            Form::Oci | Form::Docker => ", or name FILE.tar: --compress packs its layers",
        };
        Err(Error::Usage(format!(
            "{}: an archive is not packed as a whole: write it to -o - and pack that{with}",
            self.output.display()
        )))
    }

    fn output(&self, form: Form, labels: &[Label]) -> Result<Output> {
        let is_several = labels.len() > 1;
        self.check_name(form)?;
        if self.output == "-" {
            if form == Form::Tar && is_several {
                let what = "several tars are no stream: name a directory, or --as oci or docker";
                return Err(Error::Usage(what.into()));
            }
            return Ok(Output::Stream);
        }
        let path = std::path::absolute(Path::new(&self.output));
        let path = path.unwrap_or_else(|_| PathBuf::from(&self.output));
        Ok(match form {
            Form::Oci if !self.is_archive() => Output::Layout(path),
            Form::Oci | Form::Docker => Output::File(path),
            Form::Tar if is_several && self.is_archive() && !path.is_dir() => {
                let what = "several tars are not one: name a directory, or --as oci or docker";
                return Err(Error::Usage(what.into()));
            }
            Form::Tar if is_several || path.is_dir() => Output::Files(path),
            Form::Tar => Output::File(path),
        })
    }
}

/// Everything that is to be written.
pub struct Job {
    labels: Vec<Label>,
    subjects: Vec<Subject>,
    wanted: Wanted,
    form: Form,
    may_replace: bool,
}

impl Job {
    /// Writes it, and says what.
    fn write(
        &self,
        context: &mut Context<'_>,
        output: &Output,
        may_write_copy: bool,
    ) -> Result<Vec<Row>> {
        match output {
            Output::Stream => Ok(Vec::new()),
            Output::File(path) | Output::Layout(path) => {
                let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
                    return Err(Error::Usage(format!("{}: is no name", path.display())));
                };
                let dir = self.checked(&context.survey, parent)?;
                permit_copy(&context.survey, parent, may_write_copy)?;
                let place = Place {
                    dir: &dir.existing(parent)?,
                    name: name.as_bytes(),
                    may_replace: self.may_replace,
                };
                Staging::clear(place.dir);
                let survey = &context.survey;
                if self.form == Form::Tar {
                    let written = self.tar(0, &place);
                    return Ok(vec![self.told(context, 0, path, written)]);
                }
                let spool = Spool(parent.to_owned());
                let written = match output {
                    Output::Layout(_) => {
                        export::directory(survey, &self.subjects, self.wanted, &spool, &place)
                    }
                    _ => export::archive(survey, &self.subjects, self.wanted, &spool, &place),
                };
                Ok(self.images_told(context, path, written))
            }
            Output::Files(path) => {
                let dir = self.checked(&context.survey, path)?;
                permit_copy(&context.survey, path, may_write_copy)?;
                let dir = dir.make()?;
                Staging::clear(&dir);
                let mut rows = Vec::new();
                for (at, label) in self.labels.iter().enumerate() {
                    // To tar(1) a colon ends the name of a machine.
                    let plain = |byte| if byte == b':' { b'_' } else { byte };
                    let name = label.as_file_name().into_iter().map(plain);
                    let name: Vec<u8> = name.chain(*b".tar").collect();
                    let place = Place {
                        dir: &dir,
                        name: &name,
                        may_replace: self.may_replace,
                    };
                    let written = self.tar(at, &place);
                    let to = Bytes::from(&**path).join(&name).to_path();
                    rows.push(self.told(context, at, &to, written));
                }
                Ok(rows)
            }
        }
    }

    /// A directory that lies in none of the unions.
    fn checked(&self, survey: &Survey<'_>, path: &Path) -> Result<Outside> {
        let outside = Outside::find(path)?;
        for Subject { union, stack, .. } in &self.subjects {
            outside.check(survey, union, stack, path)?;
        }
        Ok(outside)
    }

    /// Writes one union's files: how many bytes it took, and what could not be kept.
    fn tar(&self, at: usize, place: &Place<'_>) -> Result<(u64, Vec<Error>), Failure> {
        let subject = &self.subjects[at];
        place.file(|out| export::files(subject, self.wanted.how, out))
    }

    /// The row of a tar of files.
    fn told(
        &self,
        context: &mut Context<'_>,
        at: usize,
        path: &Path,
        written: Result<(u64, Vec<Error>), Failure>,
    ) -> Row {
        let mut row = self.row(at, path);
        match written {
            Ok((size, said)) => {
                (row.size, row.applied) = (size, true);
                context.problems.extend(said);
            }
            Err(failure) => context.problems.extend(failure.errors(path)),
        }
        row
    }

    /// The rows of images.
    fn images_told(
        &self,
        context: &mut Context<'_>,
        path: &Path,
        written: Result<Vec<Exported>, Failure>,
    ) -> Vec<Row> {
        let mut rows: Vec<Row> = (0..self.labels.len())
            .map(|at| self.row(at, path))
            .collect();
        match written {
            Ok(all) => {
                for (row, exported) in rows.iter_mut().zip(all) {
                    row.size = exported.layers.iter().map(|layer| layer.size).sum();
                    row.applied = true;
                    row.image = Some(exported.image);
                    row.names = exported.names;
                    row.layers = exported.layers;
                    context.problems.extend(exported.said);
                }
            }
            Err(failure) => {
                context.notes.extend(self.way_out(&failure));
                context.problems.extend(failure.errors(path));
            }
        }
        rows
    }

    /// What can be done about layers that are not what they were.
    fn way_out(&self, failure: &Failure) -> Option<Error> {
        let is_lost = matches!(failure, Failure::Source(_)) && !self.wanted.how.as_is;
        let what =
            "nothing was written; --as-is writes what is there, and the image gets another id";
        is_lost.then(|| Error::Usage(what.into()))
    }

    fn row(&self, at: usize, path: &Path) -> Row {
        Row {
            target: self.labels[at].clone(),
            form: self.form,
            to: Bytes::from(path),
            image: None,
            names: Vec::new(),
            layers: Vec::new(),
            size: 0,
            applied: false,
        }
    }

    /// Writes it to a stream.
    fn stream(
        &self,
        context: &Context<'_>,
        out: &mut dyn Write,
        ended: &mut Ended,
    ) -> io::Result<()> {
        let survey = &context.survey;
        let how = self.wanted.how;
        let written = if self.form == Form::Tar {
            export::files(&self.subjects[0], how, out).map(|(_, said)| {
                ended.problems.extend(said);
            })
        } else {
            let written = export::stream(survey, &self.subjects, self.wanted, out);
            written.map(|all| {
                for exported in all {
                    ended.problems.extend(exported.said);
                    // There is no other place for it.
                    let faults = exported.layers.into_iter().flat_map(|layer| layer.faults);
                    ended.notes.extend(faults.map(Error::Usage));
                }
            })
        };
        match written {
            Ok(()) => Ok(()),
            Err(Failure::Output(error)) => Err(error),
            Err(failure) => {
                ended.notes.extend(self.way_out(&failure));
                ended.problems.extend(failure.errors(Path::new("-")));
                Ok(())
            }
        }
    }
}

/// What was written; or what is to be written to standard output.
pub enum Answered {
    Rows(Vec<Row>),
    Stream(Box<Job>),
}

impl Answer for Answered {
    type Row = Row;

    fn show(
        self,
        look: Look,
        context: &Context<'_>,
        out: &mut dyn Write,
        ended: &mut Ended,
    ) -> io::Result<()> {
        let job = match self {
            Answered::Rows(rows) => return rows.show(look, context, out, ended),
            Answered::Stream(job) => job,
        };
        if look.format != Format::Table {
            let what = "an archive has no other form: leave --format, -q and -0 away";
            ended.problems.push(Error::Usage(what.into()));
            return Ok(());
        }
        if context.is_direct && io::stdout().is_terminal() {
            let what = "an archive is nothing for a terminal: redirect standard output";
            ended.problems.push(Error::Usage(what.into()));
            return Ok(());
        }
        job.stream(context, out, ended)
    }
}

impl crate::command::Row for Row {
    const HEADS_NOTHING: bool = false;

    fn words(&self, give: &mut dyn FnMut(&[u8])) {
        match &self.image {
            Some(id) => give(id.as_bytes()),
            None => give(self.to.as_bytes()),
        }
    }

    fn label(&self) -> Option<&Label> {
        Some(&self.target)
    }

    fn columns(_look: Look) -> Vec<Column<Row>> {
        vec![
            column("EXPORTED", |row: &Row, _, cell| {
                cell.word(if row.applied { "yes" } else { "no" });
            }),
            giving(1, "AS", |row, _, cell| {
                cell.word(match row.form {
                    Form::Oci => "oci",
                    Form::Docker => "docker",
                    Form::Tar => "tar",
                });
            }),
            column("IMAGE ID", |row, look, cell| {
                if let Some(id) = &row.image {
                    cell.text(&look.id(id));
                }
            }),
            optional("LOADED AS", |row, _, cell| cell.text(&row.names.join(", "))),
            column("LAYERS", |row, _, cell| cell.word(&row.layers_in_words())),
            column("SIZE", |row, look, cell| cell.word(&look.size(row.size))),
            column("TARGET", |row, _, cell| cell.show(row.target.target())),
            column("TO", |row, _, cell| cell.show(&row.to)),
        ]
    }
}

impl Row {
    /// `4 exact, 1 new`.
    fn layers_in_words(&self) -> String {
        let counted = [
            ArchiveOrigin::Exact,
            ArchiveOrigin::AsIs,
            ArchiveOrigin::New,
        ]
        .map(|origin| {
            let layers = self.layers.iter();
            let count = layers.filter(|layer| layer.origin == origin).count();
            (count, origin)
        });
        let counted = counted.into_iter().filter(|(count, _)| *count > 0);
        let words = counted.map(|(count, origin)| format!("{count} {}", origin.word()));
        words.collect::<Vec<String>>().join(", ")
    }
}
