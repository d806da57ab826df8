//! What can go wrong, worded in one place: what happened, where, and what to do next.

use rustix::io::Errno;

use crate::bytes::{Bytes, escape, escape_text, shell_quote};

/// What may have gone wrong, by default as a person is told.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Every error a person can be shown.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// A system call failed on a path of the host.
    #[error("{path}: {}", errno_words(*.errno))]
    Io {
        /// The path, on the host.
        path: Bytes,
        /// What the system call said.
        errno: Errno,
    },

    /// A file of an engine or of the kernel does not say what it should.
    #[error("{path}: {}", escape_text(.what))]
    Damaged {
        /// The file, on the host.
        path: Bytes,
        /// What is wrong with it.
        what: String,
    },

    /// Nothing has this name. The words are Docker's.
    #[error("No such {}: {}", kind_of_name(.name), escape(.name.as_bytes()))]
    NoSuchTarget {
        /// As it was typed.
        name: String,
        /// What is nearly called so, each as it must be typed.
        similar: Vec<String>,
        /// That there is no engine that could have it, and where one was looked for.
        no_engine: Option<String>,
    },

    /// An engine's data directory is closed to who asks: what is in it is unknown, and not nothing.
    #[error("whether there is {} is unknown: {place} may not be read", escape(.name.as_bytes()))]
    Closed {
        /// What was asked for.
        name: String,
        /// The data directory.
        place: Bytes,
    },

    /// A name or a prefix of an id fits several.
    #[error("{} is ambiguous", escape(.name.as_bytes()))]
    Ambiguous {
        /// As it was typed.
        name: String,
        /// What it fits, each as it must be typed to be told from the others.
        candidates: Vec<String>,
    },

    /// The unions of the host were asked for, and there are none.
    #[error("there is no container and no mounted union on this host")]
    NothingMounted,

    /// No engine was found. What was asked for is unknown rather than nothing.
    #[error("no engine was found: looked at {}, and where other installations have them (`layerctl info` lists all)", listed(.places))]
    NoEngine {
        /// The data directories that were looked at.
        places: Vec<Bytes>,
        /// The options that name one, without the dashes.
        options: Vec<&'static str>,
        /// Such an option and its directory, where that was named as the root of a host.
        mistaken: Option<(&'static str, Bytes)>,
    },

    /// Nothing is in the namespace that was asked for.
    #[error("nothing is in the namespace {name}")]
    NoNamespace {
        /// As it was typed.
        name: Bytes,
        /// The namespaces that there are.
        there: Vec<String>,
    },

    /// A path belongs to no union.
    #[error("{0}: no union is mounted there, and it is no layer and no branch")]
    NothingAt(Bytes),

    /// The command line asks for something that cannot be meant.
    #[error("{}", escape_text(.0))]
    Usage(String),

    /// The host forbids or lacks what was asked for.
    #[error("{}", escape_text(.what))]
    Refused {
        /// What cannot be done, and why.
        what: String,
        /// What to do instead; empty where there is nothing.
        hint: String,
    },

    /// An image has nothing for a platform, or nothing that is here.
    #[error("{}", escape_text(.what))]
    NoPlatform {
        /// Which image lacks what.
        what: String,
        /// What it is for, each as it must be typed.
        there: Vec<String>,
    },

    /// Removing a mark would bring back more than was asked for.
    #[error("removing the mark brings back more than {path}")]
    MoreReappears {
        /// What was asked for.
        path: Bytes,
        /// What would come with it.
        reappears: Vec<Bytes>,
    },

    /// What a mount was made to forget comes back with what was asked for.
    #[error("more than {path} comes back when the kernel looks again")]
    MoreReappearsLater {
        /// What was asked for.
        path: Bytes,
        /// What would come with it.
        reappears: Vec<Bytes>,
    },

    /// The kernel tells only root of an overlay's marks, and denies to others that there are any.
    #[error(
        "{union}: only root is told which directories are opaque or renamed (trusted.overlay.*), so that what is deleted may be shown here"
    )]
    MarksUnreadable {
        /// What the union is called.
        union: Bytes,
    },

    /// A directory had another path, or none, once it was read.
    #[error(
        "{0} was removed, renamed or covered while it was read: what is shown may be a part of what it had"
    )]
    Moved(Bytes),

    /// An engine removes what was read; the name is the engine's.
    #[error("{0} is being removed, or was: what is shown may be a part of what it had")]
    Removed(Bytes),

    /// It is of a union, which the words of the error itself do not name.
    #[error("{union}: {error}")]
    OfUnion {
        /// The union, as a TARGET.
        union: Bytes,
        /// What happened.
        error: Box<Error>,
    },

    /// A branch could not be opened, so that no answer about its union is sure.
    #[error("branch {index} ({path}) could not be read: {}", escape_text(.why))]
    BranchLost {
        /// Which branch of the stack it is.
        index: usize,
        /// The branch's directory, on the host.
        path: Bytes,
        /// What was said when it was opened.
        why: String,
        /// It is closed to who asks.
        is_denied: bool,
    },
}

impl Error {
    /// What a system call said of a path of the host.
    pub fn io(path: impl Into<Bytes>, errno: Errno) -> Error {
        Error::Io {
            path: path.into(),
            errno,
        }
    }

    /// What is wrong with a file of an engine or of the kernel.
    pub fn damaged(path: impl Into<Bytes>, what: impl Into<String>) -> Error {
        Error::Damaged {
            path: path.into(),
            what: what.into(),
        }
    }

    /// That nothing has a name; what is like it is not known.
    pub fn no_such_target(name: impl Into<String>) -> Error {
        Error::NoSuchTarget {
            name: name.into(),
            similar: Vec::new(),
            no_engine: None,
        }
    }

    /// The same, of a union: whoever reads of several has to know of which.
    pub fn of(self, union: &Bytes) -> Error {
        match self {
            Error::OfUnion { .. } | Error::MarksUnreadable { .. } => self,
            error => Error::OfUnion {
                union: union.clone(),
                error: Box::new(error),
            },
        }
    }

    /// What happened, and of which union, where that is beside it.
    pub fn parts(&self) -> (&Error, Option<&Bytes>) {
        match self {
            Error::OfUnion { union, error } => (error, Some(union)),
            error => (error, None),
        }
    }

    /// What the person can do next, where there is something.
    pub fn hint(&self) -> Option<String> {
        match self {
            Error::OfUnion { error, .. } => error.hint(),
            Error::Io { errno, .. } if *errno == Errno::ACCESS || *errno == Errno::PERM => {
                Some(match (rustix::process::geteuid().is_root(), missing_rights()) {
                    (false, _) => "layers belong to root: run layerctl as root".into(),
                    (true, Some(missing)) => format!(
                        "this root lacks {missing}: run layerctl as root on the host, or in a container that \
                         is given them (--privileged, or --cap-add)"
                    ),
                    (true, None) => "a mount of another user's is not even root's: run layerctl as that user \
                                     (podman unshare layerctl ...), or stop the container first"
                        .into(),
                })
            }
            Error::Io { errno, .. } if *errno == Errno::ROFS => Some(
                "it is mounted read-only: remount it (`mount -o remount,rw ...`) if it may be written to, \
                 or copy the file out (`layerctl cp`, `layerctl restore --to DIR`)"
                    .into(),
            ),
            Error::MarksUnreadable { .. } => Some("run layerctl as root".into()),
            Error::Io { errno, .. } if *errno == Errno::OVERFLOW => Some(
                "the container has users of its own, of whom this user is none: run layerctl as the \
                 user whose container it is, or stop the container first"
                    .into(),
            ),
            Error::NoSuchTarget { similar, .. } if !similar.is_empty() => {
                let similar: Vec<_> = similar.iter().map(|of| escape(of.as_bytes())).collect();
                Some(format!("did you mean {}?", similar.join(", or ")))
            }
            Error::NoSuchTarget {
                no_engine: Some(words),
                ..
            } => Some(words.clone()),
            Error::NoSuchTarget { .. } | Error::NothingAt(_) => Some(
                "a TARGET is a container, an image, a mount point, a process, a layer, or a stack spelled \
                 br:DIR=PERM:DIR... or lowerdir=DIR:DIR...,upperdir=DIR; \
                 `layerctl containers` and `layerctl branches` list what is here"
                    .into(),
            ),
            Error::Ambiguous { candidates, .. } => Some(a_line_each("it could be:", candidates)),
            Error::NoPlatform { there, .. } if there.is_empty() => {
                Some("nothing says what it is for".into())
            }
            Error::NoPlatform { there, .. } => Some(a_line_each("it is for:", there)),
            Error::NoEngine {
                mistaken: Some((option, path)),
                ..
            } => Some(format!(
                "that is an engine's data directory, not a host's root: use --{option} {} without --root",
                shell_quote(path)
            )),
            Error::NoEngine { options, .. } => {
                let options = options.iter().map(|option| format!("--{option} DIR"));
                let options: Vec<String> = options.collect();
                Some(format!("name its data directory with {}", options.join(", ")))
            }
            Error::NoNamespace { there, .. } => {
                let there: Vec<_> = there.iter().map(|of| escape(of.as_bytes())).collect();
                Some(if there.is_empty() {
                    "there is no namespace with anything in it".to_owned()
                } else {
                    format!("there are {}", there.join(", "))
                })
            }
            Error::NothingMounted => Some(
                "name a TARGET (a container, an image, br:DIR=PERM:DIR...), or a copied host with --root".into(),
            ),
            Error::MoreReappears { reappears, .. } => {
                Some(what_comes_too(reappears, "use --strategy copy"))
            }
            Error::MoreReappearsLater { reappears, .. } => {
                Some(what_comes_too(reappears, "unmount the union first"))
            }
            Error::Refused { hint, .. } if !hint.is_empty() => Some(escape_text(hint).into_owned()),
            _ => None,
        }
    }

    /// What happened, without the path.
    pub fn reason(&self) -> String {
        match self {
            Error::Io { errno, .. } => errno_words(*errno),
            Error::Damaged { what, .. } => escape_text(what).into_owned(),
            Error::OfUnion { error, .. } => error.reason(),
            other => other.to_string(),
        }
    }

    /// What a system call would say: its own number, where it was one that failed.
    pub fn errno(&self) -> Errno {
        match self.parts().0 {
            Error::Io { errno, .. } => *errno,
            _ => Errno::IO,
        }
    }

    /// Whether it is closed to who asks.
    pub fn is_denied(&self) -> bool {
        match self.parts().0 {
            Error::Io { errno, .. } => *errno == Errno::ACCESS || *errno == Errno::PERM,
            Error::BranchLost { is_denied, .. } => *is_denied,
            _ => false,
        }
    }

    /// Whether the error only says that nothing has this name.
    pub fn is_absent(&self) -> bool {
        matches!(self.parts().0, Error::Io { errno, .. } if *errno == Errno::NOENT)
    }

    /// Whether the error says that a name is longer than it can be.
    pub fn is_too_long(&self) -> bool {
        matches!(self.parts().0, Error::Io { errno, .. } if *errno == Errno::NAMETOOLONG)
    }

    /// Whether the error only says that something is not there (any more).
    pub fn is_not_found(&self) -> bool {
        matches!(self.parts().0, Error::Io { errno, .. } if *errno == Errno::NOENT || *errno == Errno::NOTDIR)
    }
}

/// The rights over files that root has on a host and this process has not, as capabilities(7) calls
/// them; none where it has them all.
fn missing_rights() -> Option<String> {
    use rustix::thread::CapabilitySet as Set;
    let wanted = [
        (Set::CHOWN, "CAP_CHOWN"),
        (Set::DAC_OVERRIDE, "CAP_DAC_OVERRIDE"),
        (Set::FOWNER, "CAP_FOWNER"),
        (Set::FSETID, "CAP_FSETID"),
        (Set::MKNOD, "CAP_MKNOD"),
        (Set::SETFCAP, "CAP_SETFCAP"),
        (Set::SYS_ADMIN, "CAP_SYS_ADMIN"),
    ];
    let own = rustix::thread::capabilities(None).ok()?.effective;
    let missing = wanted.iter().filter(|(right, _)| !own.contains(*right));
    let missing: Vec<&str> = missing.map(|(_, name)| *name).collect();
    (!missing.is_empty()).then(|| missing.join(", "))
}

/// What can be typed, below words that say what it is.
fn a_line_each(words: &str, typed: &[String]) -> String {
    let mut lines = words.to_owned();
    for line in typed {
        lines.push_str("\n  ");
        lines.push_str(&escape(line.as_bytes()));
    }
    lines
}

/// What a name would be the name of. A container's has no repository and no tag.
fn kind_of_name(name: &str) -> &'static str {
    let is_reference = name.contains(['/', '@'])
        || name
            .split_once(':')
            .is_some_and(|(_, tag)| !tag.is_empty() && !tag.starts_with('/'));
    if is_reference { "image" } else { "container" }
}

/// Paths in one line.
fn listed(paths: &[Bytes]) -> String {
    let mut words: Vec<String> = Vec::new();
    for path in paths {
        let path = path.to_string();
        if !words.contains(&path) {
            words.push(path);
        }
    }
    words.join(", ")
}

/// The system's own number in an error of the standard library; `EIO` where it has none.
pub fn errno_of(error: &std::io::Error) -> Errno {
    Errno::from_io_error(error).unwrap_or(Errno::IO)
}

/// What the system says of an errno.
pub fn errno_words(errno: Errno) -> String {
    let words = std::io::Error::from_raw_os_error(errno.raw_os_error()).to_string();
    match words.find(" (os error") {
        Some(end) => words[..end].to_owned(),
        None => words,
    }
}

/// The errno's symbolic name, for machine formats.
pub fn errno_name(errno: Errno) -> &'static str {
    match errno {
        Errno::NOENT => "ENOENT",
        Errno::NOTDIR => "ENOTDIR",
        Errno::IO => "EIO",
        Errno::LOOP => "ELOOP",
        Errno::PERM => "EPERM",
        Errno::ACCESS => "EACCES",
        Errno::NAMETOOLONG => "ENAMETOOLONG",
        Errno::STALE => "ESTALE",
        Errno::INVAL => "EINVAL",
        Errno::RANGE => "ERANGE",
        Errno::ROFS => "EROFS",
        _ => "EIO",
    }
}

/// The first of what would come back with what was asked for, and what can be done instead.
fn what_comes_too(reappears: &[Bytes], instead: &str) -> String {
    const SHOWN: usize = 10;
    let mut hint = String::from("with it would come:");
    for path in reappears.iter().take(SHOWN) {
        hint.push_str(&format!("\n  {path}"));
    }
    if reappears.len() > SHOWN {
        hint.push_str(&format!("\n  and {} more", reappears.len() - SHOWN));
    }
    hint.push_str(&format!("\n  add --yes if that is wanted, or {instead}"));
    hint
}
