//! How wide columns are on a screen: the column that can give gives, and the last one, which has what
//! may be long, is never cut.

use std::borrow::Cow;

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// The blanks between two columns.
pub const BETWEEN: usize = 2;

/// A column is not cut to less. It is left out then.
const LEAST: usize = 8;

/// A column as wide as its widest cell; none where it is left out.
#[derive(Clone)]
pub struct Width {
    pub columns: Option<usize>,
    /// Its turn to give; none where it never does.
    pub gives: Option<u8>,
}

/// Makes columns narrower until they fit. Those whose turn it is are cut, the widest first, and left out
/// then, from the right, before the next turn. A path that is longer than half of the screen goes on in
/// the next line.
pub fn fit(widths: &mut [Width], screen: usize) {
    let total = |widths: &[Width]| {
        let shown = widths.iter().filter_map(|width| width.columns);
        let (mut total, mut last) = (0, 0);
        for columns in shown {
            total += columns + BETWEEN;
            last = columns;
        }
        total - last + last.min(screen / 2)
    };
    while total(widths) > screen + BETWEEN {
        let left = widths.iter().filter(|width| width.columns.is_some());
        let Some(turn) = left.filter_map(|width| width.gives).max() else {
            return;
        };
        let giving = widths.iter_mut().filter(|width| width.gives == Some(turn));
        let widest = giving
            .filter_map(|width| width.columns.as_mut())
            .filter(|columns| **columns > LEAST)
            .max();
        match widest {
            Some(columns) => *columns -= 1,
            None => {
                let mut giving = widths.iter_mut().rev();
                let next = giving.find(|of| of.gives == Some(turn) && of.columns.is_some());
                next.into_iter().for_each(|width| width.columns = None);
            }
        }
    }
}

/// A text that takes so many columns at most: the last one a `…` where it was longer.
pub fn cut(text: &str, columns: usize) -> Cow<'_, str> {
    if text.width() <= columns {
        return Cow::Borrowed(text);
    }
    let mut left = columns.saturating_sub(1);
    let mut kept = String::new();
    for char in text.chars() {
        let Some(rest) = left.checked_sub(char.width().unwrap_or(0)) else {
            break;
        };
        left = rest;
        kept.push(char);
    }
    kept.push('…');
    Cow::Owned(kept)
}

#[cfg(test)]
mod tests {
    use super::{Width, cut, fit};

    fn fitted(columns: &[(usize, Option<u8>)], screen: usize) -> Vec<Option<usize>> {
        let width = |&(columns, gives): &(usize, Option<u8>)| Width {
            columns: Some(columns),
            gives,
        };
        let mut widths: Vec<Width> = columns.iter().map(width).collect();
        fit(&mut widths, screen);
        widths.iter().map(|width| width.columns).collect()
    }

    #[test]
    fn what_gives_gives_and_the_rest_is_whole() {
        let columns = [(12, None), (30, Some(1)), (20, Some(1)), (10, None)];
        // 12 + 30 + 20 + 10 and three times two blanks.
        assert_eq!(
            fitted(&columns, 78),
            [Some(12), Some(30), Some(20), Some(10)]
        );
        assert_eq!(
            fitted(&columns, 70),
            [Some(12), Some(22), Some(20), Some(10)]
        );
        assert_eq!(fitted(&columns, 44), [Some(12), Some(8), Some(8), Some(10)]);
        assert_eq!(fitted(&columns, 36), [Some(12), Some(8), None, Some(10)]);
        assert_eq!(fitted(&columns, 26), [Some(12), None, None, Some(10)]);
        // One long path does not take the others' room.
        let long = [(12, None), (10, Some(1)), (300, None)];
        assert_eq!(fitted(&long, 80), [Some(12), Some(10), Some(300)]);
        // What says least is gone before the next is cut.
        let turns = [(12, None), (20, Some(1)), (20, Some(2)), (10, None)];
        assert_eq!(fitted(&turns, 56), [Some(12), Some(20), Some(8), Some(10)]);
        assert_eq!(fitted(&turns, 46), [Some(12), Some(20), None, Some(10)]);
        assert_eq!(fitted(&turns, 40), [Some(12), Some(14), None, Some(10)]);
    }

    #[test]
    fn a_cut_text_takes_what_it_may() {
        assert_eq!(cut("abc", 3), "abc");
        assert_eq!(cut("abcd", 3), "ab…");
        assert_eq!(cut("日本語", 4), "日…");
    }
}
