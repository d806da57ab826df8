//! Users and groups as a container sees them. A store can keep them as others: that of a user, of a
//! daemon that remaps them (`userns-remap`), of a container with users of its own.

use std::sync::Arc;

use crate::bytes::Bytes;
use crate::dir::Stat;
use crate::engine::{Engine, Survey, Union};
use crate::error::Result;
use crate::host::Host;
use crate::union::{IdMap, IdRange, Stack};

/// How many ids Docker asks for one who remaps them, if nothing else is said.
const REMAPPED: u32 = 65_536;

/// Lets a stack show users and groups as those inside of its union know them. Those that are none
/// inside are nobody's there, as the kernel shows them.
///
/// # Errors
/// Who has which ids on the host cannot be read.
pub fn show_inside(survey: &Survey<'_>, union: &Union, stack: &mut Stack) -> Result<()> {
    let of_store = match engine_of(survey, union) {
        Some(engine) => of_store(survey.host, engine)?,
        None => None,
    };
    let of_container = union.ids.as_deref().map(inverse);
    let inside = match (of_store, of_container) {
        (Some(store), Some(container)) => through(&store, &container),
        (Some(map), None) | (None, Some(map)) => map,
        (None, None) => return Ok(()),
    };
    let mut stack = Some(stack);
    while let Some(of) = stack {
        for branch in &mut of.branches {
            // What attributes say of an owner is said as seen from inside.
            if branch.overrides.is_some() {
                continue;
            }
            branch.owners = Some(Arc::new(match &branch.owners {
                Some(shown) => through(shown, &inside),
                None => inside.clone(),
            }));
        }
        stack = of.base.as_deref_mut();
    }
    Ok(())
}

/// The engine in whose store a union's layers lie.
fn engine_of<'s>(survey: &'s Survey<'_>, union: &Union) -> Option<&'s dyn Engine> {
    let path = &union.branches.first()?.spec.path;
    let mut engines = survey.engines();
    engines.find(|engine| path.strip_prefix(engine.root()).is_some())
}

/// For whom a store keeps ids as others.
enum Mapping {
    /// A daemon that remaps them: the user and the group that root is.
    Daemon(u32, u32),
    /// Somebody's own engine: what the store's directory says of that one.
    User(Stat),
}

impl Mapping {
    /// None where ids are as they are.
    fn of(host: &Host, engine: &dyn Engine) -> Result<Option<Mapping>> {
        let root = engine.root();
        let name = String::from_utf8_lossy(root.file_name()).into_owned();
        let numbers = name.split_once('.');
        let numbers =
            numbers.and_then(|(user, group)| Some((user.parse().ok()?, group.parse().ok()?)));
        if let Some((user, group)) = numbers {
            return Ok(Some(Mapping::Daemon(user, group)));
        }
        let stat = host.stat(root)?.filter(|stat| stat.uid != 0);
        Ok(stat.map(Mapping::User))
    }
}

/// Whether a store keeps owners as others.
pub fn is_remapped(host: &Host, engine: &dyn Engine) -> bool {
    Mapping::of(host, engine).is_ok_and(|mapping| mapping.is_some())
}

/// What the ids of a store are inside; none where they are as they are.
fn of_store(host: &Host, engine: &dyn Engine) -> Result<Option<IdMap>> {
    match Mapping::of(host, engine)? {
        None => Ok(None),
        Some(Mapping::Daemon(user, group)) => {
            let range = |stored| vec![range(stored, 0, REMAPPED)];
            let (users, groups) = (range(user), range(group));
            Ok(Some(IdMap { users, groups }))
        }
        Some(Mapping::User(stat)) => of_user(host, &stat).map(Some),
    }
}

/// The ids of a user's namespace as `newuidmap` makes it: root is the user, and then those that the user was
/// given (subuid(5)).
fn of_user(host: &Host, stat: &Stat) -> Result<IdMap> {
    let users = text(host, "/etc/passwd")?;
    let name = users.lines().find_map(|line| {
        let mut fields = line.split(':');
        let (name, id) = (fields.next()?, fields.nth(1)?);
        (id.parse() == Ok(stat.uid)).then(|| name.to_owned())
    });
    let given = |file: &str| -> Result<Vec<(u32, u32)>> {
        let text = text(host, file)?;
        let ranges = text.lines().filter_map(|line| {
            let mut fields = line.trim().split(':');
            let (user, start, count) = (fields.next()?, fields.next()?, fields.next()?);
            let is_own = Some(user) == name.as_deref() || user.parse() == Ok(stat.uid);
            let numbers = (start.parse().ok()?, count.parse().ok()?);
            is_own.then_some(numbers)
        });
        Ok(ranges.collect())
    };
    let map = |own: u32, given: Vec<(u32, u32)>| {
        let mut ranges = vec![range(own, 0, 1)];
        let mut next: u32 = 1;
        for (start, count) in given {
            ranges.push(range(start, next, count));
            next = next.saturating_add(count);
        }
        ranges
    };
    Ok(IdMap {
        users: map(stat.uid, given("/etc/subuid")?),
        groups: map(stat.gid, given("/etc/subgid")?),
    })
}

fn text(host: &Host, path: &str) -> Result<String> {
    match host.read(&Bytes::from(path)) {
        Ok(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
        Err(error) if error.is_absent() => Ok(String::new()),
        Err(error) => Err(error),
    }
}

fn range(stored: u32, shown: u32, size: u32) -> IdRange {
    IdRange {
        stored,
        shown,
        size,
    }
}

fn inverse(map: &IdMap) -> IdMap {
    let inverse = |ranges: &[IdRange]| {
        let ranges = ranges.iter();
        ranges
            .map(|of| range(of.shown, of.stored, of.size))
            .collect()
    };
    IdMap {
        users: inverse(&map.users),
        groups: inverse(&map.groups),
    }
}

/// What two maps show one after the other.
fn through(first: &IdMap, second: &IdMap) -> IdMap {
    IdMap {
        users: ranges_through(&first.users, &second.users),
        groups: ranges_through(&first.groups, &second.groups),
    }
}

fn ranges_through(first: &[IdRange], second: &[IdRange]) -> Vec<IdRange> {
    let mut found = Vec::new();
    for a in first {
        for b in second {
            let begin = a.shown.max(b.stored);
            let ends = [
                a.shown.saturating_add(a.size),
                b.stored.saturating_add(b.size),
            ];
            let size = ends[0].min(ends[1]).saturating_sub(begin);
            if size > 0 {
                let stored = a.stored.saturating_add(begin - a.shown);
                let shown = b.shown.saturating_add(begin - b.stored);
                found.push(range(stored, shown, size));
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    /// user_namespaces(7): an id is that of the outer namespace's map at the same place.
    #[test]
    fn maps_are_taken_one_after_the_other() {
        let outer = [range(1000, 0, 1), range(100_000, 1, 65_536)];
        // Podman's keep-id: the user is 1000 inside, too.
        let inner = [
            range(1, 0, 1000),
            range(0, 1000, 1),
            range(1001, 1001, 64_536),
        ];
        let both = ranges_through(&outer, &inner);
        for (stored, inside) in [
            (1000, 1000),
            (100_000, 0),
            (100_999, 999),
            (101_000, 1001),
            (999, 65_534),
            (165_536, 65_534),
        ] {
            assert_eq!(IdRange::show(&both, stored), inside, "{stored}");
        }
        let back = IdMap {
            users: both.clone(),
            groups: both,
        };
        assert_eq!(IdRange::show(&inverse(&back).users, 1000), 1000);
    }
}
