//! The text format of Prometheus (0.0.4), as node_exporter's textfile collector reads it; OpenMetrics
//! reads the same bytes.
//!
//! ```text
//! # HELP layerctl_images Images, by engine.
//! # TYPE layerctl_images gauge
//! layerctl_images{engine="docker"} 5
//! # EOF
//! ```
//!
//! Prometheus takes the last line for a comment; to OpenMetrics an answer without it was cut off.

use std::io::{self, Write};

use super::Row;

/// Rows of one metric stand together.
///
/// # Errors
/// The output cannot be written.
pub fn write(rows: &[Row], out: &mut dyn Write) -> io::Result<()> {
    for of_one in rows.chunk_by(|a, b| a.metric == b.metric) {
        if let Some(row) = of_one.first() {
            writeln!(out, "# HELP {} {}", row.metric, row.help)?;
            writeln!(out, "# TYPE {} gauge", row.metric)?;
        }
        for row in of_one {
            let labels: Vec<String> = row
                .labels
                .iter()
                .map(|(name, value)| format!("{name}=\"{}\"", escaped(value)))
                .collect();
            let labels = if labels.is_empty() {
                String::new()
            } else {
                format!("{{{}}}", labels.join(","))
            };
            writeln!(out, "{}{labels} {}", row.metric, row.value)?;
        }
    }
    writeln!(out, "# EOF")
}

/// A label's value between quotes. What a terminal would act on is written as people are shown it.
fn escaped(value: &str) -> String {
    let value = crate::bytes::escape_text(value);
    value.replace('\\', "\\\\").replace('"', "\\\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_from_disk_break_no_line() {
        let row = Row {
            metric: "layerctl_containers",
            labels: [("container", "a\"b\\c\nd\u{202e}".to_owned())].into(),
            value: 3.0,
            help: "Containers.",
        };
        let mut out = Vec::new();
        write(&[row], &mut out).unwrap();
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "# HELP layerctl_containers Containers.\n# TYPE layerctl_containers gauge\n\
             layerctl_containers{container=\"a\\\"b\\\\c\\\\nd\\\\u{202e}\"} 3\n# EOF\n"
        );
    }
}
