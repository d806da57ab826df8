//! What a person may have meant who made a slip of the pen.

/// How alike two names have to be that one of them may have been meant for the other.
const LIKE: f64 = 0.85;
/// Names that are one slip apart: a letter wrong, too many or too few, or two in each other's place.
const ONE_SLIP: f64 = 0.97;
/// In names of fewer letters one letter is most of it.
const LETTERS_MIN: usize = 3;
/// More names are no help.
const SIMILAR_MAX: usize = 5;

/// The best of what is like the word that was typed, each with how alike it is; the most alike first.
pub fn best<T: Ord>(candidates: impl IntoIterator<Item = (f64, T)>) -> Vec<T> {
    let like = candidates.into_iter().filter(|(of, _)| *of >= LIKE);
    let mut like: Vec<(f64, T)> = like.collect();
    like.sort_by(|(a, of_a), (b, of_b)| b.total_cmp(a).then_with(|| of_a.cmp(of_b)));
    like.dedup_by(|(_, a), (_, b)| a == b);
    let best = like.into_iter().take(SIMILAR_MAX);
    best.map(|(_, of)| of).collect()
}

/// How alike two names are, from 0 to 1. A slip of the pen leaves them alike, and so does a part
/// that was left out.
pub fn likeness(typed: &str, name: &str) -> f64 {
    let (typed, name) = (typed.to_lowercase(), name.to_lowercase());
    let is_part = typed.len() >= LETTERS_MIN
        && (name.contains(&typed) || typed.contains(&name) && name.len() >= LETTERS_MIN);
    // It looks for a letter only near its place, which in a short name is nowhere else.
    let alike = strsim::jaro_winkler(&typed, &name);
    let alike = if is_part { alike.max(LIKE) } else { alike };
    let is_slip = strsim::osa_distance(&typed, &name) == 1
        && (typed.chars().count() >= LETTERS_MIN || has_same_letters(&typed, &name));
    if is_slip { alike.max(ONE_SLIP) } else { alike }
}

fn has_same_letters(a: &str, b: &str) -> bool {
    let sorted = |text: &str| {
        let mut letters: Vec<char> = text.chars().collect();
        letters.sort_unstable();
        letters
    };
    sorted(a) == sorted(b)
}

#[cfg(test)]
mod tests {
    use super::{best, likeness};

    #[test]
    fn a_slip_of_the_pen_is_seen() {
        let names = ["web", "web-frontend", "db", "app", "lab/web:2", "orders"];
        let meant = |typed: &str| {
            let named = names.map(|name| (likeness(typed, name), name));
            best(named).first().copied()
        };
        for (typed, name) in [
            ("wbe", Some("web")),
            ("ewb", Some("web")),
            ("web-frotnend", Some("web-frontend")),
            ("web-fronted", Some("web-frontend")),
            ("bd", Some("db")),
            ("dx", None),
            ("pap", Some("app")),
            ("lab/wbe:2", Some("lab/web:2")),
            ("odrers", Some("orders")),
            ("frontend", Some("web-frontend")),
            ("kubernetes", None),
        ] {
            assert_eq!(meant(typed), name, "{typed}");
        }
    }
}
