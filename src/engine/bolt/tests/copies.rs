//! Copies that were taken while somebody wrote.

use super::*;

const UNIT: usize = 16;

/// A file that transactions change in small steps: 3 pages each, of which none is the last
/// one's, then the meta page.
struct Changing {
    bytes: Vec<u8>,
    steps: Vec<(usize, [u8; UNIT])>,
    /// How many steps of these were made.
    done: usize,
}

impl Changing {
    fn new(transactions: u64) -> Changing {
        let images = (4..4 + transactions).map(|txid| {
            let mut writer = Writer::new(1024);
            writer
                .bytes
                .resize(1024 * if txid % 2 == 0 { 2 } else { 5 }, 0);
            let first = writer.bytes.len();
            let number = txid.to_le_bytes().to_vec();
            let base = writer.next();
            let element = |key: &str, number, value| (key.into(), number, value);
            writer.page(
                LEAF,
                &[
                    element("a", 0, number.clone()),
                    element("b", 0, number.repeat(60)),
                ],
            );
            writer.page(
                LEAF,
                &[element("c", 0, number.repeat(60)), element("d", 0, number)],
            );
            let root = writer.page(
                BRANCH,
                &[element("a", base, vec![]), element("c", base + 1, vec![])],
            );
            let data = first..writer.bytes.len();
            writer.bytes.resize(8 * 1024, 0);
            writer.meta(txid, root);
            let meta = (txid % 2) as usize * 1024;
            (writer.bytes, data.chain(meta..meta + HEADER + META))
        });
        let mut changing = Changing {
            bytes: vec![0; 8 * 1024],
            steps: Vec::new(),
            done: 0,
        };
        for (image, places) in images {
            for at in places.step_by(UNIT) {
                changing
                    .steps
                    .push((at, image[at..at + UNIT].try_into().unwrap()));
            }
        }
        // One transaction is done when the copying begins.
        changing.advance(changing.steps.len() / transactions as usize);
        changing
    }

    fn advance(&mut self, count: usize) {
        for (at, unit) in self.steps.iter().skip(self.done).take(count) {
            self.bytes[*at..*at + UNIT].copy_from_slice(unit);
        }
        self.done += count;
    }

    /// Reads while the transactions go on.
    fn read(&mut self, length: usize, pace: &mut impl FnMut() -> usize) -> Vec<u8> {
        let mut read = Vec::new();
        while read.len() < length {
            self.advance(pace());
            read.extend_from_slice(&self.bytes[read.len()..read.len() + UNIT]);
        }
        read
    }
}

#[test]
fn a_copy_is_sound_where_no_meta_page_changed() {
    let mut writer = Writer::new(1024);
    let root = writer.tree(&Map::new());
    let mut file = |txids: [u64; 2]| {
        txids.into_iter().for_each(|txid| writer.meta(txid, root));
        writer.bytes.clone()
    };
    let (copy, later) = (file([6, 7]), file([8, 7]));
    let (mut torn, mut afterwards) = (copy.clone(), copy.clone());
    torn[1024 + HEADER + 48] ^= 1;
    // Further pages may change, and are not looked at.
    *afterwards.last_mut().unwrap() = 1;
    assert!(is_sound(&copy, &copy));
    assert!(is_sound(&copy, &afterwards));
    assert!(is_sound(&copy, &copy[..1024 + HEADER + META]));
    assert!(!is_sound(&copy, &copy[..1024]));
    assert!(!is_sound(&copy, &later));
    assert!(!is_sound(&copy, &torn));
    assert!(!is_sound(&torn, &copy));
    // Both begin with 8, but for all one knows 10 was at work by then.
    let mut torn_later = later.clone();
    torn_later[1024 + HEADER + 48] ^= 1;
    assert!(!is_sound(&later, &torn_later));
    // What is damaged for good is not torn.
    assert!(is_sound(&torn, &torn));
    assert!(is_sound(b"no database", b"no database"));
    assert!(is_sound(b"", b""));
}

proptest! {
    #[test]
    fn a_copy_torn_in_mid_write_is_right_or_not_sound(
        before in 0..400usize,
        jumps in proptest::collection::vec((0..640usize, 1..250usize), 0..5),
    ) {
        let mut jumps = jumps;
        jumps.push((0, before));
        let mut at = 0..;
        let mut pace = || {
            let now = at.next();
            let due = jumps.iter().filter(|(at, _)| Some(*at) == now);
            due.map(|(_, steps)| steps).sum()
        };
        let mut file = Changing::new(9);
        let copy = file.read(8 * 1024, &mut pace);
        let metas = file.read(2 * 1024, &mut pace);
        if is_sound(&copy, &metas) {
            let found = read(&copy);
            let txid = Database::open(&copy).unwrap().txid().to_le_bytes();
            prop_assert_eq!(found.damage, []);
            prop_assert_eq!(found.map, map([
                ("a", value(txid)),
                ("b", value(txid.repeat(60))),
                ("c", value(txid.repeat(60))),
                ("d", value(txid)),
            ]));
        }
    }
}
