//! One page of a tree: its elements, in their order.

/// What stands before a page's content.
pub(super) const HEADER: usize = 16;
/// What each element of a page takes before the data.
pub(super) const ELEMENT: usize = 16;
pub(super) const BRANCH: u16 = 1;
pub(super) const LEAF: u16 = 2;
/// The flag of an element whose value is a bucket.
pub(super) const IS_BUCKET: u32 = 1;

/// What is wrong with a database.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Damage {
    #[error("this is no bolt database: it has no valid meta page")]
    NoMeta,
    #[error("page {page} of the database {why}")]
    Page { page: u64, why: &'static str },
}

/// A page as an element refers to it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Child<'a> {
    pub page: u64,
    /// The offset of that element.
    pub referrer: u64,
    /// All keys of the page are this one or come after it.
    pub floor: &'a [u8],
    /// All keys of the page come before this one.
    pub ceiling: Option<&'a [u8]>,
}

/// An element of a leaf.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entry<'a> {
    pub key: &'a [u8],
    pub value: &'a [u8],
    pub is_bucket: bool,
    /// The offset of this element.
    pub at: u64,
    /// The page it lies on.
    pub page: u64,
}

/// The entries of a bucket that lies in an element of a page.
pub(super) fn inline(bytes: &[u8], within: u64) -> Result<Vec<Entry<'_>>, Damage> {
    let place = Child {
        page: within,
        referrer: 0,
        floor: b"",
        ceiling: None,
    };
    let entries = match u16_at(bytes, 8) {
        // No bucket in it is ever followed, so that offsets do not matter.
        Some(LEAF) => leaf(bytes, 0, place),
        _ => Err("has a bucket in place that is no leaf"),
    };
    entries.map_err(|why| Damage::Page { page: within, why })
}

pub(super) fn leaf<'a>(
    bytes: &'a [u8],
    start: u64,
    place: Child<'a>,
) -> Result<Vec<Entry<'a>>, &'static str> {
    let mut elements = Elements::of(bytes, place)?;
    let mut entries = Vec::with_capacity(elements.heads.len());
    for (at, head) in elements.heads() {
        let [flags, pos, key, value] = words(head);
        let is_bucket = match flags {
            0 => false,
            IS_BUCKET => true,
            _ => return Err("has an element of an unknown kind"),
        };
        entries.push(Entry {
            key: elements.key(at, pos, key)?,
            value: elements.take(value)?,
            is_bucket,
            at: start.saturating_add(at as u64),
            page: place.page,
        });
    }
    Ok(entries)
}

pub(super) fn branch<'a>(
    bytes: &'a [u8],
    start: u64,
    place: Child<'a>,
) -> Result<Vec<Child<'a>>, &'static str> {
    let mut elements = Elements::of(bytes, place)?;
    let mut children: Vec<Child<'a>> = Vec::with_capacity(elements.heads.len());
    for (at, head) in elements.heads() {
        let [pos, key, low, high] = words(head);
        let key = elements.key(at, pos, key)?;
        if let Some(before) = children.last_mut() {
            before.ceiling = Some(key);
        }
        children.push(Child {
            page: (u64::from(high) << 32) | u64::from(low),
            referrer: start.saturating_add(at as u64),
            floor: key,
            ceiling: place.ceiling,
        });
    }
    if children.is_empty() {
        Err("is a branch without pages")
    } else {
        Ok(children)
    }
}

/// The elements of a page, whose data is taken in their order.
struct Elements<'a> {
    bytes: &'a [u8],
    place: Child<'a>,
    heads: &'a [[u8; ELEMENT]],
    /// The data that was not yet taken begins here.
    rest: usize,
    last: Option<&'a [u8]>,
}

impl<'a> Elements<'a> {
    fn of(bytes: &'a [u8], place: Child<'a>) -> Result<Elements<'a>, &'static str> {
        let cut = "is cut short";
        let count = usize::from(u16_at(bytes, 10).ok_or(cut)?);
        let (heads, _) = bytes.get(HEADER..).ok_or(cut)?.as_chunks();
        Ok(Elements {
            bytes,
            place,
            heads: heads.get(..count).ok_or(cut)?,
            rest: HEADER + count * ELEMENT,
            last: None,
        })
    }

    /// The elements, each with its offset in the page.
    fn heads(&self) -> impl Iterator<Item = (usize, &'a [u8; ELEMENT])> + use<'a> {
        (HEADER..).step_by(ELEMENT).zip(self.heads)
    }

    fn key(&mut self, at: usize, pos: u32, length: u32) -> Result<&'a [u8], &'static str> {
        let begins = at.saturating_add(size(pos));
        if begins < self.rest {
            return Err("has elements that overlap");
        }
        self.rest = begins;
        let key = self.take(length)?;
        if self.last.replace(key).is_some_and(|last| last >= key) {
            return Err("has keys out of order");
        }
        // Where its branch says otherwise, to look a key up and to list all would disagree.
        if key < self.place.floor || self.place.ceiling.is_some_and(|ceiling| ceiling <= key) {
            return Err("has keys of another page");
        }
        Ok(key)
    }

    fn take(&mut self, length: u32) -> Result<&'a [u8], &'static str> {
        let end = self.rest.saturating_add(size(length));
        let taken = self.bytes.get(self.rest..end);
        self.rest = end;
        taken.ok_or("has an element that reaches beyond it")
    }
}

pub(super) fn size(number: u32) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

/// An element's four numbers.
fn words(head: &[u8; ELEMENT]) -> [u32; 4] {
    let word = |at| u32_at(head, at).unwrap_or_default();
    [word(0), word(4), word(8), word(12)]
}

pub(super) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

pub(super) fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

pub(super) fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}
