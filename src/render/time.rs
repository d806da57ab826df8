//! Ages as docker prints them.

use jiff::Timestamp;

/// Now, or the moment that `SOURCE_DATE_EPOCH` names: output that has to be the same every time,
/// and ages as of the day an image of a disk was taken.
pub fn now() -> Timestamp {
    std::env::var("SOURCE_DATE_EPOCH")
        .ok()
        .and_then(|text| Timestamp::from_second(text.parse().ok()?).ok())
        .unwrap_or_else(Timestamp::now)
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

/// How long ago a time was that an engine wrote; the text itself, to be escaped, where it is no
/// time.
pub fn ago(text: &str) -> String {
    match text.parse::<Timestamp>() {
        Ok(then) => format!("{} ago", duration(now().as_second() - then.as_second())),
        Err(_) => text.to_owned(),
    }
}

/// The time since one that an engine wrote, without "ago".
pub fn since(text: &str) -> Option<String> {
    let then: Timestamp = text.parse().ok()?;
    Some(duration(now().as_second() - then.as_second()))
}

#[cfg(test)]
mod tests {
    use super::duration;

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
