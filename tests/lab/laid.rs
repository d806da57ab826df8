//! What layers show together, found out as an engine unpacks an image: each is laid over what is
//! there, from the lowest up. The program under test does it the other way round.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::Metadata;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use walkdir::WalkDir;

use super::host::Host;

/// An entry of a layer.
pub struct At {
    pub path: PathBuf,
    /// Its number, topmost 0.
    pub layer: usize,
    /// Where it is on the disk.
    pub at: PathBuf,
    pub meta: Metadata,
}

#[derive(Default)]
pub struct Laid {
    pub seen: BTreeMap<PathBuf, At>,
    /// What a later layer has overwritten or deleted. Directories that are merged are not.
    pub hidden: Vec<At>,
}

/// Lays overlay's layers over each other, whose directories are given topmost first.
pub fn laid(host: &Host, layers: &[Vec<u8>]) -> Laid {
    let mut laid = Laid::default();
    for (layer, directory) in layers.iter().enumerate().rev() {
        let top = host.at(OsStr::from_bytes(directory));
        for entry in WalkDir::new(&top).min_depth(1).sort_by_file_name() {
            let entry = entry.expect("our own");
            let path = entry.path().strip_prefix(&top).expect("below").to_owned();
            let meta = entry.metadata().expect("our own");
            let is_whiteout = meta.file_type().is_char_device() && meta.rdev() == 0;
            let is_opaque = meta.is_dir() && is_opaque(entry.path());
            laid.cover(&path, meta.is_dir(), is_opaque);
            if !is_whiteout {
                let at = entry.into_path();
                let entry = At {
                    path: path.clone(),
                    layer,
                    at,
                    meta,
                };
                laid.seen.insert(path, entry);
            }
        }
    }
    laid
}

fn is_opaque(at: &Path) -> bool {
    let mut value = [0; 2];
    rustix::fs::lgetxattr(at, "trusted.overlay.opaque", &mut value) == Ok(1) && value[0] == b'y'
}

impl Laid {
    /// Takes away what an entry of a path hides.
    fn cover(&mut self, path: &Path, is_directory: bool, is_opaque: bool) {
        let is_merged = |of: &At| is_directory && of.path == path && of.meta.is_dir();
        let is_over = |of: &&At| match (is_directory, is_opaque) {
            (true, false) => of.path == path,
            _ => of.path.starts_with(path),
        };
        let over = self.seen.values().filter(is_over);
        let over: Vec<PathBuf> = over.map(|of| of.path.clone()).collect();
        let gone = over.iter().filter_map(|path| self.seen.remove(path));
        self.hidden.extend(gone.filter(|of| !is_merged(of)));
    }
}
