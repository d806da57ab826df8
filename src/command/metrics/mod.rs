//! `metrics`: what a report tells, as numbers that a monitoring system keeps.

mod count;
mod text;

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;

use super::report::gather::Gathered;
use super::{Answer, Context, Ended, Group, Help, Outcome, Verb, output, sieve};
use crate::error::Result;
use crate::render::column::{Column, column};
use crate::render::{Format, Look, time};
use count::Counts;

/// Tell sizes and findings in Prometheus' text format
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Write it to a file, which is replaced when all is told; - is standard output
    #[arg(short, long, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    output: Option<PathBuf>,
    /// Tell it at once, and again after each DURATION (30s, 5min, 1h), until ended
    #[arg(long, value_name = "DURATION", value_parser = sieve::period)]
    every: Option<Duration>,
    /// Tell of the N containers with the largest layers, and of the others together
    #[arg(long, value_name = "N", default_value_t = 200)]
    containers: usize,
}

/// One sample.
#[derive(Debug, Clone, PartialEq, Serialize, schemars::JsonSchema)]
#[schemars(rename = "MetricSample")]
pub struct Row {
    /// `layerctl_...`; all are gauges.
    pub metric: &'static str,
    pub labels: BTreeMap<&'static str, String>,
    pub value: f64,
    /// What the metric means.
    #[serde(skip)]
    pub help: &'static str,
}

impl Verb for Args {
    const HELP: Help = Help {
        group: Group::Host,
        examples: &[
            "layerctl metrics",
            "layerctl metrics -o /var/lib/prometheus/node-exporter/layerctl.prom",
            "layerctl metrics --format jsonl",
        ],
        exit: "0 told; 2 something could not be read: layerctl_complete is 0",
    };

    type Answer = Metrics;

    fn every(&self) -> Option<Duration> {
        self.every
    }

    fn run(self, context: &mut Context<'_>) -> Result<Outcome<Metrics>> {
        Outcome::yes(Metrics {
            output: output::Output::find(&context.survey, self.output)?,
            time: time::now(),
            gathered: Gathered::of(context, false)?,
            containers: self.containers,
        })
    }
}

/// Metrics that are to be written.
pub struct Metrics {
    output: output::Output,
    time: jiff::Timestamp,
    gathered: Gathered,
    containers: usize,
}

impl Answer for Metrics {
    type Row = Row;

    fn show(
        self,
        look: Look,
        context: &Context<'_>,
        out: &mut dyn Write,
        ended: &mut Ended,
    ) -> io::Result<()> {
        let mut counts = Counts::new(self.time);
        self.gathered.tell(context, ended, &mut |record| {
            counts.add(record);
            Ok(())
        })?;
        let rows = counts.rows(self.containers);
        self.output
            .write(out, output::Readers::All, |out| match look.format {
                Format::Table => text::write(&rows, out),
                _ => rows.show(look, context, out, ended),
            })
    }
}

impl super::Row for Row {
    fn words(&self, give: &mut dyn FnMut(&[u8])) {
        give(self.metric.as_bytes());
    }

    fn columns(_look: Look) -> Vec<Column<Row>> {
        vec![
            column("VALUE", |row: &Row, _, cell| cell.show(row.value)),
            column("METRIC", |row, _, cell| cell.text(row.metric)),
        ]
    }
}
