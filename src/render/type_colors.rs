//! Colours of paths by their types, as `ls` has them: `LS_COLORS`, or what is usual.

use std::path::Path;
use std::sync::OnceLock;

use lscolors::{Indicator, LsColors};
use owo_colors::OwoColorize;

pub fn paint(text: &str, of: Indicator) -> String {
    static COLORS: OnceLock<LsColors> = OnceLock::new();
    let colors = COLORS.get_or_init(|| LsColors::from_env().unwrap_or_default());
    let style = match of {
        // What its name ends with says more.
        Indicator::RegularFile => {
            let name = Path::new(text).file_name().and_then(|name| name.to_str());
            name.and_then(|name| colors.style_for_str(name))
        }
        _ => colors.style_for_indicator(of),
    };
    match style.map(lscolors::Style::to_owo_colors_style) {
        Some(style) => text.style(style).to_string(),
        None => text.to_owned(),
    }
}
