//! Where engines keep their data, as far as a person or the environment says so.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use crate::bytes::Bytes;
use crate::engine::users::User;
use crate::host::Host;

/// An option of the command line that an engine brings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EngineOption {
    /// Without the dashes: `docker-root`.
    pub name: &'static str,
    /// `-n` of `--namespace`.
    pub short: Option<char>,
    /// Its line in `--help`.
    pub help: &'static str,
    pub value: Value,
    /// The option without which this one must not be given.
    pub requires: Option<&'static str>,
}

/// A variable of the environment that an engine heeds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Variable {
    pub name: &'static str,
    pub value: Value,
}

/// What the value of an option or of a variable is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Value {
    /// A path of the host. A relative one starts where all relative paths do. The environment's
    /// paths are this machine's, and mean nothing on a copy of a host.
    Path,
    /// An engine's own division of names. Given as an option, it leaves out what other
    /// namespaces have, and what has none.
    Namespace,
}

impl Value {
    /// What stands for it in `--help`.
    pub fn placeholder(self) -> &'static str {
        match self {
            Value::Path => "DIR",
            Value::Namespace => "NAMESPACE",
        }
    }
}

/// Where engines keep their data, as far as the person says so.
#[derive(Debug, Clone, Default)]
pub struct Roots {
    options: BTreeMap<&'static str, Bytes>,
    variables: BTreeMap<&'static str, Bytes>,
    /// The one namespace that is asked for: what has another one, or none, is left out.
    only_namespace: Option<Bytes>,
    /// Whose stores are looked for, unless it is root, who may see every user's.
    pub caller: Option<u32>,
}

impl Roots {
    /// What is known without any option. On a copy of a host it does not matter who asks.
    pub fn of_caller(host: &Host) -> Roots {
        let user = rustix::process::geteuid();
        Roots {
            caller: (host.is_live() && !user.is_root()).then(|| user.as_raw()),
            ..Roots::default()
        }
    }

    /// Takes what was typed for an option. A relative path starts at `base`.
    pub fn take_option(&mut self, option: &'static EngineOption, typed: &OsStr, base: &Bytes) {
        let value = option.value.of(typed, base);
        if option.value == Value::Namespace {
            self.only_namespace = Some(value.clone());
        }
        self.options.insert(option.name, value);
    }

    /// Takes what a variable of the environment says, if that means anything on this host.
    pub fn take_variable(
        &mut self,
        variable: &'static Variable,
        text: &OsStr,
        base: &Bytes,
        host: &Host,
    ) {
        let has_meaning = match variable.value {
            Value::Path => host.is_live(),
            Value::Namespace => !text.is_empty() && text.to_str().is_some(),
        };
        if has_meaning {
            let value = variable.value.of(text, base);
            self.variables.insert(variable.name, value);
        }
    }

    /// The users whose stores are looked for beside the machine's own, which are root's.
    pub fn whose<'u>(&self, users: &'u [User]) -> impl Iterator<Item = &'u User> + use<'u> {
        let caller = self.caller;
        let is_asked_for = move |id| id != 0 && caller.is_none_or(|caller| caller == id);
        users.iter().filter(move |user| is_asked_for(user.id))
    }

    /// Whether anything says where to look, or for what.
    pub fn is_limited(&self) -> bool {
        !self.options.is_empty() || !self.variables.is_empty()
    }

    /// All that was given for options, by their names; paths are absolute.
    pub fn options(&self) -> impl Iterator<Item = (&'static str, &Bytes)> {
        self.options.iter().map(|(name, value)| (*name, value))
    }

    /// What the variables of the environment say that mean something.
    pub fn variables(&self) -> impl Iterator<Item = (&'static str, &Bytes)> {
        self.variables.iter().map(|(name, value)| (*name, value))
    }

    /// What was given for an option.
    pub fn option(&self, name: &str) -> Option<&Bytes> {
        self.options.get(name)
    }

    /// What a variable of the environment says.
    pub fn variable(&self, name: &str) -> Option<&Bytes> {
        self.variables.get(name)
    }

    /// The only namespace that is asked for.
    pub fn only_namespace(&self) -> Option<&Bytes> {
        self.only_namespace.as_ref()
    }

    /// Whether a thing of this namespace is among what is asked for.
    pub fn is_asked_for(&self, namespace: Option<&String>) -> bool {
        let only = self.only_namespace.as_ref();
        only.is_none_or(|only| namespace.map(|name| name.as_bytes()) == Some(only.as_bytes()))
    }
}

impl Value {
    fn of(self, text: &OsStr, base: &Bytes) -> Bytes {
        match self {
            // An absolute path lies inside the root that was given.
            Value::Path if !text.as_bytes().starts_with(b"/") => base.join(text.as_bytes()),
            Value::Path | Value::Namespace => Bytes::from(text.as_bytes()),
        }
    }
}
