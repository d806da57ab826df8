//! Extended attributes.
//!
//! ```text
//! behind an inode   a head of 12 bytes, its fifth: how many are shared
//!                   the places of those that are shared, each of four bytes, counted in fours
//!                   the inode's own
//! each               0 length of the name  1 prefix  2 length of the value  4 name, value
//!                   and up to three bytes more, so that the next begins at a multiple of four
//! prefix             1 `user.`  2 and 3 the access lists  4 `trusted.`  6 `security.`
//!                   from 128 on: number N - 128 of the image's list of prefixes
//! list of prefixes   for each: 2 bytes of length, and in that the prefix it begins with and its rest
//! ```

use super::inode::{ATTRIBUTES_HEAD, Inode};
use super::{Fault, Image, u16_at, u32_at};

const HEAD: usize = 4;
const LISTED: u8 = 0x80;
const NAME_MAX: usize = 255;

/// One attribute: its whole name, and where its value is.
struct Attribute {
    name: Vec<u8>,
    at: u64,
    length: usize,
}

fn prefix(number: u8) -> Option<&'static [u8]> {
    Some(match number {
        1 => b"user.",
        2 => b"system.posix_acl_access",
        3 => b"system.posix_acl_default",
        4 => b"trusted.",
        6 => b"security.",
        // To the kernel there is no such attribute.
        _ => return None,
    })
}

impl Image {
    /// Reads the list of prefixes: from the image, or from the content of an inode.
    pub(super) fn read_prefixes(
        &self,
        count: u8,
        start: u64,
        inode: Option<u64>,
    ) -> Result<Vec<Vec<u8>>, Fault> {
        let mut prefixes = Vec::new();
        let inode = inode.map(|number| self.inode(number)).transpose()?;
        let mut at = start;
        for _ in 0..count {
            let read = |into: &mut [u8], at: u64| match &inode {
                Some(inode) => self.read_all(inode, into, at),
                None => self.read(into, at),
            };
            let mut length = [0; 2];
            read(&mut length, at)?;
            let length = usize::from(u16::from_le_bytes(length));
            if length == 0 || length > NAME_MAX + 1 {
                return Err(Fault::Damaged("a prefix of attributes is too long"));
            }
            let mut listed = vec![0; length];
            read(&mut listed, at + 2)?;
            at = (at + 2 + length as u64).next_multiple_of(4);
            prefixes.push(listed);
        }
        Ok(prefixes)
    }

    /// The names of an inode's attributes.
    ///
    /// # Errors
    /// Attributes that are damaged.
    pub fn attribute_names(&self, inode: &Inode) -> Result<Vec<Vec<u8>>, Fault> {
        let mut names = Vec::new();
        self.each_attribute(inode, |attribute| {
            names.push(attribute.name);
            true
        })?;
        Ok(names)
    }

    /// The value of an attribute; none where there is none of that name, or a longer one than `max`
    /// bytes.
    ///
    /// # Errors
    /// As of [`Image::attribute_names`].
    pub fn attribute(
        &self,
        inode: &Inode,
        name: &[u8],
        max: usize,
    ) -> Result<Option<Vec<u8>>, Fault> {
        let mut found = None;
        self.each_attribute(inode, |attribute| {
            let is_it = attribute.name == name;
            if is_it {
                found = Some(attribute);
            }
            !is_it
        })?;
        let Some(found) = found.filter(|found| found.length <= max) else {
            return Ok(None);
        };
        let mut value = vec![0; found.length];
        self.read(&mut value, found.at)?;
        Ok(Some(value))
    }

    /// Tells of each attribute until that is enough: of the inode's own first, as the kernel does.
    fn each_attribute(
        &self,
        inode: &Inode,
        mut tell: impl FnMut(Attribute) -> bool,
    ) -> Result<(), Fault> {
        let (start, size) = inode.attributes;
        if size == 0 {
            return Ok(());
        }
        let mut body = vec![0; usize::try_from(size).unwrap_or(0)];
        self.read(&mut body, start)?;
        let head = ATTRIBUTES_HEAD as usize;
        let own = head + usize::from(body[4]) * 4;
        if own > body.len() {
            return Err(Fault::Damaged(
                "a file shares more attributes than it lists",
            ));
        }
        let mut at = own;
        while at + HEAD <= body.len() {
            let (attribute, next) = self.attribute_of(&body[at..], start + at as u64)?;
            if at + next > body.len() {
                return Err(Fault::Damaged("an attribute is longer than its place"));
            }
            if let Some(attribute) = attribute
                && !tell(attribute)
            {
                return Ok(());
            }
            at += next;
        }
        for number in body[head..own].chunks_exact(4) {
            let at = self.shared_at + u64::from(u32_at(number, 0)) * 4;
            let mut raw = [0; HEAD + NAME_MAX];
            self.read(&mut raw[..HEAD], at)?;
            let end = HEAD + usize::from(raw[0]);
            self.read(&mut raw[HEAD..end], at + HEAD as u64)?;
            let (attribute, _) = self.attribute_of(&raw[..end], at)?;
            if let Some(attribute) = attribute
                && !tell(attribute)
            {
                return Ok(());
            }
        }
        Ok(())
    }

    /// The attribute that begins with these bytes, which lie at a place in the image, unless it is
    /// none that the kernel knows; and how far behind it the next one begins.
    fn attribute_of(&self, raw: &[u8], at: u64) -> Result<(Option<Attribute>, usize), Fault> {
        let (length, number) = (usize::from(raw[0]), raw[1]);
        let value = usize::from(u16_at(raw, 2));
        let next = (HEAD + length + value).next_multiple_of(HEAD);
        let own = raw.get(HEAD..HEAD + length).ok_or(Fault::Damaged(
            "an attribute's name is longer than its place",
        ))?;
        let (number, rest) = if number & LISTED == 0 {
            (number, &[][..])
        } else {
            let all = self.prefixes.as_ref().map_err(|fault| *fault)?;
            let listed = all.get(usize::from(number & !LISTED));
            let listed = listed.and_then(|listed| listed.split_first());
            let (number, rest) = listed.ok_or(Fault::Damaged(
                "an attribute has a prefix that is not listed",
            ))?;
            (*number, rest)
        };
        let name = prefix(number).map(|prefix| [prefix, rest, own].concat());
        let name = name.filter(|name| name.len() <= NAME_MAX && !name.contains(&0));
        let attribute = name.map(|name| Attribute {
            name,
            at: at + (HEAD + length) as u64,
            length: value,
        });
        Ok((attribute, next))
    }
}
