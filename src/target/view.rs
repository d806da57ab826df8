//! `TARGET@N`: what a union would be without the branches above branch N.

use super::{Base, Target, find_whole, is_spelled, typed_path};
use crate::branch;
use crate::bytes::Bytes;
use crate::engine::{MountState, Survey, Union, View};
use crate::error::{Error, Result};
use crate::union::Follow;

/// Takes `TARGET@N` apart. The hash of `name@sha256:HASH` is no number of a branch.
pub(super) fn split(name: &[u8]) -> Option<(&[u8], usize)> {
    let at = name.iter().rposition(|&byte| byte == b'@')?;
    let (of, number) = (&name[..at], &name[at + 1..]);
    let is_number = !number.is_empty() && number.iter().all(u8::is_ascii_digit);
    let number = std::str::from_utf8(number).ok().filter(|_| is_number)?;
    (!of.is_empty()).then_some((of, number.parse().ok()?))
}

/// Finds what a name means that looks like a view's.
///
/// # Errors
/// Something else has the very name, too; there is no such union, or it has no such branch.
pub(super) fn find(
    survey: &mut Survey<'_>,
    name: &[u8],
    (of, from): (&[u8], usize),
    base: &Base,
) -> Result<Target> {
    // A name that is the whole of another is looked for first: directories may be called so.
    let whole = exactly(survey, name, base);
    let target = match (find_whole(survey, of, base), whole) {
        (Ok(_), Some(_)) => {
            return Err(Error::Ambiguous {
                name: String::from_utf8_lossy(name).into_owned(),
                candidates: both(name, of, from),
            });
        }
        (_, Some(whole)) => return whole,
        (target, None) => target?,
    };
    let label = survey.label(&target.union);
    Ok(Target {
        union: below(target.union, from, &label)?,
        is_layer: target.is_layer || from > 0,
        ..target
    })
}

/// What really has a name that looks like a view's; none where nothing has.
fn exactly(survey: &mut Survey<'_>, name: &[u8], base: &Base) -> Option<Result<Target>> {
    let is_path = name.starts_with(b"/") || name.starts_with(b"./") || name.starts_with(b"../");
    if branch::is_spelled(name) && last_has_permission(name) {
        return None;
    }
    let target = if is_path && !is_spelled(name) {
        let path = typed_path(survey, name, base);
        let found = survey.host.lookup(path.as_bytes(), Follow::NotLast).ok()?;
        found.entry.kind()?;
        find_whole(survey, name, base)
    } else {
        find_whole(survey, name, base)
    };
    match target {
        Ok(_) | Err(Error::Ambiguous { .. }) => Some(target),
        Err(_) => None,
    }
}

/// Whether the last branch of a spelled stack has its permission behind it, so that no directory's
/// name ends there.
fn last_has_permission(spelled: &[u8]) -> bool {
    let last = spelled.rsplit(|&byte| byte == b':').next();
    let last = last.unwrap_or_default();
    let at = last.iter().rposition(|&byte| byte == b'=');
    at.is_some_and(|at| !last[at..].contains(&b'/'))
}

/// How each of two things must be typed that have one name.
fn both(name: &[u8], of: &[u8], from: usize) -> Vec<String> {
    let name = String::from_utf8_lossy(name);
    let of = String::from_utf8_lossy(of);
    vec![
        format!("{name}@0  (what is called so)"),
        format!("{of}@0{from}  (the view of {of} from branch {from} down)"),
    ]
}

/// A union without the branches above one.
///
/// # Errors
/// It has no such branch.
fn below(mut union: Union, from: usize, label: &Bytes) -> Result<Union> {
    if from == 0 {
        return Ok(union);
    }
    let count = count(&union);
    let mut left_out = from;
    // What a copy was made from has the numbers after the copy's own.
    while left_out >= union.branches.len() {
        match union.base.take() {
            Some(base) => {
                left_out -= union.branches.len();
                union = *base;
            }
            None => return Err(no_branch(label, from, count)),
        }
    }
    union.branches.drain(..left_out);
    // The mounts stay known: they tell how the branches are reached.
    union.state = MountState::NotMounted;
    if left_out > 0 {
        union.base = None;
    }
    union.view = Some(View {
        label: Bytes([label.as_bytes(), format!("@{from}").as_bytes()].concat()),
        whole: label.clone(),
        from,
    });
    Ok(union)
}

/// How many branches a union has, those among them that it began as a copy of.
fn count(union: &Union) -> usize {
    let base = union.base.as_deref();
    union.branches.len() + base.map_or(0, count)
}

fn no_branch(label: &Bytes, from: usize, count: usize) -> Error {
    let has = match count {
        0 => "no branches".to_owned(),
        1 => "one branch, 0".to_owned(),
        more => format!("the branches 0 to {}", more - 1),
    };
    Error::Refused {
        what: format!("{label} has no branch {from}: it has {has}"),
        hint: "`layerctl branches` lists them".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_after_an_at_is_a_branch_s() {
        for (name, taken) in [
            ("web@2", Some(("web", 2))),
            ("br:/a:/b=ro@1", Some(("br:/a:/b=ro", 1))),
            ("pid:7@0", Some(("pid:7", 0))),
            ("name@sha256:12@3", Some(("name@sha256:12", 3))),
            ("name@sha256:12", None),
            ("web@", None),
            ("web@x", None),
            ("web@+1", None),
            ("@1", None),
            ("web@99999999999999999999999", None),
            ("web", None),
        ] {
            let taken = taken.map(|(of, from): (&str, usize)| (of.as_bytes(), from));
            assert_eq!(split(name.as_bytes()), taken, "{name}");
        }
    }
}
