//! Sizes as docker prints them: SI units, three or four significant digits.

const UNITS: [&str; 9] = ["B", "kB", "MB", "GB", "TB", "PB", "EB", "ZB", "YB"];

/// `1.98MB`: three significant digits, as `docker images` and `docker history` have them.
pub fn human(bytes: u64) -> String {
    #[allow(clippy::cast_precision_loss)]
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 999.5 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    let digits = if unit == 0 || value >= 99.95 {
        0
    } else if value >= 9.995 {
        1
    } else {
        2
    };
    let mut text = format!("{value:.digits$}");
    if text.contains('.') {
        text.truncate(text.trim_end_matches('0').trim_end_matches('.').len());
    }
    text + UNITS[unit]
}

#[cfg(test)]
mod tests {
    use super::human;

    #[test]
    fn sizes_are_dockers() {
        // From `docker history` and `docker images` of the captured host, and round values.
        for (bytes, shown) in [
            (0, "0B"),
            (22, "22B"),
            (147, "147B"),
            (999, "999B"),
            (1000, "1kB"),
            (1_982_267, "1.98MB"),
            (2_050_000, "2.05MB"),
            (12_345, "12.3kB"),
            (188_107_034, "188MB"),
            (999_999, "1MB"),
            (1_500_000_000, "1.5GB"),
        ] {
            assert_eq!(human(bytes), shown, "{bytes}");
        }
    }
}
