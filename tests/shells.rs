//! Completion as real shells do it, each on a terminal of its own: what was typed, a TAB, and then
//! the words that the shell makes of the line.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use crate::lab::host::Host;
use crate::lab::{needs, needs_asking, terminal};

const SHELLS: [&str; 3] = ["bash", "zsh", "fish"];

/// What a shell says when it waits for a line.
const PROMPT: &str = "ready>";

/// A shell that reads from a terminal of its own.
struct Typed {
    child: Child,
    keys: File,
    sent: Receiver<Vec<u8>>,
    seen: String,
}

impl Typed {
    fn start(shell: &str, home: &Path) -> Typed {
        let completions = Path::new(env!("CARGO_MANIFEST_DIR")).join("completions");
        let (master, slave) = terminal::open(200);
        let again = || Stdio::from(slave.try_clone().expect("a descriptor"));
        let directory = Path::new(env!("CARGO_BIN_EXE_layerctl"))
            .parent()
            .expect("it is in a directory")
            .to_owned();
        let path = std::env::var("PATH").unwrap_or_default();
        let start: &[&str] = match shell {
            "bash" => &["bash", "--norc", "--noprofile", "-i"],
            "zsh" => &["zsh", "-i"],
            _ => &["fish", "--no-config"],
        };
        fs::write(
            home.join(".zshrc"),
            format!(
                "fpath=({} $fpath)\nautoload -U compinit\ncompinit -u -D\n",
                completions.display()
            ),
        )
        .expect("our own directory");
        // `sudo` finds what other commands complete with where a package puts it.
        let dynamic = home.join("bash-completion/completions");
        fs::create_dir_all(&dynamic).expect("our own directory");
        fs::copy(completions.join("layerctl.bash"), dynamic.join("layerctl")).expect("a copy");
        let mut command = Command::new("setsid");
        command
            .arg("--ctty")
            .args(start)
            .env_clear()
            .env("PATH", format!("{}:{path}", directory.display()))
            .env("TERM", "dumb")
            .env("LANG", "C.UTF-8")
            .env("HOME", home)
            .env("ZDOTDIR", home)
            .env("XDG_DATA_HOME", home)
            .env("BASH_COMPLETION_USER_DIR", home.join("bash-completion"))
            .env("PS1", PROMPT)
            .current_dir(home)
            .stdin(again())
            .stdout(again())
            .stderr(again());
        let child = command.spawn().expect("util-linux has setsid");
        drop((command, slave));
        let mut reader = master.try_clone().expect("a descriptor");
        let (give, sent) = mpsc::channel();
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(count @ 1..) = reader.read(&mut buffer) {
                if give.send(buffer[..count].to_vec()).is_err() {
                    return;
                }
            }
        });
        let mut typed = Typed {
            child,
            keys: master,
            sent,
            seen: String::new(),
        };
        match shell {
            "bash" => typed.line(&format!(
                "source /usr/share/bash-completion/bash_completion 2>/dev/null; source {}/layerctl.bash; echo be''gin",
                completions.display()
            )),
            "zsh" => typed.line(&format!("PS1='{PROMPT}'; bindkey -e; echo be''gin")),
            _ => typed.line(&format!(
                "function fish_prompt; echo -n '{PROMPT}'; end; source {}/layerctl.fish; echo be''gin",
                completions.display()
            )),
        }
        typed.until("begin");
        typed.until(PROMPT);
        typed
    }

    fn keys(&mut self, keys: &str) {
        self.keys
            .write_all(keys.as_bytes())
            .expect("the shell reads");
    }

    fn line(&mut self, line: &str) {
        self.keys(&format!("{line}\n"));
    }

    /// Reads until the terminal was sent that, and forgets what was before it.
    #[track_caller]
    fn until(&mut self, end: &str) -> String {
        let ends = Instant::now() + Duration::from_secs(120);
        loop {
            if let Some(at) = self.seen.find(end) {
                let before = self.seen[..at].to_owned();
                self.seen.drain(..at + end.len());
                return before;
            }
            let left = ends.saturating_duration_since(Instant::now());
            let sent = self.sent.recv_timeout(left);
            let sent = sent.unwrap_or_else(|_| panic!("no {end:?} in {:?}", self.seen));
            self.seen.push_str(&String::from_utf8_lossy(&sent));
        }
    }

    /// Reads until nothing has come for a while.
    fn quiet(&mut self) {
        while let Ok(sent) = self.sent.recv_timeout(Duration::from_millis(800)) {
            self.seen.push_str(&String::from_utf8_lossy(&sent));
        }
    }

    /// The words of a line that was completed, as the shell gives them to a program.
    fn words(&mut self, line: &str) -> Vec<String> {
        self.seen.clear();
        self.keys(line);
        self.keys("\t");
        self.quiet();
        // The line is not run: its words are.
        self.keys("\u{1}printf '<%s>' be''gin ");
        self.keys("\n");
        self.until("<begin>");
        let words = self.until(PROMPT);
        let words = words.split('>').filter_map(|word| word.split_once('<'));
        words.map(|(_, word)| word.to_owned()).collect()
    }
}

impl Drop for Typed {
    fn drop(&mut self) {
        // It is ours, and so is what it runs in: the terminal ends with us.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn each_shell(check: impl Fn(&str, &mut Typed)) {
    needs_asking("shells are waited for");
    for shell in SHELLS {
        needs::program(shell, "--version");
    }
    for shell in SHELLS {
        let home = tempfile::tempdir().expect("a directory");
        check(shell, &mut Typed::start(shell, home.path()));
    }
}

#[apply(test)]
fn words_with_colons_are_completed_whole() {
    needs::captured_hosts();
    let host = Host::captured("docker-28-overlay2");
    let root = host.root.display();
    each_shell(|shell, typed| {
        for (begun, whole) in [
            ("ls docker:sna", "docker:snap-8"),
            ("ls sna", "snap-8"),
            ("ls snap-8:", "snap-8:/"),
            ("ls snap-8:/et", "snap-8:/etc/"),
            ("ls docker:snap-8:/et", "docker:snap-8:/etc/"),
            ("cat snap-8:/etc/passw", "snap-8:/etc/passwd"),
            ("history lab/small:", "lab/small:edge"),
            ("which --in snap-8 /et", "/etc/"),
            ("--format=jso containers", "containers"),
        ] {
            let words = typed.words(&format!("layerctl --root {root} {begun}"));
            assert_eq!(
                words.last().map(String::as_str),
                Some(whole),
                "{shell} {begun}: {words:?}"
            );
        }
        for (begun, whole) in [
            ("layerctl man whoi", "whois"),
            ("layerctl schema whoi", "whois"),
        ] {
            assert_eq!(
                typed.words(begun).last().map(String::as_str),
                Some(whole),
                "{shell}"
            );
        }
        let sudo = format!("sudo layerctl --root {root} cat snap-8:/etc/passw");
        let words = typed.words(&sudo);
        assert_eq!(
            words.last().map(String::as_str),
            Some("snap-8:/etc/passwd"),
            "{shell} under sudo: {words:?}"
        );
    });
}

/// A name that is an order to a shell is a word when it is completed; one that would move the cursor
/// is not offered.
#[apply(test)]
fn a_hostile_name_is_a_word_and_no_order() {
    let layers = tempfile::tempdir().expect("a directory");
    let upper = layers.path().join("upper");
    fs::create_dir(&upper).expect("a directory");
    let name = "a;touch owned $(touch owned) `touch owned` 'b' \"c\" &";
    for name in [name, "n\nm", "e\u{1b}[31mx", "o\u{202e}x"] {
        fs::write(upper.join(name), "").expect("a file");
    }
    let stack = format!("br:{}=rw", upper.display());
    each_shell(|shell, typed| {
        let words = typed.words(&format!("layerctl which --in {stack} /a"));
        assert_eq!(
            words.last(),
            Some(&format!("/{name}")),
            "{shell}: {words:?}"
        );
        for begun in ["/n", "/e", "/o"] {
            let words = typed.words(&format!("layerctl which --in {stack} {begun}"));
            assert_eq!(words.last().map(String::as_str), Some(begun), "{shell}");
        }
    });
    assert!(!layers.path().join("owned").exists());
}
