//! placeholder
use serde::Serialize;
use crate::bytes::Bytes;
use crate::command::{Context, Outcome};
use crate::error::{Error, Result};
pub use crate::copy::Depth;
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Apply { OnlyPlan, Now }
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Consent { Given, NotGiven }
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Strategy { Unhide, Copy }
pub enum Changed { Save(std::path::PathBuf), Discard }
pub enum Goal { Undelete(Option<Strategy>), CopyOut(std::path::PathBuf), Revert(Changed) }
pub struct Query<'a> { pub within: Option<&'a [u8]>, pub path: &'a [u8], pub goal: Goal, pub apply: Apply, pub depth: Depth, pub consent: Consent, pub may_write_copy: bool }
#[derive(Debug, Serialize, schemars::JsonSchema)]
pub struct Step { pub words: String }
#[derive(Debug, Serialize, schemars::JsonSchema)]
pub struct Row { pub path: Bytes, pub applied: bool, pub steps: Vec<Step>, pub reappears: Vec<Bytes>, pub seen: Option<String>, pub notes: Vec<String>, pub undo: Vec<Bytes> }
pub fn run(_: &mut Context<'_>, _: &Query<'_>) -> Result<Outcome> { Err(Error::Usage("later".into())) }
