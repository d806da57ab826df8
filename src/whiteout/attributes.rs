//! What attributes say beside marks: that a file's content or a directory's lower part is elsewhere, and
//! which of a branch's attributes the union shows.

use std::borrow::Cow;

use rustix::io::Errno;

use super::Grammar;
use super::source::{Seen, Source};
use super::spelling::{
    ESCAPE, FUSE_OVERRIDES, FUSE_OWN, METACOPY_MIN, PATH_MAX, could_be_metacopy,
};
use crate::dir::AttributeList;

impl Grammar {
    /// Whether a regular file, as it was seen, has its content in a lower branch.
    ///
    /// # Errors
    /// `EIO` for an attribute that cannot be one.
    pub fn metacopy(self, source: &Source<'_>, name: &[u8], seen: &Seen) -> Result<bool, Errno> {
        let Some(namespace) = self.kernel_namespace() else {
            return Ok(false);
        };
        if seen.is_bare || !could_be_metacopy(namespace, source, seen.stat.as_ref()) {
            return Ok(false);
        }
        let attribute = namespace.attributes().metacopy;
        match source.dir().attribute(name, attribute, PATH_MAX)? {
            None => Ok(false),
            Some(value) if value.is_empty() || value.len() >= METACOPY_MIN => Ok(true),
            Some(_) => Err(Errno::IO),
        }
    }

    /// [`Grammar::redirect`] of a directory whose attributes are listed.
    ///
    /// # Errors
    /// As [`Grammar::redirect`].
    pub fn redirect_of(
        self,
        source: &Source<'_>,
        listed: &AttributeList,
    ) -> Result<Option<Vec<u8>>, Errno> {
        match self.kernel_namespace() {
            Some(of) if listed.may_have(of.attributes().redirect) => self.redirect(source, None),
            _ => Ok(None),
        }
    }

    /// Under which name the branches below are asked, where not under the same: a name in the
    /// same directory, or a path from the root. `of` is the entry, `None` the directory itself.
    ///
    /// # Errors
    /// `EINVAL` for what can be neither.
    pub fn redirect(
        self,
        source: &Source<'_>,
        of: Option<&[u8]>,
    ) -> Result<Option<Vec<u8>>, Errno> {
        let Some(namespace) = self.kernel_namespace() else {
            return Ok(None);
        };
        let attribute = namespace.attributes().redirect;
        let value = match of {
            Some(name) => source.dir().attribute(name, attribute, PATH_MAX)?,
            None => source.dir().attribute_self(attribute, PATH_MAX)?,
        };
        let Some(mut value) = value else {
            return Ok(None);
        };
        if value.is_empty() {
            return Err(Errno::INVAL);
        }
        // The kernel takes it for a C string.
        value.truncate(
            value
                .iter()
                .position(|&byte| byte == 0)
                .unwrap_or(value.len()),
        );
        let is_valid = match value.strip_prefix(b"/") {
            Some(path) => path
                .split(|&byte| byte == b'/')
                .all(|part| !part.is_empty()),
            None => !value.contains(&b'/'),
        };
        is_valid.then_some(Some(value)).ok_or(Errno::INVAL)
    }

    /// The name under which the union shows an attribute of a branch: none for its own ones. What
    /// a union on top of this one has stored for itself is escaped: `overlay.overlay.`.
    pub fn shown_attribute(self, name: &[u8]) -> Option<Cow<'_, [u8]>> {
        match self {
            Grammar::Overlay(rules) => {
                let prefix = rules.namespace.prefix();
                match name.strip_prefix(prefix) {
                    None => Some(Cow::Borrowed(name)),
                    Some(rest) => rest
                        .strip_prefix(ESCAPE)
                        .map(|rest| Cow::Owned([prefix, rest].concat())),
                }
            }
            Grammar::FuseOverlay(_) => {
                let is_own = FUSE_OWN.iter().any(|prefix| name.starts_with(prefix))
                    || FUSE_OVERRIDES.iter().any(|own| own.as_bytes() == name);
                (!is_own).then_some(Cow::Borrowed(name))
            }
            Grammar::Aufs | Grammar::AufsIgnored | Grammar::OverlayData | Grammar::Plain => {
                Some(Cow::Borrowed(name))
            }
        }
    }

    /// The name under which a branch has an attribute that the union shows.
    pub fn stored_attribute(self, name: &[u8]) -> Vec<u8> {
        let Some(namespace) = self.kernel_namespace() else {
            return name.to_vec();
        };
        let prefix = namespace.prefix();
        match name.strip_prefix(prefix) {
            Some(rest) => [prefix, ESCAPE, rest].concat(),
            None => name.to_vec(),
        }
    }
}
