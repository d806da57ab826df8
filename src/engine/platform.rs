//! For which machines an image is, in images' own words: `linux/arm64`, `linux/arm/v7`.

use std::fmt;

use serde::Deserialize;

/// A kind of machine. Of an image's configuration, too, which has the same three words.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Platform {
    pub os: String,
    pub architecture: String,
    /// Empty where there is but one.
    pub variant: String,
}

/// One of the platforms that an image is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForPlatform {
    pub platform: Platform,
    /// The digest of its manifest; none where the image has no other.
    pub manifest: Option<String>,
    /// Whether what makes an image of it is kept here: an index can name what was never fetched.
    pub is_here: bool,
}

/// What people and images call architectures; the words of one line are one architecture, and
/// the first is the word that is shown, with the variant.
const ARCHITECTURES: &[(&str, &str, &[&str])] = &[
    ("amd64", "", &["amd64", "x86_64", "x86-64"]),
    ("arm64", "", &["arm64", "aarch64"]),
    ("arm", "v7", &["armhf"]),
    ("arm", "v6", &["armel"]),
    ("arm", "", &["arm"]),
    ("386", "", &["386", "i386"]),
    ("loong64", "", &["loong64", "loongarch64"]),
    ("mips64le", "", &["mips64le"]),
    ("ppc64le", "", &["ppc64le"]),
    ("riscv64", "", &["riscv64"]),
    ("s390x", "", &["s390x"]),
];

impl Platform {
    /// This machine's.
    pub fn here() -> Platform {
        Platform::new("linux", std::env::consts::ARCH, "")
    }

    fn new(os: &str, architecture: &str, variant: &str) -> Platform {
        let known = ARCHITECTURES.iter();
        let mut known = known.filter(|(.., words)| words.contains(&architecture));
        let (architecture, usual) = known.next().map_or((architecture, ""), |of| (of.0, of.1));
        let variant = match (architecture, variant) {
            (_, "") => usual,
            // The first of its kind has no number.
            ("arm64", "v8" | "8") | ("amd64", "v1") => "",
            (_, variant) => variant,
        };
        Platform {
            os: os.to_owned(),
            architecture: architecture.to_owned(),
            variant: variant.to_owned(),
        }
    }

    /// `OS/ARCHITECTURE[/VARIANT]`, or the architecture alone, of Linux.
    pub fn parse(typed: &str) -> Option<Platform> {
        let is_word = |word: &&str| {
            let is_of_it = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte);
            !word.is_empty() && word.bytes().all(is_of_it)
        };
        let typed = typed.to_ascii_lowercase();
        let words: Vec<&str> = typed.split('/').collect();
        if !words.iter().all(is_word) {
            return None;
        }
        match words[..] {
            [one] => {
                let is_known = ARCHITECTURES.iter().any(|of| of.2.contains(&one));
                is_known.then(|| Platform::new("linux", one, ""))
            }
            [os, architecture] => Some(Platform::new(os, architecture, "")),
            [os, architecture, variant] => Some(Platform::new(os, architecture, variant)),
            _ => None,
        }
    }

    /// The same in one spelling.
    pub fn normal(&self) -> Platform {
        Platform::new(&self.os, &self.architecture, &self.variant)
    }

    /// How well what is there fits what was asked for: the less the better; none where it does not.
    /// Who names no variant takes any, and engines then take the newest usual one.
    fn distance(&self, asked: &Platform) -> Option<u8> {
        let (own, asked) = (self.normal(), asked.normal());
        if (own.os, own.architecture) != (asked.os, asked.architecture) {
            return None;
        }
        match (own.variant.as_str(), asked.variant.as_str()) {
            (own, asked) if own == asked => Some(0),
            ("v7", "") => Some(1),
            (_, "") => Some(2),
            _ => None,
        }
    }

    /// Whether an image of it is one of what was asked for.
    pub fn fits(&self, asked: &Platform) -> bool {
        self.distance(asked).is_some()
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Platform {
            os,
            architecture,
            variant,
        } = self.normal();
        write!(f, "{os}/{architecture}")?;
        if variant.is_empty() {
            return Ok(());
        }
        write!(f, "/{variant}")
    }
}

impl ForPlatform {
    /// The one that fits best, and of those the first; what is here before what is not.
    pub fn choose<'p>(all: &'p [ForPlatform], asked: &Platform) -> Option<&'p ForPlatform> {
        let fitting = all.iter();
        let fitting = fitting.filter_map(|of| Some((of.platform.distance(asked)?, of)));
        let best = fitting.min_by_key(|(distance, of)| (!of.is_here, *distance));
        best.map(|(_, of)| of)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_platform_has_many_spellings() {
        for (typed, shown) in [
            ("linux/amd64", "linux/amd64"),
            ("linux/x86_64", "linux/amd64"),
            ("aarch64", "linux/arm64"),
            ("linux/arm64/v8", "linux/arm64"),
            ("linux/arm/v6", "linux/arm/v6"),
            ("armhf", "linux/arm/v7"),
            ("windows/amd64", "windows/amd64"),
            ("linux/s390x", "linux/s390x"),
        ] {
            let parsed = Platform::parse(typed).map(|of| of.to_string());
            assert_eq!(parsed.as_deref(), Some(shown), "{typed}");
        }
        for typed in [
            "",
            "sha256:ab",
            "linux/",
            "/amd64",
            "a/b/c/d",
            "latest",
            "linux/am d64",
        ] {
            assert_eq!(Platform::parse(typed), None, "{typed}");
        }
    }

    #[test]
    fn who_names_no_variant_takes_the_usual_one() {
        let of = |typed: &str, is_here| ForPlatform {
            platform: Platform::parse(typed).unwrap(),
            manifest: None,
            is_here,
        };
        let all = [
            of("linux/arm/v5", true),
            of("linux/arm/v7", true),
            of("linux/arm64/v8", false),
        ];
        let chosen = |typed: &str| {
            let asked = Platform::parse(typed).unwrap();
            ForPlatform::choose(&all, &asked).map(|of| of.platform.to_string())
        };
        assert_eq!(chosen("linux/arm").as_deref(), Some("linux/arm/v7"));
        assert_eq!(chosen("linux/arm/v5").as_deref(), Some("linux/arm/v5"));
        assert_eq!(chosen("linux/arm64").as_deref(), Some("linux/arm64"));
        assert_eq!(chosen("linux/arm/v6"), None);
        assert_eq!(chosen("linux/amd64"), None);
    }
}
