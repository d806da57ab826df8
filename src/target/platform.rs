//! `IMAGE@PLATFORM`: of an image for several platforms, what one of them has.

use crate::engine::platform::{ForPlatform, Platform};
use crate::error::{Error, Result};

/// Takes `IMAGE@OS/ARCHITECTURE[/VARIANT]` apart. A digest is no platform, nor is a number.
pub(super) fn split(name: &str) -> Option<(&str, Platform)> {
    let (of, platform) = name.rsplit_once('@')?;
    let is_number = platform.bytes().all(|byte| byte.is_ascii_digit());
    let platform = Platform::parse(platform).filter(|_| !is_number && !of.is_empty());
    Some((of, platform?))
}

/// The one of an image's platforms that was asked for.
///
/// # Errors
/// The image is not for it, or what makes it is not here: what there is, is said as it is typed.
pub(super) fn choose(all: &[ForPlatform], label: &str, asked: &Platform) -> Result<ForPlatform> {
    match ForPlatform::choose(all, asked) {
        Some(of) if of.is_here => Ok(of.clone()),
        Some(of) => Err(Error::NoPlatform {
            what: format!(
                "what {label} has for {} is not here: {}",
                of.platform,
                of.manifest.as_deref().unwrap_or("it has no manifest")
            ),
            there: listed(all, label),
        }),
        None => Err(Error::NoPlatform {
            what: format!("{label} has nothing for {asked}"),
            there: listed(all, label),
        }),
    }
}

/// Every platform of an image, as it must be typed.
fn listed(all: &[ForPlatform], label: &str) -> Vec<String> {
    let typed = all.iter().map(|of| {
        let place = if of.is_here { "" } else { "  (not here)" };
        format!("{label}@{}{place}", of.platform)
    });
    typed.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_platform_is_no_digest_and_no_number() {
        for (name, expected) in [
            ("app:1@linux/arm64", Some(("app:1", "linux/arm64"))),
            ("app@arm64", Some(("app", "linux/arm64"))),
            (
                "app@sha256:ab@linux/arm/v6",
                Some(("app@sha256:ab", "linux/arm/v6")),
            ),
            ("app@386", None),
            ("app@2", None),
            ("app@sha256:ab", None),
            ("@linux/arm64", None),
            ("app", None),
        ] {
            let found = split(name).map(|(of, platform)| (of, platform.to_string()));
            let found = found
                .as_ref()
                .map(|(of, platform)| (*of, platform.as_str()));
            assert_eq!(found, expected, "{name}");
        }
    }
}
