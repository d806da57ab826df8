//! Colours of paths by their types, as `ls` has them: `LS_COLORS`, or what is usual.

use std::path::Path;
use std::sync::OnceLock;

use lscolors::{Indicator, LsColors};
use owo_colors::OwoColorize;

/// What decides the colour of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TypeOf {
    File,
    Executable,
    Directory,
    Link,
    Fifo,
    Socket,
    Block,
    Character,
}

pub fn paint(text: &str, of: TypeOf) -> String {
    static COLORS: OnceLock<LsColors> = OnceLock::new();
    let colors = COLORS.get_or_init(|| LsColors::from_env().unwrap_or_default());
    let indicator = match of {
        TypeOf::File => Indicator::RegularFile,
        TypeOf::Executable => Indicator::ExecutableFile,
        TypeOf::Directory => Indicator::Directory,
        TypeOf::Link => Indicator::SymbolicLink,
        TypeOf::Fifo => Indicator::FIFO,
        TypeOf::Socket => Indicator::Socket,
        TypeOf::Block => Indicator::BlockDevice,
        TypeOf::Character => Indicator::CharacterDevice,
    };
    let style = match of {
        // What its name ends with says more.
        TypeOf::File => {
            let name = Path::new(text).file_name().and_then(|name| name.to_str());
            name.and_then(|name| colors.style_for_str(name))
        }
        _ => colors.style_for_indicator(indicator),
    };
    match style.map(lscolors::Style::to_owo_colors_style) {
        Some(style) => text.style(style).to_string(),
        None => text.to_owned(),
    }
}
