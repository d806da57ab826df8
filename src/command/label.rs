//! Which union a row is of: a TARGET, in every form of every answer.

use std::borrow::Cow;
use std::sync::Arc;

use serde::{Serialize, Serializer};

use crate::bytes::Bytes;
use crate::error::Error;

/// The longest name of a directory, in bytes.
const FILE_NAME_MAX: usize = 255;

/// What the union of a row is called, as it can be typed. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Label {
    target: Arc<Bytes>,
    /// The person did not name it, so that tables and words say it, too.
    is_told: bool,
}

impl Label {
    /// Of the only union that the rows are of, which the person named.
    pub fn named(target: Bytes) -> Label {
        Label {
            target: Arc::new(target),
            is_told: false,
        }
    }

    /// Of a union that was found.
    pub fn found(target: Bytes) -> Label {
        Label {
            target: Arc::new(target),
            is_told: true,
        }
    }

    /// Rows are of several unions: then each says its own, whoever named them.
    pub fn tell_apart<'l>(labels: impl IntoIterator<Item = &'l mut Label>) {
        let mut labels: Vec<&mut Label> = labels.into_iter().collect();
        if labels
            .windows(2)
            .any(|pair| pair[0].target != pair[1].target)
        {
            labels.iter_mut().for_each(|label| label.is_told = true);
        }
    }

    /// The union, whoever named it.
    pub fn target(&self) -> &Bytes {
        &self.target
    }

    /// The union as one name of a directory.
    pub fn as_file_name(&self) -> Vec<u8> {
        let slashes = |&byte: &u8| if byte == b'/' { b'_' } else { byte };
        let name: Vec<u8> = self.target.as_bytes().iter().map(slashes).collect();
        match &name[..] {
            b"." | b".." | b"" => b"_".to_vec(),
            long => long[long.len().saturating_sub(FILE_NAME_MAX)..].to_vec(),
        }
    }

    /// The union, where the person did not name it.
    pub fn told(&self) -> Option<&Bytes> {
        self.is_told.then_some(&self.target)
    }

    /// What went wrong in it: with the union's name, where the person did not name it alone.
    pub fn of(&self, error: Error) -> Error {
        match self.told() {
            Some(target) => error.of(target),
            None => error,
        }
    }

    /// Whether it is of no union.
    pub fn is_none(&self) -> bool {
        self.target.as_bytes().is_empty()
    }

    /// A path of the union as a bare word: with the union before it, where rows are of several.
    pub fn word<'p>(&self, path: &'p Bytes) -> Cow<'p, [u8]> {
        match self.told() {
            Some(target) => Cow::Owned([target.as_bytes(), b":", path.as_bytes()].concat()),
            None => Cow::Borrowed(path.as_bytes()),
        }
    }
}

impl Serialize for Label {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.target.serialize(serializer)
    }
}

impl schemars::JsonSchema for Label {
    fn inline_schema() -> bool {
        Bytes::inline_schema()
    }

    fn schema_name() -> Cow<'static, str> {
        Bytes::schema_name()
    }

    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        Bytes::json_schema(generator)
    }
}
