//! What the command line says of itself: help that fits a terminal, and man pages. Both are made of
//! what verbs say of themselves ([`Help`]).

use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

use clap::CommandFactory;
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, roman};

use super::paragraph::{command_line, hanging, width};
use super::{Cli, no_such_verb};
use crate::bytes::Bytes;
use crate::command::{Group, HELPS, Help};
use crate::error::{Error, Result, errno_of};

/// The command line with its help as people see it.
pub fn command() -> clap::Command {
    let is_general = |of: clap::Arg| {
        let is_global = of.is_global_set();
        of.hide_short_help(is_global)
    };
    let width = width();
    let mut command = Cli::command()
        .term_width(width)
        .mut_args(is_general)
        .subcommand_value_name("VERB")
        .help_template(
            "{about-with-newline}\n{usage-heading} {usage}\n\n{before-help}{options}{after-help}",
        )
        .before_help(in_short(width))
        .before_long_help(in_groups(width))
        .after_help(
            "`layerctl VERB -h` has examples; `--help` all options, also those for every verb.",
        );
    for (verb, help) in HELPS {
        command = command.mut_subcommand(verb, |of| of.after_help(ending(help, width)));
    }
    command
}

/// The verbs, a line for each group.
fn in_short(width: usize) -> String {
    let mut text = String::from("Verbs:\n");
    for group in Group::ALL {
        let verbs = HELPS.iter().filter(|(_, help)| help.group == group);
        let verbs: Vec<&str> = verbs.map(|(verb, _)| *verb).collect();
        let heading = format!("  {:<9} ", group.word());
        text.push_str(&hanging(&heading, &verbs.join("  "), heading.len(), width));
        text.push('\n');
    }
    text.push_str("  itself    completions  man  schema  help\n\nStart with:\n");
    for line in START {
        text.push_str(&command_line(line, width));
        text.push('\n');
    }
    text
}

const START: [&str; 4] = [
    "layerctl containers                   what is here",
    "layerctl which web:/etc/passwd        which layer is this file from?",
    "layerctl du                           who fills the disk?",
    "du -xd1 /var/lib/docker/overlay2 | layerctl whois -",
];

/// The verbs, each with what it is for.
fn in_groups(width: usize) -> String {
    let command = Cli::command();
    let mut text = String::new();
    let list = |text: &mut String, verb: &str| {
        let of_verb = command.find_subcommand(verb);
        let about = of_verb.and_then(clap::Command::get_about);
        let about = about.map(ToString::to_string).unwrap_or_default();
        let heading = format!("  {verb:<12} ");
        text.push_str(&hanging(&heading, &about, heading.len(), width));
        text.push('\n');
    };
    for group in Group::ALL {
        let _ = writeln!(text, "{}:", group.heading());
        let verbs = HELPS.iter().filter(|(_, help)| help.group == group);
        verbs.for_each(|(verb, _)| list(&mut text, verb));
    }
    text.push_str("The program itself:\n");
    for verb in ["completions", "man", "schema"] {
        list(&mut text, verb);
    }
    let about = "Print help of layerctl or of a verb";
    text.push_str(&hanging("  help         ", about, 15, width));
    text.push('\n');
    text
}

/// Examples, and what the exit status says.
fn ending(help: &Help, width: usize) -> String {
    let mut text = String::from("Examples:\n");
    for example in help.examples {
        text.push_str(&command_line(example, width));
        text.push('\n');
    }
    text.push_str(&hanging("Exit status: ", help.exit, 2, width));
    text
}

/// The command line that pages are about. A page is of a version, whatever that was built from.
fn documented() -> clap::Command {
    // A page has every option's text, those too that the short help leaves out.
    let is_told = |of: clap::Arg| of.hide_short_help(false);
    let mut command = Cli::command().version(env!("CARGO_PKG_VERSION"));
    command = command.mut_subcommands(|verb| verb.mut_args(is_told));
    command.build();
    command
}

/// The verb's own page, or that of the program.
///
/// # Errors
/// There is no such verb.
pub fn page(verb: Option<&str>) -> Result<Vec<u8>> {
    let command = documented();
    let Some(verb) = verb else {
        return written(&Man::new(command), None);
    };
    // Once built, a verb's display name is layerctl-VERB.
    let of_verb = command.find_subcommand(verb).cloned();
    let of_verb = of_verb.ok_or_else(|| no_such_verb(verb))?;
    let help = HELPS.iter().find(|(name, _)| *name == of_verb.get_name());
    written(&Man::new(of_verb), help.map(|(_, help)| *help))
}

fn written(man: &Man, help: Option<&Help>) -> Result<Vec<u8>> {
    let mut page = Vec::new();
    let sections = man
        .render_title(&mut page)
        .and_then(|()| man.render_name_section(&mut page))
        .and_then(|()| man.render_synopsis_section(&mut page))
        .and_then(|()| man.render_description_section(&mut page))
        .and_then(|()| man.render_options_section(&mut page));
    let sections = sections.and_then(|()| {
        if help.is_none() {
            man.render_subcommands_section(&mut page)?;
        }
        endings(help).to_writer(&mut page)
    });
    sections.map_err(|error| Error::Usage(error.to_string()))?;
    Ok(page)
}

/// The sections that pages of other programs end with, too.
fn endings(help: Option<&Help>) -> Roff {
    let mut roff = Roff::default();
    let default = [
        "layerctl containers",
        "layerctl which web:/etc/passwd",
        "layerctl changes web",
        "layerctl restore --dry-run web:/etc/motd",
    ];
    roff.control("SH", ["EXAMPLES"]);
    for example in help.map_or(&default[..], |help| help.examples) {
        roff.control("PP", []);
        roff.text([bold(*example)]);
    }
    roff.control("SH", ["EXIT STATUS"]);
    let exit = help.map_or(
        "0 yes or done; 1 no; 2 could not tell, or used wrongly",
        |help| help.exit,
    );
    roff.text([roman(exit)]);
    roff.control("SH", ["SEE ALSO"]);
    let is_near = |of: &Help| help.is_none_or(|help| help.group == of.group);
    let near = HELPS.iter().filter(|(_, of)| is_near(of));
    let near = near.map(|(verb, _)| format!("layerctl-{verb}(1)"));
    let program = help.map(|_| "layerctl(1)".to_owned());
    let see: Vec<String> = program.into_iter().chain(near).collect();
    roff.text([roman(see.join(", "))]);
    roff
}

/// Writes every page into a directory, which is made where it is not there. What is there already
/// is left as it is.
///
/// # Errors
/// A page cannot be written, or is there.
pub fn write_pages(directory: &Path) -> Result<()> {
    let fail = |path: &Path, error: &io::Error| Error::io(Bytes::from(path), errno_of(error));
    std::fs::create_dir_all(directory).map_err(|error| fail(directory, &error))?;
    let command = documented();
    let verbs = command.get_subcommands().filter(|of| !of.is_hide_set());
    let verbs = verbs.map(clap::Command::get_name);
    let verbs = verbs.filter(|verb| *verb != "help").map(Some);
    for verb in std::iter::once(None).chain(verbs) {
        let name = verb.map_or_else(
            || "layerctl.1".to_owned(),
            |verb| format!("layerctl-{verb}.1"),
        );
        let path = directory.join(name);
        let page = page(verb)?;
        File::create_new(&path)
            .and_then(|mut file| file.write_all(&page))
            .map_err(|error| fail(&path, &error))?;
    }
    Ok(())
}
