//! A version that a union has and does not show, and the command that shows it.

use crate::bytes::{Bytes, shell_quote};
use crate::dir::Kind;
use crate::engine::Union;
use crate::target;
use crate::union::{Follow, Reading, Stack, lookup};

/// A version that the view from its own branch down shows.
pub struct Unseen {
    branch: usize,
    kind: Kind,
}

impl Unseen {
    /// The version that a branch has of a path, if the view from that branch down shows it.
    pub fn find(stack: &Stack, path: &Bytes, branch: usize) -> Option<Unseen> {
        let root = stack.root(|of| of >= branch, Reading::Nothing);
        let found = lookup(&root, path.as_bytes(), Follow::NotLast).ok()?;
        let is_its = found.entry.provider() == Some(branch);
        let kind = found.entry.kind().filter(|_| is_its)?;
        Some(Unseen { branch, kind })
    }

    /// The command, as a shell takes it. `label` is what the union is called.
    pub fn command(&self, path: &Bytes, union: &Union, label: &Bytes) -> String {
        let verb = match self.kind {
            Kind::File => "cat",
            _ => "ls",
        };
        let (whole, from) = match &union.view {
            Some(view) => (&view.whole, view.from + self.branch),
            None => (label, self.branch),
        };
        let view = [whole.as_bytes(), format!("@{from}").as_bytes()].concat();
        let argument = [&view, &b":"[..], path.as_bytes()].concat();
        // Where the path begins must be certain.
        if target::split(&argument).0 == view {
            return format!("layerctl {verb} {}", shell_quote(&Bytes(argument)));
        }
        let (view, path) = (shell_quote(&Bytes(view)), shell_quote(path));
        format!("layerctl {verb} --in {view} -- {path}")
    }
}
