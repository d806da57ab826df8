//! What the values in a database are written with: Go's numbers and times, and protobuf's `Any`.

use jiff::Timestamp;

/// Reads Go's `binary.Uvarint`, and returns what follows it.
pub fn uvarint(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut value = 0u64;
    for (index, byte) in bytes.iter().enumerate().take(10) {
        let bits = u64::from(byte & 0x7f);
        // The tenth has room for one bit more.
        if index == 9 && *byte > 1 {
            return None;
        }
        value |= bits << (7 * index);
        if *byte < 0x80 {
            return Some((value, bytes.get(index + 1..)?));
        }
    }
    None
}

/// Reads Go's `binary.Varint`, and returns what follows it.
pub fn varint(bytes: &[u8]) -> Option<(i64, &[u8])> {
    let (value, rest) = uvarint(bytes)?;
    let magnitude = (value >> 1).cast_signed();
    Some((magnitude ^ -(value & 1).cast_signed(), rest))
}

/// Reads what Go's `time.Time.MarshalBinary` writes. The zone is passed over.
///
/// ```text
/// version 1 or 2 | seconds since the year 1 i64 | nanoseconds i32 | zone's minutes i16
/// | version 2: zone's seconds i8; all numbers are big-endian
/// ```
pub fn time(bytes: &[u8]) -> Option<Timestamp> {
    const YEAR_1_TO_1970: i64 = 62_135_596_800;
    if !matches!((bytes.first()?, bytes.len()), (1, 15) | (2, 16)) {
        return None;
    }
    let seconds = i64::from_be_bytes(*bytes.get(1..)?.first_chunk()?);
    let nanoseconds = i32::from_be_bytes(*bytes.get(9..)?.first_chunk()?);
    if !(0..1_000_000_000).contains(&nanoseconds) {
        return None;
    }
    Timestamp::new(seconds.checked_sub(YEAR_1_TO_1970)?, nanoseconds).ok()
}

/// Protobuf's `google.protobuf.Any`: a value and the name of its type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Any<'a> {
    pub type_url: &'a [u8],
    pub value: &'a [u8],
}

/// Reads an `Any`. Fields that it does not have are passed over.
pub fn any(mut bytes: &[u8]) -> Option<Any<'_>> {
    let mut any = Any::default();
    while !bytes.is_empty() {
        let (tag, rest) = uvarint(bytes)?;
        let (field, rest) = match tag & 7 {
            0 => (None, uvarint(rest)?.1),
            1 => (None, rest.get(8..)?),
            2 => {
                let (length, rest) = uvarint(rest)?;
                let (field, rest) = rest.split_at_checked(usize::try_from(length).ok()?)?;
                (Some(field), rest)
            }
            5 => (None, rest.get(4..)?),
            _ => return None,
        };
        match (tag >> 3, field) {
            (1, Some(field)) => any.type_url = field,
            (2, Some(field)) => any.value = field,
            _ => {}
        }
        bytes = rest;
    }
    Some(any)
}
