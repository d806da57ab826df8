//! How engines' daemons were started: what a command says counts before configuration files.
//!
//! ```text
//! /proc/PID/{exe,cmdline}            the daemons that run
//! docker.service, docker.service.d/  how systemd starts one that does not
//! /etc/default/docker                variables that such a command has in it
//! ```

use std::cell::OnceCell;
use std::collections::{BTreeMap, HashSet};

use super::mount_table::{Mount, MountTable, parse_mountinfo};
use super::namespace::{self, Process};
use super::problems::Problems;
use crate::bytes::Bytes;
use crate::error::Error;
use crate::host::Host;

/// Where systemd has units, those first that win.
const UNIT_DIRECTORIES: [&str; 5] = [
    "/etc/systemd/system",
    "/run/systemd/system",
    "/usr/local/lib/systemd/system",
    "/usr/lib/systemd/system",
    "/lib/systemd/system",
];

/// How much of a program's name the kernel keeps, in bytes.
const COMM_MAX: usize = 15;

/// How a daemon was, or would be, started.
#[derive(Debug, Clone)]
pub struct Command {
    /// Its first word is the program.
    words: Vec<Bytes>,
    /// The process, where it runs.
    pub process: Option<u32>,
    /// Whether it sees the host's mounts as we do.
    pub is_here: bool,
    /// What says so: `/proc/812/cmdline`, `/etc/default/docker`.
    pub source: Bytes,
}

impl Command {
    /// What a file of options says, which has a program's words without the program: `args/containerd`
    /// of a snap. `variables` stand in it as `${NAME}`.
    pub fn of_options(text: &str, source: Bytes, variables: &[(&str, &str)]) -> Command {
        let mut text = text.to_owned();
        for (name, value) in variables {
            text = text.replace(&format!("${{{name}}}"), value);
        }
        let lines = text
            .lines()
            .filter(|line| !line.trim_start().starts_with('#'));
        let words = lines.flat_map(split);
        let words = words.map(|word| Bytes::from(word.as_str()));
        Command {
            words: std::iter::once(Bytes::default()).chain(words).collect(),
            process: None,
            is_here: true,
            source,
        }
    }

    /// The program's name without its directory.
    pub fn program(&self) -> &[u8] {
        self.words.first().map_or(&[], |word| word.file_name())
    }

    /// Whether one of its words is this.
    pub fn has_word(&self, word: &str) -> bool {
        self.words.iter().any(|of| of.as_bytes() == word.as_bytes())
    }

    /// The value of an option under any of its names, as `--name VALUE` or `--name=VALUE`; the last
    /// one counts.
    pub fn option(&self, names: &[&str]) -> Option<Bytes> {
        let value = |(index, word): (usize, &Bytes)| {
            names.iter().find_map(|name| {
                let rest = word.as_bytes().strip_prefix(name.as_bytes())?;
                match rest.strip_prefix(b"=") {
                    Some(value) => Some(Bytes::from(value)),
                    None if rest.is_empty() => self.words.get(index + 1).cloned(),
                    None => None,
                }
            })
        };
        self.words.iter().enumerate().rev().find_map(value)
    }

    /// An option whose value is an absolute path.
    pub fn path(&self, names: &[&str]) -> Option<Bytes> {
        let value = self.option(names);
        value.filter(|value| value.as_bytes().starts_with(b"/"))
    }
}

/// The processes that run one of some programs, by number.
pub fn running(host: &Host, programs: &[&str]) -> Vec<Command> {
    let own = OnceCell::new();
    let own = || own.get_or_init(|| OwnNamespace::of(host));
    let is_one = |program: &Bytes| {
        let name = program.file_name();
        let name = name.strip_suffix(b" (deleted)").unwrap_or(name);
        programs.iter().any(|program| program.as_bytes() == name)
    };
    let is_called = |directory: &Bytes| {
        let name = host.read(&directory.join(b"comm")).unwrap_or_default();
        let name = name.trim_ascii_end();
        let mut programs = programs.iter().map(|program| program.as_bytes());
        programs.any(|program| program[..program.len().min(COMM_MAX)] == *name)
    };
    let command = |process: u32| {
        let directory = namespace::directory(process);
        let exe = match namespace::program_of(host, process) {
            // A thread of the kernel.
            Ok(None) if host.is_live() => return None,
            // A copied host has no such link.
            Ok(exe) => exe,
            // Who may not trace a process may read its name and its command line nevertheless: the
            // name first, since the other can keep its reader waiting as long as the process likes.
            Err(error) if error.is_denied() && is_called(&directory) => None,
            // It has ended.
            Err(_) => return None,
        };
        if exe.as_ref().is_some_and(|exe| !is_one(exe)) {
            return None;
        }
        let source = directory.join(b"cmdline");
        let bytes = host.read(&source).ok()?;
        let words: Vec<Bytes> = bytes
            .strip_suffix(b"\0")
            .unwrap_or(&bytes)
            .split(|&byte| byte == 0)
            .map(Bytes::from)
            .collect();
        if exe.is_none() && !words.first().is_some_and(is_one) {
            return None;
        }
        Some(Command {
            words,
            process: Some(process),
            is_here: own().is_of(host, process),
            source,
        })
    };
    let processes = namespace::processes_of(host);
    processes.into_iter().filter_map(command).collect()
}

/// The mount namespace that the host's paths are of.
struct OwnNamespace {
    name: Option<Bytes>,
    /// A copied host that has no namespaces of processes has those of its own.
    is_copy: bool,
    table: OnceCell<MountTable>,
}

impl OwnNamespace {
    fn of(host: &Host) -> OwnNamespace {
        OwnNamespace {
            is_copy: !host.is_live() && !host.is_alias(),
            name: namespace::name_of(host, &namespace::own(host)),
            table: OnceCell::new(),
        }
    }

    /// Whether a process is in it.
    fn is_of(&self, host: &Host, process: u32) -> bool {
        let there = namespace::name_of(host, &namespace::directory(process));
        match (&self.name, there) {
            (Some(name), Some(of)) => return of == *name,
            (None, None) if self.is_copy => {}
            (None, _) => return false,
            (Some(_), None) => {}
        }
        // Its name is closed to whoever may not trace the process, its mounts are not; the numbers
        // of mounts are unique.
        let own = namespace::own(host).join(b"mountinfo");
        let table = self.table.get_or_init(|| {
            host.read(&own)
                .map_or_else(|_| MountTable::default(), |of| parse_mountinfo(&of))
        });
        match Process::read(host, process) {
            Ok(there) => there.table.shares_a_mount_with(table),
            Err(error) => self.is_copy && self.name.is_none() && error.is_not_found(),
        }
    }
}

/// The units that systemd has on a host, and their drop-ins.
#[derive(Debug)]
pub struct Units {
    /// The directories that there are, with the names in them, those first that win.
    directories: Vec<(Bytes, HashSet<Vec<u8>>)>,
}

impl Units {
    /// Looks through systemd's directories, once for all units.
    pub fn of(host: &Host, problems: &Problems) -> Units {
        let mut seen: Vec<Bytes> = Vec::new();
        let mut directories = Vec::new();
        for directory in UNIT_DIRECTORIES {
            let directory = Bytes::from(directory);
            let opened = host.open_and_keep(&directory);
            let opened = opened.and_then(|()| host.open_real(&directory));
            let opened = problems.unless_absent(opened);
            let Some((dir, real)) = opened else {
                continue;
            };
            // `/lib` is a link on most hosts.
            if !seen.contains(&real) {
                let names = problems.unless_absent(Host::list_dir(&dir, &directory));
                let names = names.unwrap_or_default().into_iter();
                directories.push((directory, names.map(|(name, _)| name).collect()));
                seen.push(real);
            }
        }
        Units { directories }
    }

    /// How systemd would start a service, and what the variables say that its scripts read.
    /// What cannot be read of that is noted.
    pub fn commands(
        &self,
        host: &Host,
        unit: &str,
        environments: &[&str],
        problems: &Problems,
    ) -> Vec<Command> {
        let variables = environments.iter().filter_map(|path| {
            let path = Bytes::from(*path);
            let values = assignments(&problems.text_of(host, &path)?);
            Some((path, values))
        });
        let variables: Vec<(Bytes, BTreeMap<String, String>)> = variables.collect();
        let started = self.exec_start(host, unit, problems);
        let started = started.map(|(source, line, of_unit)| {
            if shlex::split(&line).is_none() {
                let what = "has an ExecStart= with a quote that is not closed";
                problems.note(Error::damaged(source.clone(), what));
            }
            let words = split(&line).into_iter().flat_map(|word| {
                let name = word.trim_start_matches('$');
                let name = name.trim_start_matches('{').trim_end_matches('}');
                let value = variables.iter().find_map(|(_, of)| of.get(name));
                match value.or_else(|| of_unit.get(name)) {
                    Some(value) if word.starts_with('$') => split(value),
                    _ => vec![word],
                }
            });
            Command {
                words: words.map(|word| Bytes::from(word.as_str())).collect(),
                process: None,
                is_here: true,
                source,
            }
        });
        // Scripts of other init systems take them from the same files.
        let of_scripts = variables.iter().map(|(path, values)| {
            let words = values.values().flat_map(|value| split(value));
            Command {
                words: words.map(|word| Bytes::from(word.as_str())).collect(),
                process: None,
                is_here: true,
                source: path.clone(),
            }
        });
        let of_scripts: Vec<Command> = of_scripts.collect();
        started.into_iter().chain(of_scripts).collect()
    }

    /// What has a name in systemd's directories, that first that wins.
    fn called<'u>(&'u self, name: &'u str) -> impl Iterator<Item = Bytes> + 'u {
        let with = self.directories.iter();
        let with = with.filter(|(_, names)| names.contains(name.as_bytes()));
        with.map(|(directory, _)| directory.join(name.as_bytes()))
    }

    /// The last `ExecStart=` of a unit and its drop-ins, the file that has it, and the variables that
    /// they set.
    fn exec_start(
        &self,
        host: &Host,
        unit: &str,
        problems: &Problems,
    ) -> Option<(Bytes, String, BTreeMap<String, String>)> {
        let unit_file = self.called(unit).next();
        // Of the drop-ins of one name the first directory's counts; all are read in order of name.
        let mut drop_ins: BTreeMap<Vec<u8>, Bytes> = BTreeMap::new();
        for directory in self.called(&format!("{unit}.d")) {
            let names = problems.unless_absent(host.list(&directory));
            for (name, _) in names.unwrap_or_default() {
                if name.ends_with(b".conf") {
                    let path = directory.join(&name);
                    drop_ins.entry(name).or_insert(path);
                }
            }
        }
        let mut found = None;
        let (mut variables, mut of_files) = (BTreeMap::new(), BTreeMap::new());
        for path in unit_file.into_iter().chain(drop_ins.into_values()) {
            let text = problems.text_of(host, &path).unwrap_or_default();
            for value in settings_of_service(&text, "ExecStart") {
                // Before the program may stand how it is started: `-/usr/bin/dockerd`.
                let value = value
                    .trim_start_matches(['-', '@', ':', '+', '!'])
                    .to_owned();
                // An empty one takes back what was said before.
                found = (!value.is_empty()).then(|| (path.clone(), value));
            }
            for value in settings_of_service(&text, "Environment") {
                variables.extend(split(&value).into_iter().filter_map(|word| {
                    let (name, value) = word.split_once('=')?;
                    Some((name.to_owned(), value.to_owned()))
                }));
            }
            for value in settings_of_service(&text, "EnvironmentFile") {
                // One that begins so need not be there.
                let file = Bytes::from(value.trim_start_matches('-'));
                if file.as_bytes().starts_with(b"/")
                    && let Some(text) = problems.text_of(host, &file)
                {
                    of_files.extend(assignments(&text));
                }
            }
        }
        // What files say counts more, wherever they are named.
        variables.extend(of_files);
        found.map(|(path, line)| (path, line, variables))
    }
}

/// Every value of a key that a unit's file has for the service.
fn settings_of_service(text: &str, key: &str) -> Vec<String> {
    let mut is_service = false;
    let text = text.replace("\\\n", " ");
    let values = text.lines().map(str::trim).filter_map(|line| {
        if line.starts_with('[') {
            is_service = line == "[Service]";
        }
        let value = line.strip_prefix(key)?.trim_start();
        let value = value.strip_prefix('=').filter(|_| is_service)?;
        Some(value.trim().to_owned())
    });
    values.collect()
}

/// The variables that a file of a shell, or of systemd, sets.
fn assignments(text: &str) -> BTreeMap<String, String> {
    let joined = text.replace("\\\n", " ");
    let set = joined.lines().filter_map(|line| {
        let line = line.trim();
        let line = line.strip_prefix("export ").unwrap_or(line);
        let (name, value) = line.split_once('=')?;
        let is_name = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        (!name.is_empty() && name.bytes().all(is_name))
            .then(|| (name.to_owned(), split(value).join(" ")))
    });
    set.collect()
}

/// The words of a line, as a shell parts them; where a quote is not closed, at spaces.
fn split(line: &str) -> Vec<String> {
    shlex::split(line).unwrap_or_else(|| line.split_whitespace().map(str::to_owned).collect())
}

/// A path of a daemon's as the host has it: a process can have a mount namespace of its own, as in
/// a node of kind, in a snap, in Docker in Docker. None where the host does not show the directory.
pub fn path_on_host(host: &Host, command: &Command, path: &Bytes) -> Option<Bytes> {
    if command.is_here {
        return Some(path.clone());
    }
    let there = Process::read(host, command.process?).ok()?.table;
    let here = namespace::mount_table(host).ok()?;
    translated(&there, &here, path)
}

/// A path of one mount table as another table has it: the same part of the same file system.
fn translated(there: &MountTable, here: &MountTable, path: &Bytes) -> Option<Bytes> {
    let mount = there.covering(path)?;
    let in_file_system = mount.root.join_path(&path.strip_prefix(&mount.point)?);
    let candidate = |of: &Mount| {
        if of.device.is_none() || of.device != mount.device {
            return None;
        }
        let rest = in_file_system.strip_prefix(&of.root)?;
        let path = of.point.join_path(&rest);
        // What is mounted over it shows something else.
        (here.covering(&path) == Some(of)).then_some(path)
    };
    here.0.iter().find_map(candidate)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::mount_table::parse_mountinfo;

    fn command(words: &[&str]) -> Command {
        Command {
            words: words.iter().map(|word| Bytes::from(*word)).collect(),
            process: None,
            is_here: true,
            source: Bytes::from("/x"),
        }
    }

    #[test]
    fn an_option_in_all_its_spellings() {
        let names = ["--data-root", "--graph", "-g"];
        for words in [
            &["dockerd", "--data-root", "/d"][..],
            &["dockerd", "--data-root=/d", "-H", "fd://"],
            &["docker", "daemon", "-g", "/d"],
            &["dockerd", "--graph", "/old", "--data-root=/d"],
        ] {
            assert_eq!(command(words).path(&names), Some(Bytes::from("/d")));
        }
        for words in [
            &["dockerd", "--data-root"][..],
            &["dockerd", "--data-rooted", "/d"],
            &["dockerd", "--data-root", "relative"],
        ] {
            assert_eq!(command(words).path(&names), None);
        }
    }

    #[test]
    fn the_last_command_of_a_unit_counts() {
        let text = "[Unit]\nExecStart=/no\n[Service]\nExecStart=\nExecStart = -/usr/bin/dockerd \\\n  -g /d\n";
        let values = settings_of_service(text, "ExecStart");
        assert_eq!(values, ["", "-/usr/bin/dockerd    -g /d"]);
    }

    #[test]
    fn variables_of_a_shell_and_of_systemd() {
        let text = "# no=1\nexport A=\"-g /d\"\nB='x y' # z\nC=1 \\\n  2\nno name=3\n";
        let values = assignments(text);
        assert_eq!(values.get("A").map(String::as_str), Some("-g /d"));
        assert_eq!(values.get("B").map(String::as_str), Some("x y"));
        assert_eq!(values.len(), 3);
    }

    #[test]
    fn a_path_of_another_namespace_is_found_by_its_file_system() {
        let here = parse_mountinfo(
            b"1 0 8:1 / / rw - ext4 /dev/sda1 rw\n2 1 8:2 / /data rw - ext4 /dev/sdb rw\n",
        );
        let there = parse_mountinfo(
            b"9 8 0:50 / / rw - overlay overlay rw\n10 9 8:1 /var/lib/docker/volumes/abc/_data /var rw - ext4 /dev/sda1 rw\n",
        );
        let at = |path: &str| translated(&there, &here, &Bytes::from(path));
        assert_eq!(
            at("/var/lib/containerd"),
            Some(Bytes::from(
                "/var/lib/docker/volumes/abc/_data/lib/containerd"
            ))
        );
        assert_eq!(at("/opt/containerd"), None);
        let covered = parse_mountinfo(
            b"1 0 8:1 / / rw - ext4 /dev/sda1 rw\n3 1 8:3 / /var rw - ext4 /dev/sdc rw\n",
        );
        let path = Bytes::from("/var/lib/containerd");
        assert_eq!(translated(&there, &covered, &path), None);
    }
}
