//! What is typed behind a pod, as layerctl is asked it about the pod's container.

use std::ffi::OsString;

use clap::CommandFactory;

use super::wrong;
use crate::cli::Cli;
use crate::error::{Error, Result};

/// How a verb is told which container is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Told {
    /// By `--in`, so that paths stand alone.
    Within,
    /// As its first argument.
    First,
    /// Not at all: it is about the node.
    Node,
    /// It changes something, where nothing can be changed.
    Refused,
}

/// None for what is no verb about a host.
fn told(verb: &str) -> Option<Told> {
    Some(match verb {
        "which" | "ls" | "cat" | "cp" => Told::Within,
        "branches" | "whiteouts" | "copyups" | "changes" | "diff" | "find" | "history"
        | "check" | "verify" | "export" => Told::First,
        "containers" | "images" | "info" | "report" | "metrics" | "whois" | "orphans" | "du" => {
            Told::Node
        }
        "restore" | "mount" | "umount" => Told::Refused,
        _ => return None,
    })
}

/// The words that ask about a container.
///
/// # Errors
/// It is no verb, or one that cannot be asked.
pub fn about(words: &[OsString], id: &str) -> Result<Vec<OsString>> {
    let (typed, rest) = words.split_first().ok_or_else(|| wrong("names no verb"))?;
    let line = Cli::command();
    let verb = line.find_subcommand(typed).map(clap::Command::get_name);
    let told = verb.and_then(told).ok_or_else(|| {
        let typed = typed.to_string_lossy();
        wrong(format!(
            "{typed}: is no verb of layerctl's; options stand before it"
        ))
    })?;
    let container: &[&str] = match told {
        Told::Within => &["--in", id],
        Told::First => &[id],
        Told::Node => &[],
        Told::Refused => {
            return Err(Error::Refused {
                what: format!("{} is not for a pod", typed.to_string_lossy()),
                hint: "the node is mounted read-only: run layerctl on it".into(),
            });
        }
    };
    let container = container.iter().map(OsString::from);
    let first = std::iter::once(typed.clone());
    Ok(first.chain(container).chain(rest.iter().cloned()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::HELPS;

    #[test]
    fn every_verb_is_told_somehow() {
        for (verb, _) in HELPS {
            let told = told(verb).unwrap_or_else(|| panic!("{verb}"));
            let line = Cli::command();
            let of_verb = line.find_subcommand(verb).unwrap();
            let has = |long: &str| {
                of_verb
                    .get_arguments()
                    .any(|of| of.get_long() == Some(long))
            };
            assert!(told != Told::Within || has("in"), "{verb}");
            let mut places = of_verb.get_positionals();
            assert!(told != Told::First || places.next().is_some(), "{verb}");
        }
    }

    #[test]
    fn the_container_is_put_in() {
        for (typed, asked) in [
            (
                &["which", "/etc/passwd"][..],
                Some("which --in ID /etc/passwd"),
            ),
            (&["changes", "-l"], Some("changes ID -l")),
            (&["ps"], Some("ps")),
            (&["layers"], Some("layers ID")),
            (&["restore", "/etc/passwd"], None),
            (&["undelete", "/etc/passwd"], None),
            (&["--root", "/", "changes"], None),
            (&["man"], None),
            (&["idle"], None),
        ] {
            let words: Vec<OsString> = typed.iter().map(OsString::from).collect();
            let about = about(&words, "ID").ok();
            let about = about.map(|words| words.join(" ".as_ref()).into_string().unwrap());
            assert_eq!(about.as_deref(), asked, "{typed:?}");
        }
    }
}
