//! How wide columns are on a screen: the column that can give gives, and the last one, which has what
//! may be long, is never cut.

use std::borrow::Cow;

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// The blanks between two columns.
pub const BETWEEN: usize = 2;

/// A column is not cut to less. It is left out then.
const LEAST: usize = 8;

/// A column as wide as its widest cell; none where it is left out.
pub struct Width {
    pub columns: Option<usize>,
    pub gives: bool,
}

/// Makes columns narrower until they fit, those that give: first the widest of them, then one after
/// another from the right. A path that is longer than half of the screen goes on in the next line.
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
        let giving = widths.iter_mut().filter(|width| width.gives);
        let widest = giving
            .filter_map(|width| width.columns.as_mut())
            .filter(|columns| **columns > LEAST)
            .max();
        match widest {
            Some(columns) => *columns -= 1,
            None => {
                let mut giving = widths.iter_mut().rev();
                match giving.find(|width| width.gives && width.columns.is_some()) {
                    Some(width) => width.columns = None,
                    None => return,
                }
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

    fn fitted(columns: &[(usize, bool)], screen: usize) -> Vec<Option<usize>> {
        let width = |&(columns, gives): &(usize, bool)| Width {
            columns: Some(columns),
            gives,
        };
        let mut widths: Vec<Width> = columns.iter().map(width).collect();
        fit(&mut widths, screen);
        widths.iter().map(|width| width.columns).collect()
    }

    #[test]
    fn what_gives_gives_and_the_rest_is_whole() {
        let columns = [(12, false), (30, true), (20, true), (10, false)];
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
        assert_eq!(fitted(&columns, 20), [Some(12), None, None, Some(10)]);
        // One long path does not take the others' room.
        let long = [(12, false), (10, true), (300, false)];
        assert_eq!(fitted(&long, 80), [Some(12), Some(10), Some(300)]);
    }

    #[test]
    fn a_cut_text_takes_what_it_may() {
        assert_eq!(cut("abc", 3), "abc");
        assert_eq!(cut("abcd", 3), "ab…");
        assert_eq!(cut("日本語", 4), "日…");
    }
}
