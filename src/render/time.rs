//! Ages as docker prints them.

use std::borrow::Cow;
use std::fmt::{self, Display};

use jiff::Timestamp;
use serde::{Serialize, Serializer};

/// Now, or the moment that `SOURCE_DATE_EPOCH` names: output that has to be the same every time,
/// and ages as of the day an image of a disk was taken.
pub fn now() -> Timestamp {
    told().unwrap_or_else(Timestamp::now)
}

/// Whether somebody said which moment is now.
pub fn is_told() -> bool {
    told().is_some()
}

fn told() -> Option<Timestamp> {
    let text = std::env::var("SOURCE_DATE_EPOCH").ok()?;
    Timestamp::from_second(text.parse().ok()?).ok()
}

/// `2 minutes`, `About an hour`, `16 months`: docker's rounding.
pub fn duration(seconds: i64) -> String {
    let (minutes, hours) = (seconds / 60, (seconds + 1800) / 3600);
    match seconds {
        ..1 => "Less than a second".into(),
        1 => "1 second".into(),
        2..60 => format!("{seconds} seconds"),
        60..120 => "About a minute".into(),
        120..3600 => format!("{minutes} minutes"),
        _ => match hours {
            ..=1 => "About an hour".into(),
            2..48 => format!("{hours} hours"),
            48..336 => format!("{} days", hours / 24),
            336..1440 => format!("{} weeks", hours / 24 / 7),
            1440..17520 => format!("{} months", hours / 24 / 30),
            _ => format!("{} years", seconds / 3600 / 24 / 365),
        },
    }
}

/// A moment as file systems keep it: seconds since 1970, and nanoseconds. It is written as RFC 3339;
/// outside of the calendar as the number, as `date` and `touch` take it: file systems keep times
/// that no calendar has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp(pub i64, pub u32);

impl Stamp {
    /// The same without parts of a second.
    pub fn whole_second(self) -> Stamp {
        Stamp(self.0, 0)
    }
}

impl Display for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nanoseconds = i32::try_from(self.1).unwrap_or(0);
        match Timestamp::new(self.0, nanoseconds) {
            Ok(moment) => write!(f, "{moment}"),
            Err(_) => write!(f, "@{}", self.0),
        }
    }
}

impl Serialize for Stamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl schemars::JsonSchema for Stamp {
    fn inline_schema() -> bool {
        String::inline_schema()
    }

    fn schema_name() -> Cow<'static, str> {
        String::schema_name()
    }

    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        String::json_schema(generator)
    }
}

/// Clocks of one disk's machines differ by so much, in seconds: what lies no further ahead is now.
const AHEAD_MAX: i64 = 60;

/// How long ago a time was that an engine wrote, or how far it lies ahead. The text itself, to be
/// escaped, where it is no time; `N/A` where it never was.
pub fn ago(text: &str) -> String {
    match text.parse::<Timestamp>() {
        Ok(then) if is_zero(then) => "N/A".into(),
        Ok(then) => match age(then) {
            age @ ..0 if age < -AHEAD_MAX => format!("in {}", duration(-age)),
            age => format!("{} ago", duration(age)),
        },
        Err(_) => text.to_owned(),
    }
}

/// A time that an engine wrote, as docker's templates have it. The text itself where it is no time.
pub fn moment(text: &str) -> String {
    match text.parse::<Timestamp>() {
        Ok(time) => time.strftime("%Y-%m-%d %H:%M:%S +0000 UTC").to_string(),
        Err(_) => text.to_owned(),
    }
}

/// A time that an engine wrote, in RFC 3339 without parts of a second. The text itself, to be escaped,
/// where it is no time.
pub fn to_the_second(text: &str) -> String {
    match text.parse::<Timestamp>() {
        Ok(time) => Stamp(time.as_second(), 0).to_string(),
        Err(_) => text.to_owned(),
    }
}

/// The time since one that an engine wrote, without "ago"; none where it is no time, never was, or
/// lies ahead.
pub fn since(text: &str) -> Option<String> {
    let then: Timestamp = text.parse().ok()?;
    let age = Some(age(then)).filter(|age| *age >= -AHEAD_MAX && !is_zero(then));
    age.map(duration)
}

/// In seconds.
fn age(then: Timestamp) -> i64 {
    now().as_second().saturating_sub(then.as_second())
}

/// Go's time that never was: the first second of year 1.
fn is_zero(time: Timestamp) -> bool {
    time.as_second() == -62_135_596_800
}

#[cfg(test)]
mod tests {
    use super::{Stamp, ago, duration, since};

    #[test]
    fn what_never_was_or_lies_ahead_is_no_age() {
        assert_eq!(ago("0001-01-01T00:00:00Z"), "N/A");
        assert_eq!(ago("12026-01-01T00:00:00Z"), "12026-01-01T00:00:00Z");
        assert!(ago("9999-01-01T00:00:00Z").starts_with("in "));
        assert_eq!(since("9999-01-01T00:00:00Z"), None);
        assert_eq!(since("0001-01-01T00:00:00Z"), None);
        assert!(ago("2020-01-01T00:00:00Z").ends_with(" years ago"));
        assert_eq!(Stamp(i64::MAX, 0).to_string(), "@9223372036854775807");
        assert_eq!(Stamp(0, 0).to_string(), "1970-01-01T00:00:00Z");
        assert_eq!(Stamp(-1, 5).to_string(), "1969-12-31T23:59:59.000000005Z");
        assert_eq!(
            Stamp(-1, 500_000_000).whole_second().to_string(),
            "1969-12-31T23:59:59Z"
        );
        assert_eq!(
            Stamp(i64::MAX, 5).whole_second().to_string(),
            "@9223372036854775807"
        );
    }

    #[test]
    fn durations_are_dockers() {
        for (seconds, words) in [
            (0, "Less than a second"),
            (1, "1 second"),
            (59, "59 seconds"),
            (60, "About a minute"),
            (150, "2 minutes"),
            (3600, "About an hour"),
            (2 * 3600, "2 hours"),
            (47 * 3600, "47 hours"),
            (48 * 3600, "2 days"),
            (14 * 86400, "2 weeks"),
            (61 * 86400, "2 months"),
            (490 * 86400, "16 months"),
            (740 * 86400, "2 years"),
        ] {
            assert_eq!(duration(seconds), words, "{seconds}");
        }
    }
}
