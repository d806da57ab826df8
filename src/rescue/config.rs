//! An image's configuration for layers that it did not have: one more, other ones, or all in one.

use serde_json::{Map, Value, json};

use crate::engine::inventory::{HistoryEntry, Image};
use crate::engine::oci;
use crate::engine::stored::Settings;

/// The keys of an image's configuration that tell of itself rather than of layers.
const KEPT: [&str; 7] = [
    "architecture",
    "author",
    "config",
    "os",
    "os.features",
    "os.version",
    "variant",
];
/// The labels that an image of Docker up to 1.9 gets: its own id and those of its parents, which
/// nothing else keeps.
const OLD_ID: &str = "layerctl.docker.id";
const OLD_PARENTS: &str = "layerctl.docker.parents";

/// What becomes of the history.
pub enum Steps<'s> {
    /// As it was.
    Same,
    /// A step more.
    Added(&'s str),
    /// Nothing but this step.
    Only(&'s str),
}

/// A configuration with layers of its own. `base` is the configuration that it is made from, where
/// there is one, and `now` is RFC 3339.
pub fn made(
    base: Option<&[u8]>,
    settings: Option<Settings>,
    diff_ids: &[String],
    steps: &Steps<'_>,
    now: &str,
) -> Vec<u8> {
    let base: Map<String, Value> = base
        .and_then(|bytes| serde_json::from_slice(bytes).ok())
        .unwrap_or_default();
    let mut history = match base.get("history") {
        Some(Value::Array(history)) => history.clone(),
        _ => Vec::new(),
    };
    let step = |words: &str| json!({"created": now, "created_by": words});
    match steps {
        Steps::Same => {}
        Steps::Added(words) => history.push(step(words)),
        Steps::Only(words) => history = vec![step(words)],
    }
    let kept = base
        .into_iter()
        .filter(|(key, value)| KEPT.contains(&key.as_str()) && !value.is_null());
    let mut config: Map<String, Value> = kept.collect();
    let mut own = match config.remove("config") {
        Some(Value::Object(own)) => own,
        _ => Settings::new(),
    };
    own.extend(settings.unwrap_or_default());
    own.retain(|_, value| !value.is_null());
    config.insert("config".into(), own.into());
    let default = |config: &mut Map<String, Value>, key: &str, value: Value| {
        config.entry(key).or_insert(value);
    };
    default(&mut config, "architecture", oci::architecture().into());
    default(&mut config, "os", "linux".into());
    config.insert("created".into(), now.into());
    config.insert("history".into(), history.into());
    let rootfs = json!({"type": "layers", "diff_ids": diff_ids});
    config.insert("rootfs".into(), rootfs);
    Value::from(config).to_string().into_bytes()
}

/// The configuration that an image of Docker up to 1.9 would have had.
pub fn of_old_image(image: &Image, mut settings: Settings) -> Vec<u8> {
    let parents: Vec<&str> = image
        .history
        .iter()
        .filter_map(|step| step.image.as_deref())
        .filter(|id| *id != image.id)
        .collect();
    let labels = settings.entry("Labels").or_insert_with(|| json!({}));
    if let Value::Object(labels) = labels {
        labels.insert(OLD_ID.into(), image.id.as_str().into());
        labels.insert(OLD_PARENTS.into(), parents.join(",").into());
    }
    let step = |entry: &HistoryEntry| {
        let mut step = json!({"created": entry.created, "created_by": entry.instruction});
        if !entry.comment.is_empty() {
            step["comment"] = entry.comment.as_str().into();
        }
        if entry.layer.is_none() {
            step["empty_layer"] = true.into();
        }
        step
    };
    let history: Vec<Value> = image.history.iter().rev().map(step).collect();
    let config = json!({"config": settings, "created": image.created, "history": history});
    config.to_string().into_bytes()
}
