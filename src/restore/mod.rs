//! What `restore` does: found out, planned, printed, and applied.

pub mod copy;
pub mod mark;
pub mod plan;
