//! How marks are taken away, made, and put back: what `restore` does to a writable branch, in the
//! branch's own grammar.
//!
//! ```text
//! AUFS           a whiteout and an opaque mark are files: unlinked, or made as AUFS makes them
//! overlay        a whiteout is a device, an opaque mark an attribute of the directory
//! fuse-overlayfs a whiteout is either; a directory may be opaque three times over
//! ```

use rustix::io::Errno;

use super::attributes::times;
use super::made::{self, sync_dir};
use crate::bytes::{Bytes, shell_quote};
use crate::dir::{Access, Dir, Kind, Stat};
use crate::error::{Error, Result};
use crate::overlay::Namespace;
use crate::union::{Cut, Stack};
use crate::whiteout::{FUSE_OPAQUE, Grammar, MarkKind, OPAQUE, Source};

/// AUFS's own empty file, of which its marks are links.
const HOUSEKEEPING_WHITEOUT: &[u8] = b".wh..wh.aufs";
/// What fuse-overlayfs leaves beside its opaque mark.
const FUSE_OPAQUE_DEVICE: &[u8] = b".wh..opq";

/// How a mark lies in a branch.
enum Form {
    /// A file of a name of its own: `.wh.NAME`, `.wh..wh..opq`.
    File,
    /// A device 0:0 of the marked name itself, or an empty file of that name with an attribute.
    Device(Namespace),
    /// An attribute of the directory that it marks.
    Attribute(&'static str),
    /// A device of the marked name, `.wh.NAME`, or both.
    DeviceOrFile,
    /// Any of three attributes, `.wh..wh..opq`, or several of them.
    AnyOpaque(Namespace),
}

impl Form {
    fn of(grammar: Grammar, kind: MarkKind) -> Form {
        match (grammar, kind) {
            (Grammar::Aufs, MarkKind::Whiteout | MarkKind::Opaque) => Form::File,
            // They have no marks that count; what has one's name is a file.
            (Grammar::AufsIgnored | Grammar::Plain | Grammar::OverlayData, _) => Form::File,
            (Grammar::Overlay(rules), MarkKind::Whiteout) => Form::Device(rules.namespace),
            (Grammar::Overlay(rules), MarkKind::Opaque) => {
                Form::Attribute(rules.namespace.attributes().opaque)
            }
            (Grammar::FuseOverlay(_), MarkKind::Whiteout) => Form::DeviceOrFile,
            (Grammar::FuseOverlay(namespace), MarkKind::Opaque) => Form::AnyOpaque(namespace),
        }
    }
}

/// A mark of a branch that is about to be removed or made.
pub struct Mark<'a> {
    stack: &'a Stack,
    cut: &'a Cut,
}

impl<'a> Mark<'a> {
    pub fn new(stack: &'a Stack, cut: &'a Cut) -> Mark<'a> {
        Mark { stack, cut }
    }

    fn grammar(&self) -> Grammar {
        self.stack.branches[self.cut.branch].grammar
    }

    fn form(&self) -> Form {
        Form::of(self.grammar(), self.cut.kind)
    }

    fn fail(&self) -> impl Fn(Errno) -> Error {
        let path = self.stack.on_host(self.cut.branch, &self.cut.mark);
        move |errno| Error::io(path.clone(), errno)
    }

    /// The directory that the mark lies in, after a look at what has its name now.
    ///
    /// # Errors
    /// It is gone, or something else has its name.
    pub fn find(&self) -> Result<Dir> {
        let fail = self.fail();
        let dir = branch_dir(self.stack, self.cut.branch, &self.cut.mark.parent())?;
        let name = self.cut.mark.file_name();
        let stat = dir.stat(name).map_err(&fail)?;
        let stat = stat.ok_or_else(|| fail(Errno::NOENT))?;
        let is_mark = match self.form() {
            Form::File => stat.kind == Kind::File,
            Form::Attribute(_) | Form::AnyOpaque(_) => stat.kind == Kind::Directory,
            Form::Device(_) | Form::DeviceOrFile => {
                let found = self.grammar().mark_at(&Source::Disk(&dir), name);
                found.map_err(&fail)?.0.is_some()
            }
        };
        if is_mark {
            Ok(dir)
        } else {
            Err(Error::damaged(
                self.stack.on_host(self.cut.branch, &self.cut.mark),
                "is not the mark any more that it was",
            ))
        }
    }

    /// Removes it, from the directory that [`Mark::find`] found.
    pub fn remove_from(&self, dir: &Dir) -> Result<(), Errno> {
        let name = self.cut.mark.file_name();
        match self.form() {
            Form::File | Form::Device(_) => remove_entry(dir, name),
            Form::Attribute(attribute) => {
                made::unmark(&dir.child(name, Access::Lookup)?, attribute)
            }
            Form::AnyOpaque(_) => {
                let marked = dir.child(name, Access::List)?;
                remove_fuse_opaque(&marked)
            }
            Form::DeviceOrFile => {
                // The name may be marked twice; as long as either mark is there, it is deleted.
                if self.has_device(dir)? {
                    made::remove(dir, self.cut.of.file_name())?;
                }
                if name == self.cut.of.file_name() {
                    Ok(())
                } else {
                    remove_entry(dir, name)
                }
            }
        }
    }

    /// Whether the name is deleted by the mark beside it and by a device in its place, too.
    pub fn is_in_place_too(&self, dir: &Dir) -> Result<bool, Errno> {
        match self.form() {
            Form::File | Form::Attribute(_) | Form::AnyOpaque(_) => Ok(false),
            Form::Device(_) | Form::DeviceOrFile => self.has_device(dir),
        }
    }

    /// Whether it is a mark whatever is in it: what is to be in its place can be moved over it
    /// first.
    pub fn may_have_content(&self) -> bool {
        match self.form() {
            Form::File => true,
            // fuse-overlayfs heeds such a file, too, but as long as it is there.
            Form::Device(_) | Form::Attribute(_) | Form::DeviceOrFile | Form::AnyOpaque(_) => false,
        }
    }

    /// Whether a device 0:0 has the marked name itself.
    fn has_device(&self, dir: &Dir) -> Result<bool, Errno> {
        let stat = dir.stat(self.cut.of.file_name())?;
        Ok(stat.as_ref().is_some_and(is_device))
    }

    /// Finds it and removes it for good.
    ///
    /// # Errors
    /// It is not there any more, or cannot be removed.
    pub fn remove(&self) -> Result<()> {
        let dir = self.find()?;
        self.remove_from(&dir).map_err(self.fail())?;
        sync_dir(&dir).map_err(self.fail())
    }

    /// Makes it anew, in the directory that it lay in.
    pub fn put_back(&self, dir: &Dir) -> Result<(), Errno> {
        make_file(self.stack, self.cut.branch, dir, self.cut.mark.file_name())
    }

    /// The commands that put it back. `at` is its path on the machine.
    ///
    /// # Errors
    /// As [`Mark::find`]; a mark that cannot be looked at.
    pub fn undo(&self, at: &Bytes) -> Result<Vec<String>> {
        let path = shell_quote(at);
        match self.form() {
            Form::File => Ok(vec![make_empty(&path)]),
            Form::Attribute(attribute) => Ok(vec![set_opaque(attribute, &path)]),
            Form::AnyOpaque(namespace) => self.undo_fuse_opaque(at, fuse_opaque(namespace)),
            Form::Device(namespace) => {
                let stat = self.stat()?;
                Ok(match stat.map(|stat| (stat.kind, stat.mode)) {
                    Some((Kind::File, _)) => vec![
                        make_empty(&path),
                        format!("setfattr -n {} {path}", namespace.attributes().whiteout),
                    ],
                    Some((_, mode)) => vec![make_device(&path, mode)],
                    None => vec![make_device(&path, 0)],
                })
            }
            Form::DeviceOrFile if !self.grammar().hides_entry(self.cut.mark.file_name()) => {
                let mode = self.stat()?.map_or(0, |stat| stat.mode);
                Ok(vec![make_device(&path, mode)])
            }
            Form::DeviceOrFile => {
                let mut commands = vec![make_empty(&path)];
                if self.has_device(&self.find()?).map_err(self.fail())? {
                    let device = at.parent().join(self.cut.of.file_name());
                    commands.push(make_device(&shell_quote(&device), 0));
                }
                Ok(commands)
            }
        }
    }

    fn stat(&self) -> Result<Option<Stat>> {
        let stat = self.find()?.stat(self.cut.mark.file_name());
        stat.map_err(self.fail())
    }

    fn undo_fuse_opaque(&self, at: &Bytes, own: &str) -> Result<Vec<String>> {
        let path = shell_quote(at);
        let dir = self.find()?;
        let marked = dir.child(self.cut.mark.file_name(), Access::List);
        let marked = marked.map_err(self.fail())?;
        let mut commands = Vec::new();
        for attribute in FUSE_OPAQUE {
            let value = marked.attribute_self(attribute, 16).map_err(self.fail())?;
            if value.is_some_and(|value| value.first() == Some(&b'y')) {
                commands.push(set_opaque(attribute, &path));
            }
        }
        let in_it = |name: &[u8]| shell_quote(&at.join(name));
        if let Some(stat) = marked.stat(OPAQUE).map_err(self.fail())? {
            let file = in_it(OPAQUE);
            commands.push(format!("install -m {:04o} /dev/null {file}", stat.mode));
        }
        if let Some(stat) = marked.stat(FUSE_OPAQUE_DEVICE).map_err(self.fail())?
            && is_device(&stat)
        {
            commands.push(make_device(&in_it(FUSE_OPAQUE_DEVICE), stat.mode));
        }
        if commands.is_empty() {
            commands.push(set_opaque(own, &path));
        }
        Ok(commands)
    }
}

fn make_empty(path: &str) -> String {
    format!("install -m 0444 /dev/null {path}")
}

fn make_device(path: &str, mode: u32) -> String {
    format!("mknod -m {mode:04o} {path} c 0 0")
}

fn set_opaque(attribute: &str, path: &str) -> String {
    format!("setfattr -n {attribute} -v y {path}")
}

/// The attribute by which fuse-overlayfs itself marks a directory.
fn fuse_opaque(namespace: Namespace) -> &'static str {
    match namespace {
        Namespace::Trusted => FUSE_OPAQUE[0],
        Namespace::User => FUSE_OPAQUE[2],
    }
}

/// The file goes last: as long as it or an attribute is there, the directory is opaque.
fn remove_fuse_opaque(dir: &Dir) -> Result<(), Errno> {
    if dir
        .stat(FUSE_OPAQUE_DEVICE)?
        .as_ref()
        .is_some_and(is_device)
    {
        made::remove(dir, FUSE_OPAQUE_DEVICE)?;
    }
    // From the last asked to the first, so that none that says otherwise comes to be heeded.
    for attribute in FUSE_OPAQUE.iter().rev() {
        match made::unmark(dir, attribute) {
            Err(Errno::NODATA | Errno::OPNOTSUPP) => {}
            result => result?,
        }
    }
    match remove_entry(dir, OPAQUE) {
        Err(Errno::NOENT) => Ok(()),
        result => result,
    }
}

/// Whether it is the device 0:0, as which a whiteout is made.
fn is_device(stat: &Stat) -> bool {
    stat.kind == Kind::Char && stat.rdev == 0
}

/// Removes a file, or a directory that is empty.
fn remove_entry(dir: &Dir, name: &[u8]) -> Result<(), Errno> {
    match dir.stat(name)?.map(|stat| stat.kind) {
        Some(Kind::Directory) => made::remove_directory(dir, name),
        _ => made::remove(dir, name),
    }
}

/// Makes a mark as AUFS does: a link of the branch's own empty file, or else an empty file.
pub fn make_file(stack: &Stack, branch: usize, dir: &Dir, name: &[u8]) -> Result<(), Errno> {
    if let Ok(root) = &stack.branches[branch].dir
        && let Some(stat) = root.stat(HOUSEKEEPING_WHITEOUT)?
        && stat.kind == Kind::File
        && stat.size == 0
        && made::link(root, HOUSEKEEPING_WHITEOUT, stat.identity(), dir, name).is_ok()
    {
        return Ok(());
    }
    made::empty_file(dir, name)
}

/// Makes a directory opaque that is being made, and gives it back the times that this changed.
pub fn make_opaque(stack: &Stack, branch: usize, dir: &Dir) -> Result<(), Errno> {
    match Form::of(stack.branches[branch].grammar, MarkKind::Opaque) {
        Form::Attribute(attribute) => made::mark(dir, attribute, b"y")?,
        Form::AnyOpaque(namespace) => made::mark(dir, fuse_opaque(namespace), b"y")?,
        Form::File | Form::Device(_) | Form::DeviceOrFile => {
            let before = dir.stat_self()?;
            make_file(stack, branch, dir, OPAQUE)?;
            made::date_directory(dir, &times(&before))?;
        }
    }
    // The whiteout that has hidden the same goes next: without either, more would come back.
    sync_dir(dir)
}

/// Makes AUFS's whiteouts of names in a directory that is being made: how many directories down,
/// and which name. The directories keep their times. `is_made` knows them.
pub fn hide(
    stack: &Stack,
    branch: usize,
    top: &Dir,
    chain: &[Vec<u8>],
    names: &[(usize, Vec<u8>)],
    is_made: &dyn Fn(&Dir) -> bool,
) -> Result<(), Errno> {
    let grammar = stack.branches[branch].grammar;
    let mut dir = top.clone();
    for (depth, next) in chain.iter().enumerate() {
        let before = dir.stat_self()?;
        let mut hidden = names.iter().filter(|(of, _)| *of == depth).peekable();
        let changes = hidden.peek().is_some();
        for (_, name) in hidden {
            make_file(stack, branch, &dir, &grammar.whiteout_of(name))?;
        }
        if changes {
            made::date_directory(&dir, &times(&before))?;
            sync_dir(&dir)?;
        }
        match dir.child(next, Access::Lookup) {
            Ok(below) if is_made(&below) => dir = below,
            // Somebody has put another one there.
            Ok(_) => return Err(Errno::STALE),
            Err(Errno::NOTDIR) => break,
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

/// Opens a directory of a branch, no link followed.
pub fn branch_dir(stack: &Stack, branch: usize, path: &Bytes) -> Result<Dir> {
    let root = stack.branches[branch].dir.as_ref().map_err(Clone::clone)?;
    root.descend(path)
}
