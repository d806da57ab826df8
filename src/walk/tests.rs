//! What a walk finds is what the plainest of recursions does.

use std::num::NonZeroUsize;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicIsize, Ordering};

use proptest::prelude::*;

use super::alone::{Walk, behind, left, walk};
use super::headings::Headings;
use super::rows::{BEHIND_MAX, BUNDLE, Found, Heading};
use super::team::{WAITING_MAX, walk_all};

/// A tree, and the names of its rows.
#[derive(Debug, Clone)]
struct Tree {
    name: u32,
    is_quiet: bool,
    below: Vec<Tree>,
}

fn trees() -> impl Strategy<Value = Tree> {
    let leaf = (0..1000u32, any::<bool>()).prop_map(|(name, is_quiet)| Tree {
        name,
        is_quiet,
        below: Vec::new(),
    });
    leaf.prop_recursive(6, 600, 12, |inner| {
        let below = proptest::collection::vec(inner, 0..12);
        (0..1000u32, any::<bool>(), below).prop_map(|(name, is_quiet, below)| Tree {
            name,
            is_quiet,
            below,
        })
    })
}

/// What comes out, by the plainest of recursions. A quiet tree's name counts only if anything
/// is below it.
fn expected(tree: &Tree, rows: &mut Vec<u32>) {
    let start = rows.len();
    if !tree.is_quiet {
        rows.push(tree.name);
    }
    for below in &tree.below {
        expected(below, rows);
        rows.push(below.name + 10_000);
    }
    if tree.is_quiet && rows.len() > start {
        rows.insert(start, tree.name);
    }
}

#[derive(Clone)]
enum Visit<'t> {
    Tree(&'t Tree),
    Heading(u32),
    Rest(std::slice::Iter<'t, Tree>),
}

fn visit<'t>(directory: Visit<'t>, found: &mut Found<'_, Visit<'t>, Vec<u32>>) {
    let mut below = match directory {
        Visit::Heading(name) => return found.rows().push(name),
        Visit::Rest(below) => below,
        Visit::Tree(tree) => {
            if !tree.is_quiet {
                found.rows().push(tree.name);
            } else if tree.name % 2 == 0 {
                found.heading(Heading::Rows(vec![tree.name]));
            } else {
                found.heading(Heading::Directory(Visit::Heading(tree.name)));
            }
            tree.below.iter()
        }
    };
    found.each(&mut below, |tree, found| {
        found.directory(Visit::Tree(tree));
        found.rows().push(tree.name + 10_000);
    });
    if below.len() > 0 {
        found.directory(Visit::Rest(below));
    }
}

/// Many small trees below one, so that there is something to share.
fn forest(trees: &[Tree]) -> Tree {
    Tree {
        name: 1,
        is_quiet: true,
        below: trees.iter().cycle().take(400).cloned().collect(),
    }
}

fn same(found: &[u32], wanted: &[u32]) -> Result<(), TestCaseError> {
    let first = found.iter().zip(wanted).position(|(a, b)| a != b);
    let (found, wanted) = (found.len(), wanted.len());
    prop_assert!(
        first.is_none() && found == wanted,
        "{found} rows, not {wanted}; the first that differs is {first:?}"
    );
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]
    #[test]
    fn any_number_of_threads_finds_the_same_in_order(trees in proptest::collection::vec(trees(), 1..5)) {
        let tree = forest(&trees);
        let mut wanted = Vec::new();
        expected(&tree, &mut wanted);
        same(&walk(Visit::Tree(&tree), visit).collect::<Vec<u32>>(), &wanted)?;
        for threads in [1, 2, 3, 8] {
            let threads = NonZeroUsize::new(threads).unwrap();
            let mut found = Vec::new();
            let _ = walk_all(threads, Visit::Tree(&tree), &visit, |rows| {
                found.extend(rows);
                ControlFlow::Continue(())
            });
            same(&found, &wanted)?;
        }
    }

    #[test]
    fn a_cut_anywhere_loses_nothing(tree in trees(), steps in 0usize..200) {
        let mut wanted = Vec::new();
        expected(&tree, &mut wanted);
        let mut first = Walk::at(Visit::Tree(&tree));
        let mut visit = |tree, found: &mut Found<'_, _, _>| visit(tree, found);
        for _ in 0..steps {
            first.step(&mut visit);
        }
        let second = first.split();
        let mut found = Vec::new();
        let mut headings = Headings::new();
        for mut walk in [Some(first), second].into_iter().flatten() {
            while walk.step(&mut visit) {}
            let _ = headings.give(walk.out.take(), &mut visit, &mut |rows| {
                found.extend(rows);
                ControlFlow::Continue(())
            });
        }
        same(&found, &wanted)?;
    }
}

#[test]
fn what_waits_behind_directories_is_bounded() {
    const LEVELS: u32 = 4_000;
    let chain = (0..LEVELS).fold(tree(0, Vec::new()), |below, level| {
        tree(level, vec![below, tree(level, leaves(0..3))])
    });
    let wide = tree(0, leaves(0..LEVELS));
    for (tree, levels) in [(&chain, LEVELS as usize), (&wide, 1)] {
        let mut walk = Walk::at(Visit::Tree(tree));
        let (mut found, mut most, mut steps) = (0, 0, 0);
        while walk.step(&mut |directory, found: &mut Found<'_, _, _>| visit(directory, found)) {
            // To count anew takes as long as there are levels, and a wrong count stays wrong.
            if steps % 50 == 0 {
                assert_eq!(walk.behind, behind(&walk.levels));
                assert_eq!(walk.left, left(&walk.levels));
            }
            steps += 1;
            most = most.max(walk.behind);
            found += walk.out.now.len();
            walk.out.now.clear();
        }
        let mut wanted = Vec::new();
        expected(tree, &mut wanted);
        assert_eq!(found + walk.out.now.len(), wanted.len());
        // Here every directory comes with a row behind it.
        let of_levels = levels * size_of::<u32>();
        assert!(most <= BEHIND_MAX + of_levels, "{most} in {levels} levels");
    }
}

#[test]
fn enough_is_enough() {
    let tree = tree(0, leaves(1..100_000));
    for threads in [1, 2, 8] {
        let mut count = 0;
        let ended = walk_all(
            NonZeroUsize::new(threads).unwrap(),
            Visit::Tree(&tree),
            &visit,
            |rows| {
                count += rows.len();
                ControlFlow::Break(())
            },
        );
        assert_eq!(ended, ControlFlow::Break(()));
        assert!(count < 100_000);
    }
}

fn tree(name: u32, below: Vec<Tree>) -> Tree {
    Tree {
        name,
        is_quiet: false,
        below,
    }
}

fn leaves(names: std::ops::Range<u32>) -> Vec<Tree> {
    names.map(|name| tree(name, Vec::new())).collect()
}

/// How many rows more were found than given, at most, where whoever is given them is slow.
fn most_waiting<'t>(tree: &'t Tree, threads: usize) -> usize {
    let (found, mut given, mut most) = (AtomicIsize::new(0), 0, 0);
    let counted = |directory: Visit<'t>, into: &mut Found<'_, _, _>| {
        if let Visit::Tree(tree) = &directory {
            found.fetch_add(1 + tree.below.len() as isize, Ordering::Relaxed);
        }
        visit(directory, into);
    };
    let threads = NonZeroUsize::new(threads).unwrap();
    let _ = walk_all(threads, Visit::Tree(tree), &counted, |rows| {
        std::thread::sleep(std::time::Duration::from_micros(200));
        given += rows.len() as isize;
        most = most.max(found.load(Ordering::Relaxed) - given);
        ControlFlow::Continue(())
    });
    most as usize
}

/// How many rows may wait for so many threads: each has as much as a bundle at hand.
fn waiting_max(threads: usize) -> usize {
    (WAITING_MAX + 2 * (threads + 1) * BUNDLE) / size_of::<u32>()
}

#[test]
fn a_reader_that_is_slow_is_not_left_far_behind() {
    let branch = |name| tree(name, leaves(0..200));
    let wide = tree(0, (0..200).map(branch).collect());
    // What is found of the siblings is little each, and much together.
    const LEVELS: u32 = 400;
    let sibling = |name| tree(name, leaves(0..100));
    let chain = (0..LEVELS).fold(tree(0, Vec::new()), |below, level| {
        tree(level, vec![below, sibling(level)])
    });
    for threads in [2, 4] {
        let most = most_waiting(&wide, threads);
        // Of what is being walked, the rows behind each directory wait, too.
        assert!(
            most <= waiting_max(threads) + 200,
            "{most} with {threads} threads"
        );
        let most = most_waiting(&chain, threads);
        let behind = 2 * LEVELS as usize;
        assert!(
            most <= waiting_max(threads) + behind,
            "{most} with {threads} threads"
        );
    }
}

#[test]
fn headings_of_nothing_do_not_gather() {
    let quiet = |name| Tree {
        name,
        is_quiet: true,
        below: Vec::new(),
    };
    let outer = Tree {
        below: (0..1_000).map(quiet).collect(),
        ..quiet(1)
    };
    let mut walk = Walk::at(Visit::Tree(&outer));
    while walk.step(
        &mut |directory, found: &mut Found<'_, _, Vec<u32>>| match directory {
            Visit::Tree(tree) => {
                found.heading(Heading::Rows(vec![tree.name]));
                let below = tree.below.iter().map(Visit::Tree);
                below.for_each(|directory| found.directory(directory));
            }
            _ => unreachable!("nothing is behind a directory"),
        },
    ) {
        // That of the outer one, and of the inner one that is visited.
        assert!(walk.out.pieces.len() <= 2);
    }
    assert_eq!((walk.out.pieces.len(), walk.out.size), (0, 0));
}

#[test]
fn the_last_directory_takes_no_level() {
    // A directory of which so little is found at once that each step leaves one and a rest.
    let wide = tree(0, (0..2_000).map(|name| tree(name, leaves(0..2))).collect());
    let outer = tree(0, vec![wide, tree(1, leaves(0..200))]);
    let mut walk = Walk::at(Visit::Tree(&outer));
    let mut most = 0;
    while walk.step(&mut |directory, found: &mut Found<'_, _, _>| visit(directory, found)) {
        most = most.max(walk.levels.len());
    }
    assert!(most <= 8, "{most} levels");
}

#[test]
#[should_panic(expected = "a scoped thread panicked")]
fn a_panic_ends_all_threads() {
    let _ = walk_all(
        NonZeroUsize::new(4).unwrap(),
        0u32,
        &|directory, found: &mut Found<'_, u32, Vec<u32>>| {
            if directory == 0 {
                (1..50_000).for_each(|directory| found.directory(directory));
            }
            let is_other = std::thread::current().name() == Some("walk");
            assert!(!is_other, "of a thread that helps");
            std::thread::sleep(std::time::Duration::from_micros(10));
        },
        |_| ControlFlow::Continue(()),
    );
}
