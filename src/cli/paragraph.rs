//! Texts of the help on screens of any width: what is to be typed goes on in a next line as a shell
//! takes it, and what is read stands under its own beginning.

use std::fmt::Write as _;
use std::io;

/// The help is no wider, whatever the screen is, and as wide where nobody tells.
const WIDEST: usize = 100;

/// The columns that the help has, as clap finds them.
pub fn width() -> usize {
    let size = rustix::termios::tcgetwinsize(io::stdout())
        .or_else(|_| rustix::termios::tcgetwinsize(io::stderr()))
        .or_else(|_| rustix::termios::tcgetwinsize(io::stdin()));
    let columns = size.ok().map(|size| usize::from(size.ws_col));
    let columns = columns.filter(|columns| *columns > 0);
    let told = || std::env::var("COLUMNS").ok()?.parse().ok();
    columns.or_else(told).unwrap_or(WIDEST).min(WIDEST)
}

/// Words behind a heading, and under them where they need more lines.
pub fn hanging(heading: &str, words: &str, indent: usize, width: usize) -> String {
    let mut text = heading.to_owned();
    let mut used = heading.chars().count();
    let mut is_first = true;
    // More blanks than one tell words apart that are none of one sentence.
    let mut blanks = 0;
    for word in words.split(' ') {
        if word.is_empty() {
            blanks += 1;
            continue;
        }
        let long = word.chars().count();
        if !is_first && used + blanks + long > width {
            let _ = write!(text, "\n{:indent$}", "");
            used = indent;
        } else if !is_first {
            let _ = write!(text, "{:blanks$}", "");
            used += blanks;
        }
        text.push_str(word);
        used += long;
        (is_first, blanks) = (false, 1);
    }
    text
}

/// A line for a shell, with what is said of it behind some blanks. Where the screen is too narrow that
/// stands below, and the line is broken so that it can be pasted.
pub fn command_line(line: &str, width: usize) -> String {
    const INDENT: usize = 2;
    if INDENT + line.chars().count() <= width {
        return format!("{:INDENT$}{line}", "");
    }
    let (command, said) = match line.find("    ") {
        Some(at) => (&line[..at], line[at..].trim_start()),
        None => (line, ""),
    };
    // Behind what is broken a backslash has to have room.
    let room = width.saturating_sub(2);
    let room = if INDENT + command.chars().count() <= width {
        width
    } else {
        room
    };
    let broken = hanging(&" ".repeat(INDENT), command, 2 * INDENT, room);
    let mut text = broken.replace('\n', " \\\n");
    if !said.is_empty() {
        let heading = format!("\n{:width$}", "", width = 3 * INDENT);
        let indent = 3 * INDENT;
        // The line's end before it takes no column.
        text.push_str(&hanging(&heading, said, indent, width + 1));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::{command_line, hanging};

    #[test]
    fn what_is_typed_can_be_pasted_at_every_width() {
        let line = "layerctl --root /mnt/old export web --as docker -o web.tar    its files";
        for width in [30, 40, 50, 80] {
            let text = command_line(line, width);
            let widest = text.lines().map(|line| line.chars().count()).max();
            assert!(widest <= Some(width), "{width}: {text}");
            let said = text.find("its files").expect("what is said");
            let typed = text[..said].replace("\\\n", " ");
            let words: Vec<&str> = typed.split_whitespace().collect();
            assert_eq!(words.join(" "), &line[..line.find("    ").unwrap()]);
        }
    }

    #[test]
    fn words_stand_under_their_beginning() {
        assert_eq!(
            hanging("  find  ", "one two three", 8, 16),
            "  find  one two\n        three"
        );
        assert_eq!(
            hanging("  a  ", "one  two  three", 5, 13),
            "  a  one  two\n     three"
        );
    }
}
