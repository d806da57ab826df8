//! The binary on a terminal of its own.

use std::ffi::OsStr;
use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};

use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

use super::run;

/// A terminal that has so many columns, or does not tell: the end that a person has, and the one that
/// programs have.
pub fn open(columns: u16) -> (File, OwnedFd) {
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a pseudo-terminal");
    grantpt(&master).expect("a pseudo-terminal");
    unlockpt(&master).expect("a pseudo-terminal");
    let size = Winsize {
        ws_row: 40,
        ws_col: columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    tcsetwinsize(&master, size).expect("a pseudo-terminal");
    let name = ptsname(&master, Vec::new()).expect("a pseudo-terminal");
    let slave = openat(CWD, &*name, OFlags::RDWR | OFlags::NOCTTY, Mode::empty());
    (File::from(master), slave.expect("a pseudo-terminal"))
}

/// Its exit status, and what the terminal was sent on standard output, with plain line ends and
/// without colours.
pub fn run(words: impl IntoIterator<Item = impl AsRef<OsStr>>) -> (Option<i32>, String) {
    run_at(0, &[("NO_COLOR", "1")], words)
}

/// The same on a terminal that has so many columns, or does not tell, and with variables of its own.
pub fn run_at(
    columns: u16,
    variables: &[(&str, &str)],
    words: impl IntoIterator<Item = impl AsRef<OsStr>>,
) -> (Option<i32>, String) {
    let to_terminal = |command: &mut Command, terminal: Stdio| {
        command.stdout(terminal).stderr(Stdio::null());
    };
    sent(columns, variables, words, to_terminal)
}

/// Its exit status, and what the terminal was sent on standard error.
pub fn said(words: impl IntoIterator<Item = impl AsRef<OsStr>>) -> (Option<i32>, String) {
    let to_terminal = |command: &mut Command, terminal: Stdio| {
        command.stdout(Stdio::null()).stderr(terminal);
    };
    sent(0, &[("NO_COLOR", "1")], words, to_terminal)
}

/// What the terminal was sent on standard error, by a program of which certain system calls take so many
/// microseconds each. It needs strace.
pub fn said_slowly(
    (calls, delay): (&str, u32),
    words: impl IntoIterator<Item = impl AsRef<OsStr>>,
) -> String {
    let to_terminal = |command: &mut Command, terminal: Stdio| {
        let mut slow = Command::new("strace");
        slow.args(["-f", "-qqq", "-o", "/dev/null"])
            .args(["-e", &format!("trace={calls}")])
            .args(["-e", &format!("inject={calls}:delay_enter={delay}")])
            .arg(command.get_program())
            .args(command.get_args())
            .env_clear()
            .env("TERM", "xterm")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(terminal);
        *command = slow;
    };
    sent(80, &[], words, to_terminal).1
}

fn sent(
    columns: u16,
    variables: &[(&str, &str)],
    words: impl IntoIterator<Item = impl AsRef<OsStr>>,
    to_terminal: impl Fn(&mut Command, Stdio),
) -> (Option<i32>, String) {
    let (mut terminal, slave) = open(columns);
    let mut command = run::command();
    command
        .args(words)
        .env("TERM", "xterm")
        .envs(variables.iter().copied());
    to_terminal(&mut command, Stdio::from(slave));
    let mut child = command.spawn().expect("layerctl was built");
    // The terminal ends with the last who has it open.
    drop(command);
    let mut sent = Vec::new();
    let mut buffer = [0; 4096];
    while let Ok(count @ 1..) = terminal.read(&mut buffer) {
        sent.extend_from_slice(&buffer[..count]);
    }
    let status = child.wait().expect("our own child").code();
    let sent = String::from_utf8(sent).expect("text");
    (status, sent.replace("\r\n", "\n"))
}
