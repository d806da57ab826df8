//! What the verbs cost beside a bare walk of the same tree, and `which` on as many branches as
//! AUFS has. The trees are made anew in a temporary directory; `cargo bench` runs it.
//!
//! Read the medians as ratios: of `whiteouts`, `changes` and `ls` to `bare_walk`.

#![allow(clippy::disallowed_methods)]

use std::fs;
use std::mem::MaybeUninit;
use std::path::Path;
use std::sync::LazyLock;

use divan::{Bencher, black_box};
use layerctl::branch::parse_spelled;
use layerctl::command::whiteouts::marks;
use layerctl::difference::differences;
use layerctl::dir::Dir;
use layerctl::union::{Branch, Entry, Follow, Reading, Stack, lookup};
use rustix::fs::{FileType, Mode, OFlags, RawDir, openat};
use tempfile::TempDir;

fn main() {
    divan::main();
}

const ENTRIES_A_DIRECTORY: usize = 9;
const BRANCHES_MAX: usize = 127;

/// 300,000 entries in 30,000 directories, one name in twenty a whiteout, above an empty branch.
static TREE: LazyLock<TempDir> = LazyLock::new(|| {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mut count = 0;
    for top in 0..100 {
        for middle in 0..30 {
            for low in 0..10 {
                let at = dir.path().join(format!("up/d{top}/e{middle}/f{low}"));
                fs::create_dir_all(&at).expect("a directory");
                for entry in 0..ENTRIES_A_DIRECTORY {
                    count += 1;
                    let prefix = if count % 20 == 0 { ".wh." } else { "" };
                    fs::write(at.join(format!("{prefix}file{entry}")), b"").expect("a file");
                }
            }
        }
    }
    fs::create_dir(dir.path().join("lo")).expect("a directory");
    dir
});

/// A file in the lowest of 127 branches that all have its directories.
static WIDE: LazyLock<TempDir> = LazyLock::new(|| {
    let dir = tempfile::tempdir().expect("a temporary directory");
    for branch in 0..BRANCHES_MAX {
        fs::create_dir_all(dir.path().join(format!("b{branch}/usr/lib/python")))
            .expect("a directory");
    }
    fs::write(
        dir.path()
            .join(format!("b{}/usr/lib/python/os.py", BRANCHES_MAX - 1)),
        b"",
    )
    .expect("a file");
    dir
});

fn stack(spelled: &str) -> Stack {
    let branches = parse_spelled(spelled.as_bytes())
        .expect("a stack")
        .iter()
        .map(|spec| Branch::aufs(spec, Dir::open_root(&spec.path.to_path())))
        .collect();
    Stack::new(branches)
}

fn tree() -> Stack {
    let at = TREE.path().display();
    stack(&format!("br:{at}/up=rw:{at}/lo=ro+wh"))
}

#[divan::bench(sample_count = 10, sample_size = 1)]
fn bare_walk(bencher: Bencher) {
    let root = TREE.path().join("up");
    bencher.bench_local(|| black_box(bare(&root)));
}

/// `openat`, `getdents64` and `close` for every directory, and nothing else.
fn bare(root: &Path) -> usize {
    let flags =
        OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NOATIME;
    let mut buffer = vec![MaybeUninit::<u8>::uninit(); 32 * 1024];
    let mut count = 0;
    let mut pending = vec![openat(rustix::fs::CWD, root, flags, Mode::empty()).expect("the tree")];
    while let Some(dir) = pending.pop() {
        let mut entries = RawDir::new(&dir, &mut buffer);
        while let Some(entry) = entries.next() {
            let entry = entry.expect("an entry");
            let name = entry.file_name();
            if name == c"." || name == c".." {
                continue;
            }
            count += 1;
            if entry.file_type() == FileType::Directory {
                pending.push(openat(&dir, name, flags, Mode::empty()).expect("a directory"));
            }
        }
    }
    count
}

#[divan::bench(sample_count = 10, sample_size = 1)]
fn whiteouts(bencher: Bencher) {
    let stack = tree();
    bencher.bench_local(|| black_box(marks(&stack, 0).filter(Result::is_ok).count()));
}

#[divan::bench(sample_count = 10, sample_size = 1)]
fn changes(bencher: Bencher) {
    let stack = tree();
    bencher.bench_local(|| black_box(differences(&stack, 0).filter(Result::is_ok).count()));
}

#[divan::bench(sample_count = 100)]
fn which_on_127_branches(bencher: Bencher) {
    let at = WIDE.path().display();
    let branches: Vec<String> = (0..BRANCHES_MAX)
        .map(|branch| format!("{at}/b{branch}=ro+wh"))
        .collect();
    let stack = stack(&format!("br:{}", branches.join(":")));
    bencher.bench_local(|| {
        let root = stack.whole(Reading::Nothing);
        let found = lookup(&root, b"/usr/lib/python/os.py", Follow::All).expect("an answer");
        assert!(matches!(found.entry, Entry::Leaf { from, .. } if from == BRANCHES_MAX - 1));
    });
}
