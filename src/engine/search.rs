//! Looking for engines: what all of them look at, once, and what is left of it.

use std::cell::{OnceCell, RefCell};
use std::fmt;

use super::daemons::{self, Command, Units};
use super::problems::Problems;
use super::users::{self, User};
use crate::bytes::Bytes;
use crate::host::Host;

/// Why a data directory was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Why {
    /// This option names it.
    Option(&'static str),
    /// The command of a daemon names it: one that runs, or that would be started.
    Command { source: Bytes },
    /// A configuration file names it.
    File(Bytes),
    /// It is where the engine keeps its data if nothing else is said.
    Default,
    /// It is where such an installation has it: `snap`, `Synology`, `a user's own`.
    Known(&'static str),
    /// Others take images from it.
    ImageStore,
    /// It is in a volume of another engine, as the nodes of kind and k3d have it.
    Volume,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Why::Option(name) => write!(f, "--{name}"),
            Why::Command { source } => write!(f, "a command: {source}"),
            Why::File(path) => write!(f, "{path}"),
            Why::Default => f.write_str("the default"),
            Why::Known(whose) => write!(f, "the place of {whose}"),
            Why::ImageStore => f.write_str("others take images from it"),
            Why::Volume => f.write_str("a volume"),
        }
    }
}

/// A data directory that was looked at, whether or not it is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    pub engine: &'static str,
    pub path: Bytes,
    pub why: Why,
    /// Whether there is anything of the engine.
    pub is_found: bool,
}

/// What looking for engines shares between them, and leaves beside what it finds.
#[derive(Debug)]
pub struct Search {
    /// The programs that keep data of some engine.
    daemons: Vec<&'static str>,
    /// What could not be read of the files that say where to look. It concerns every answer.
    pub problems: Problems,
    places: RefCell<Vec<Place>>,
    users: OnceCell<Vec<User>>,
    running: OnceCell<Vec<Command>>,
    units: OnceCell<Units>,
}

impl Search {
    /// A search that knows these programs.
    pub fn new(daemons: Vec<&'static str>) -> Search {
        Search {
            daemons,
            problems: Problems::default(),
            places: RefCell::default(),
            users: OnceCell::new(),
            running: OnceCell::new(),
            units: OnceCell::new(),
        }
    }

    /// Remembers a data directory that was looked at.
    pub fn looked_at(&self, engine: &'static str, path: &Bytes, why: Why, is_found: bool) {
        let place = Place {
            engine,
            path: path.clone(),
            why,
            is_found,
        };
        let mut places = self.places.borrow_mut();
        if !places.contains(&place) {
            places.push(place);
        }
    }

    /// The data directories that were looked at, in order.
    pub fn into_places(self) -> Vec<Place> {
        self.places.into_inner()
    }

    /// The users of the host.
    pub fn users(&self, host: &Host) -> &[User] {
        self.users.get_or_init(|| users::of(host, &self.problems))
    }

    /// The daemons that run and are some of these programs.
    pub fn running<'s>(
        &'s self,
        host: &Host,
        programs: &'static [&'static str],
    ) -> impl Iterator<Item = &'s Command> {
        let all = self
            .running
            .get_or_init(|| daemons::running(host, &self.daemons));
        all.iter().filter(move |command| {
            programs
                .iter()
                .any(|program| program.as_bytes() == command.program())
        })
    }

    /// How systemd would start a service, and what the variables say that its scripts read.
    pub fn configured(&self, host: &Host, unit: &str, environments: &[&str]) -> Vec<Command> {
        let units = self.units.get_or_init(|| Units::of(host, &self.problems));
        units.commands(host, unit, environments, &self.problems)
    }
}
