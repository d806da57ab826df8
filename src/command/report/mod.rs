//! `report`: all that is known of a host, as one stream of lines.

pub mod gather;
pub mod record;
mod since;

use std::io::{self, Write};
use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;
use serde_json::{Map, Value};

use super::output::{Output, Readers};
use super::{Answer, Context, Ended, Group, Help, Outcome, Verb, sieve};
use crate::error::Result;
use crate::render::{Format, Look, json, time};
use gather::Gathered;
use record::{Drift, Record, Row, SCHEMA_VERSION};
use since::{Comparison, Earlier};

/// Tell all that is known of the host, a JSON object a line
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Tell every change of every container, not only how many
    #[arg(long)]
    changes: bool,
    /// Tell only what is new, changed or gone since an earlier report
    #[arg(long, value_name = "REPORT", value_hint = clap::ValueHint::FilePath)]
    since: Option<PathBuf>,
    /// Write it to a file, which is replaced when all is told; - is standard output
    #[arg(short, long, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    output: Option<PathBuf>,
    /// Tell it at once, and again after each DURATION (30s, 5min, 1h), until ended
    #[arg(long, value_name = "DURATION", value_parser = sieve::period)]
    every: Option<Duration>,
    /// What rows call the host [default: what /etc/machine-id has, or the host's name]
    #[arg(long, value_name = "ID")]
    host_id: Option<String>,
}

impl Verb for Args {
    const HELP: Help = Help {
        group: Group::Host,
        examples: &[
            "layerctl report > $(hostname).jsonl",
            "layerctl report --since yesterday.jsonl",
            "layerctl --root /mnt/disk report --changes -o disk.jsonl",
        ],
        exit: "0 told; 2 something could not be read: rows `problem` say what",
    };

    type Answer = Report;

    fn every(&self) -> Option<Duration> {
        self.every
    }

    fn run(self, context: &mut Context<'_>) -> Result<Outcome<Report>> {
        let output = Output::find(&context.survey, self.output)?;
        let time = time::now();
        let time = time.strftime("%Y-%m-%dT%H:%M:%S%.3fZ").to_string();
        let (host_id, host) = gather::names(context, self.host_id);
        let earlier = self.since.as_deref();
        let earlier = earlier
            .map(|path| Earlier::read(path, &host_id, self.changes))
            .transpose()?;
        context
            .problems
            .extend(earlier.as_ref().and_then(Earlier::problem));
        let mut gathered = Gathered::of(context, self.changes)?;
        gathered.host.since = earlier.as_ref().map(|earlier| earlier.time.clone());
        Outcome::yes(Report {
            output,
            gathered,
            lines: Lines {
                host_id,
                host,
                time,
                earlier,
            },
        })
    }
}

/// A report that is to be written.
pub struct Report {
    output: Output,
    gathered: Gathered,
    lines: Lines,
}

impl Answer for Report {
    type Row = Row<'static>;

    fn show(
        self,
        look: Look,
        context: &Context<'_>,
        out: &mut dyn Write,
        ended: &mut Ended,
    ) -> io::Result<()> {
        let Report {
            output,
            gathered,
            lines,
        } = self;
        output.write(out, Readers::Owner, |out| {
            lines.write(gathered, look, context, out, ended)
        })
    }
}

/// What every line of a report has, and what it is held against.
struct Lines {
    host_id: String,
    host: Option<String>,
    time: String,
    earlier: Option<Earlier>,
}

/// A line as it is written.
#[derive(Serialize)]
#[serde(untagged)]
enum Line<'l> {
    Now(Row<'l>),
    Then(Map<String, Value>),
}

impl Lines {
    fn write(
        self,
        gathered: Gathered,
        look: Look,
        context: &Context<'_>,
        out: &mut dyn Write,
        ended: &mut Ended,
    ) -> io::Result<()> {
        match look.format {
            Format::Quiet | Format::Null => gathered.tell(context, ended, &mut |record| {
                let word = record.word();
                word.map_or(Ok(()), |word| look.write_word(word, out))
            }),
            Format::Json => json::array(out, |put| {
                self.tell(gathered, context, ended, &mut |row| {
                    put(&serde_json::to_value(row)?)
                })
            }),
            Format::Table | Format::Jsonl | Format::Template => {
                self.tell(gathered, context, ended, &mut |row| json::line(row, out))
            }
        }
    }

    fn tell(
        self,
        gathered: Gathered,
        context: &Context<'_>,
        ended: &mut Ended,
        put: &mut dyn FnMut(&Line<'_>) -> io::Result<()>,
    ) -> io::Result<()> {
        let Lines {
            host_id,
            host,
            time,
            mut earlier,
        } = self;
        gathered.tell(context, ended, &mut |record| {
            let mut row = Row {
                schema_version: SCHEMA_VERSION,
                host_id: &host_id,
                host: host.as_deref(),
                time: &time,
                drift: None,
                record,
            };
            let Some(earlier) = &mut earlier else {
                return put(&Line::Now(row));
            };
            match earlier.drift(&as_object(&row)?) {
                Comparison::Unchanged => return Ok(()),
                Comparison::NotCompared => {}
                Comparison::Drifted(drift) => row.drift = Some(drift),
            }
            // What could not be read is not known to be gone.
            if let Record::End(end) = record
                && end.complete
            {
                earlier.gone(|mut row| {
                    row.insert("time".into(), time.as_str().into());
                    row.insert("drift".into(), serde_json::to_value(Drift::Gone)?);
                    put(&Line::Then(row))
                })?;
            }
            put(&Line::Now(row))
        })
    }
}

fn as_object(row: &Row<'_>) -> io::Result<Map<String, Value>> {
    match serde_json::to_value(row)? {
        Value::Object(object) => Ok(object),
        other => Err(io::Error::other(other.to_string())),
    }
}
