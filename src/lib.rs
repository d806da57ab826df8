#![allow(missing_docs)]
pub mod branch; pub mod bytes; pub mod dir; pub mod error; pub mod host; pub mod union; pub mod walk; pub mod whiteout;
pub fn run(_: std::env::ArgsOs) -> std::process::ExitCode { std::process::ExitCode::SUCCESS }
