//! Numbers, times and messages.

use super::*;

#[test]
fn numbers_as_go_writes_them() {
    for (bytes, expected) in [
        (&[][..], None),
        (&[0], Some((0, &[][..]))),
        (&[0x7f, 9], Some((127, &[9]))),
        (&[0x80], None),
        (&[0x80, 1], Some((128, &[]))),
        (
            b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
            Some((u64::MAX, &[])),
        ),
        (b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02", None),
        (&[0x80; 12], None),
    ] {
        assert_eq!(uvarint(bytes), expected, "{bytes:?}");
    }
    for (bytes, expected) in [
        (&[0][..], 0),
        (&[1], -1),
        (&[6], 3),
        (&[5], -3),
        (b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", i64::MIN),
        (b"\xfe\xff\xff\xff\xff\xff\xff\xff\xff\x01", i64::MAX),
    ] {
        assert_eq!(varint(bytes), Some((expected, &[][..])), "{bytes:?}");
    }
}

#[test]
fn times_as_go_writes_them() {
    let text = |bytes: &[u8]| time(bytes).map(|time| time.to_string());
    let real = b"\x01\0\0\0\x0e\xe2\x96\xfb\x5b\x03\x68\x59\x59\xff\xff";
    assert_eq!(
        text(real).as_deref(),
        Some("2026-11-24T03:28:27.057170265Z")
    );
    let zone = b"\x02\0\0\0\x0e\xe2\x96\xfb\x5b\x03\x68\x59\x59\0\x3c\x1e";
    assert_eq!(text(zone), text(real));
    assert_eq!(
        text(&[&[1][..], &[0; 14]].concat()).as_deref(),
        Some("0001-01-01T00:00:00Z")
    );
    let with = |at: usize, byte: u8| {
        let mut bytes = real.to_vec();
        bytes[at] = byte;
        text(&bytes)
    };
    // Another version, a year that no calendar has, more nanoseconds than a second has.
    for wrong in [
        with(0, 0),
        with(0, 2),
        with(1, 0x7f),
        with(1, 0x80),
        with(9, 0x40),
        with(9, 0x80),
    ] {
        assert_eq!(wrong, None);
    }
    assert_eq!(text(b""), None);
    assert_eq!(text(&real[..14]), None);
    assert_eq!(text(&[&real[..], &[0]].concat()), None);
}

#[test]
fn any_messages() {
    let any_of = |type_url, value| Some(Any { type_url, value });
    for (bytes, expected) in [
        (&b""[..], any_of(&b""[..], &b""[..])),
        (b"\x0a\x03a/b\x12\x02{}", any_of(b"a/b", b"{}")),
        (b"\x12\x02{}\x0a\x03a/b", any_of(b"a/b", b"{}")),
        (b"\x0a\x03a/b", any_of(b"a/b", b"")),
        // Unknown fields of every kind, and a known one of another.
        (
            b"\x18\xff\x01\x21\0\0\0\0\0\0\0\0\x2a\x01x\x35\0\0\0\0\x08\x01\x12\x01y",
            any_of(b"", b"y"),
        ),
        (b"\x0a\x04a/b", None),
        (b"\x0a", None),
        (b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01x", None),
        (b"\x21\0\0", None),
        (b"\x0b", None),
    ] {
        assert_eq!(
            crate::engine::bolt::values::any(bytes),
            expected,
            "{bytes:?}"
        );
    }
}

proptest! {
    #[test]
    fn numbers_are_read_as_they_were_written(number in any::<u64>(), shift in 0..64u32, rest in any::<[u8; 2]>()) {
        let number = number >> shift;
        let written = |mut number: u64| {
            let mut bytes = Vec::new();
            while number >= 0x80 {
                bytes.push(number as u8 | 0x80);
                number >>= 7;
            }
            bytes.push(number as u8);
            [bytes, rest.to_vec()].concat()
        };
        let bytes = written(number);
        prop_assert_eq!(uvarint(&bytes), Some((number, &rest[..])));
        let signed = number.cast_signed();
        let zigzag = (signed << 1) ^ (signed >> 63);
        let bytes = written(zigzag.cast_unsigned());
        prop_assert_eq!(varint(&bytes), Some((signed, &rest[..])));
    }
}
