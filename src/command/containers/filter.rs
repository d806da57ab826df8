//! `containers --filter KEY=VALUE`: those that docker's own filters leave.

use regex::Regex;

use super::Row;
use crate::bytes::escape;
use crate::command::Context;
use crate::engine::OwnerKind;
use crate::engine::inventory::familiar;
use crate::error::{Error, Result};

/// The states that a container can be in, as rows have them.
const STATES: [&str; 8] = [
    "created",
    "running",
    "paused",
    "restarting",
    "removing",
    "exited",
    "dead",
    "unknown",
];

/// What checks can say.
const HEALTH: [&str; 4] = ["starting", "healthy", "unhealthy", "none"];

/// One condition. Of several with one key one has to hold, and of each key one.
#[derive(Debug, Clone)]
pub enum Filter {
    /// A regular expression, as docker takes it: a part of the name is enough.
    Name(Regex),
    Id(Regex),
    Status(String),
    /// The exit code of what was started and runs no more.
    Exited(i64),
    /// What its own checks say; `none` where it has none.
    Health(String),
    /// The image that it was made of, by any of its names.
    Ancestor(String),
}

/// What was typed behind `--filter`.
///
/// # Errors
/// Says what can be typed.
pub fn filter(typed: &str) -> Result<Filter, String> {
    let keys = "name=, id=, status=, exited=, health= and ancestor= are known";
    let (key, value) = typed.split_once('=').ok_or(keys)?;
    let expression = || Regex::new(value).map_err(|error| error.to_string());
    Ok(match key {
        "name" => Filter::Name(expression()?),
        "id" => Filter::Id(expression()?),
        "status" if STATES.contains(&value) => Filter::Status(value.to_owned()),
        "status" => return Err(format!("a status is one of {}", STATES.join(", "))),
        "exited" => Filter::Exited(value.parse().map_err(|_| "an exit code is a number")?),
        "health" if HEALTH.contains(&value) => Filter::Health(value.to_owned()),
        "health" => return Err(format!("health is one of {}", HEALTH.join(", "))),
        "ancestor" => Filter::Ancestor(value.to_owned()),
        _ => return Err(keys.to_owned()),
    })
}

/// Leaves the rows that the conditions are true of.
///
/// # Errors
/// An image that was named is not known, or is ambiguous.
pub fn keep(context: &mut Context<'_>, filters: &[Filter], rows: &mut Vec<Row>) -> Result<()> {
    let mut images = Vec::new();
    for filter in filters {
        if let Filter::Ancestor(name) = filter {
            images.push((name, image(context, name, rows)?));
        }
    }
    let holds = |filter: &Filter, row: &Row| match filter {
        // Docker's names begin with a slash, which people write or leave away.
        Filter::Name(of) => of.is_match(&row.name) || of.is_match(&format!("/{}", row.name)),
        Filter::Id(of) => of.is_match(&row.id),
        Filter::Status(of) => row.state == of,
        Filter::Health(of) => row.health.unwrap_or("none") == of,
        Filter::Exited(of) => {
            let has_ended = matches!(row.state, "exited" | "dead") && row.started.is_some();
            has_ended && row.exit_code == Some(*of)
        }
        Filter::Ancestor(of) => {
            let mut ids = images.iter().filter(|(name, _)| *name == of);
            is_called(row, of) || ids.any(|(_, id)| id.as_ref() == Some(&row.image_id))
        }
    };
    rows.retain(|row| {
        filters.iter().all(|filter| {
            let mut same = filters
                .iter()
                .filter(|of| std::mem::discriminant(*of) == std::mem::discriminant(filter));
            same.any(|of| holds(of, row))
        })
    });
    Ok(())
}

/// Whether a container says itself that it was made of an image of this name.
fn is_called(row: &Row, name: &str) -> bool {
    let whole = |name: &str| {
        let name = familiar(name);
        let (_, last) = name.rsplit_once('/').unwrap_or(("", name));
        if last.contains([':', '@']) {
            name.to_owned()
        } else {
            format!("{name}:latest")
        }
    };
    whole(&row.image) == whole(name)
}

/// The id of the image that has a name; none where it is gone, and only containers still have the name.
fn image(context: &mut Context<'_>, name: &str, rows: &[Row]) -> Result<Option<String>> {
    let found = context.find(name.as_bytes()).and_then(|target| {
        let owner = target.union.owner.filter(|of| of.kind == OwnerKind::Image);
        owner.map(|of| of.id).ok_or_else(|| {
            Error::Usage(format!("ancestor={}: is no image", escape(name.as_bytes())))
        })
    });
    match found {
        Ok(id) => Ok(Some(id)),
        // It is gone, or a container has its name.
        Err(error)
            if !matches!(error, Error::Ambiguous { .. })
                && rows.iter().any(|row| is_called(row, name)) =>
        {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}
