//! A worked example of a verb, which CONTRIBUTING.md follows: `heights [TARGET...]`, how many
//! branches a union has. It is built and run by its test only: what makes a verb of the program is
//! its line in `verbs!`.

use std::ffi::OsString;

use serde::Serialize;

use crate::bytes::Bytes;
use crate::command::{Context, Group, Help, Label, Outcome, Verb, Which, union_column};
use crate::error::Result;
use crate::render::Look;
use crate::render::column::{Column, column};

// What can be typed. The comments are the verb's help.

/// Tell how many branches unions have
#[derive(Debug, clap::Args)]
pub struct Args {
    #[arg(value_name = "TARGET")]
    targets: Vec<OsString>,
    #[command(flatten)]
    which: Which,
}

// What is found: one object of `--format jsonl`, and its schema.

#[derive(Debug, Serialize, schemars::JsonSchema)]
pub struct Row {
    /// The union, as a TARGET.
    pub target: Label,
    pub branches: usize,
    /// How many of them can be written to.
    pub writable: usize,
}

impl Verb for Args {
    const HELP: Help = Help {
        group: Group::Look,
        examples: &[
            "layerctl heights",
            "layerctl heights web",
            "layerctl heights --running",
        ],
        exit: "0 told; 2 something could not be read",
    };

    type Answer = Vec<Row>;

    fn run(self, context: &mut Context<'_>) -> Result<Outcome<Vec<Row>>> {
        let targets = context.targets(&self.targets, self.which)?;
        let rows = targets.into_iter().map(|(label, target)| {
            let branches = &target.union.branches;
            let writable = branches
                .iter()
                .filter(|branch| branch.spec.permission.is_writable());
            Row {
                target: label,
                writable: writable.count(),
                branches: branches.len(),
            }
        });
        Outcome::yes(rows.collect())
    }
}

// How it looks.

impl crate::command::Row for Row {
    fn columns(_look: Look) -> Vec<Column<Row>> {
        vec![
            union_column(),
            column("WRITABLE", |row: &Row, _, cell| cell.show(row.writable)),
            column("BRANCHES", |row, _, cell| cell.show(row.branches)),
        ]
    }

    fn words(&self, give: &mut dyn FnMut(&[u8])) {
        give(self.branches.to_string().as_bytes());
    }

    fn label(&self) -> Option<&Label> {
        Some(&self.target)
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::command::Threads;
    use crate::engine::{ENGINES, Roots, Survey};
    use crate::host::Host;
    use crate::render::Format;
    use crate::target::Base;

    #[derive(Parser)]
    struct Typed {
        #[command(flatten)]
        args: Args,
    }

    /// What is printed for `heights` and these words, on a host that has three directories.
    fn printed(words: &[&str], format: Format) -> String {
        let typed = Typed::try_parse_from([&["heights"], words].concat()).unwrap();
        let home = tempfile::tempdir().unwrap();
        for name in ["up", "mid", "low"] {
            std::fs::create_dir(home.path().join(name)).unwrap();
        }
        let host = Host::open(home.path()).unwrap();
        let mut context = Context {
            survey: Survey::new(&host, ENGINES, Roots::default()),
            base: Base(Bytes::from("/")),
            problems: Vec::new(),
            notes: Vec::new(),
            threads: Threads(None),
            is_verbose: false,
            is_direct: false,
            looked: None,
        };
        let look = Look {
            format,
            no_trunc: false,
            exact_sizes: false,
            verbose: false,
            colors: false,
            is_terminal: false,
            screen: None,
        };
        let mut out = Vec::new();
        let outcome = typed.args.run(&mut context).unwrap();
        assert!(outcome.show(&mut context, look, &mut out).unwrap());
        assert!(context.problems.is_empty());
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn every_form_is_made_of_what_the_example_says() {
        let words = ["br:/up=rw:/mid=ro+wh:/low=ro"];
        assert_eq!(
            printed(&words, Format::Table),
            "WRITABLE  BRANCHES\n1         3\n"
        );
        assert_eq!(
            printed(&words, Format::Jsonl),
            "{\"target\":\"br:/up=rw:/mid=ro+wh:/low=ro\",\"branches\":3,\"writable\":1}\n"
        );
        assert_eq!(printed(&words, Format::Quiet), "3\n");
    }
}
