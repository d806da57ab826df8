//! The house, held to its plan: files import downwards only, and none is too long to be read.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use syn::visit::{self, Visit};
use syn::{Attribute, Item, UseTree, Visibility};
use walkdir::WalkDir;

/// The longest file, in lines before its tests.
const LINES_MAX: usize = 600;

/// A module: `engine::docker::layers`, as its segments.
type Module = Vec<String>;

/// What a module's file says of others.
#[derive(Default)]
struct File {
    /// Paths that it names, each from the crate's root.
    named: BTreeSet<Vec<String>>,
    /// Names that it hands on from others, and what they are there.
    handed_on: BTreeMap<String, Vec<String>>,
    lines: usize,
}

/// The paths that a file names, tests left out: they may ask anybody.
struct Paths<'m> {
    own: &'m Module,
    file: File,
}

fn is_test(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        attribute.path().is_ident("cfg")
            && attribute
                .parse_args::<syn::Meta>()
                .is_ok_and(|meta| meta.path().is_ident("test"))
    })
}

impl Paths<'_> {
    /// A path from the crate's root; none for what other crates have.
    fn absolute(&self, path: &[String]) -> Option<Vec<String>> {
        let first = path.first()?.as_str();
        let ups = path.iter().take_while(|word| *word == "super").count();
        match first {
            "crate" => Some(path[1..].to_vec()),
            "self" => Some([self.own, &path[1..]].concat()),
            "super" => {
                let above = &self.own[..self.own.len().checked_sub(ups)?];
                Some([above, &path[ups..]].concat())
            }
            _ => None,
        }
    }

    fn used(&mut self, tree: &UseTree, before: &[String], is_handed_on: bool) {
        match tree {
            UseTree::Path(path) => {
                let path_here = [before, &[path.ident.to_string()]].concat();
                self.used(&path.tree, &path_here, is_handed_on);
            }
            UseTree::Group(group) => {
                for tree in &group.items {
                    self.used(tree, before, is_handed_on);
                }
            }
            UseTree::Name(name) => self.leaf(before, &name.ident, &name.ident, is_handed_on),
            UseTree::Rename(rename) => {
                self.leaf(before, &rename.ident, &rename.rename, is_handed_on)
            }
            UseTree::Glob(_) => self.file.named.extend(self.absolute(before)),
        }
    }

    fn leaf(&mut self, before: &[String], name: &syn::Ident, shown: &syn::Ident, handed_on: bool) {
        let path = if name == "self" {
            before.to_vec()
        } else {
            [before, &[name.to_string()]].concat()
        };
        // A module hands on what its own children have without naming `self`.
        let path = self
            .absolute(&path)
            .or_else(|| handed_on.then(|| [self.own.as_slice(), path.as_slice()].concat()));
        let Some(path) = path else {
            return;
        };
        if handed_on {
            self.file.handed_on.insert(shown.to_string(), path);
        } else {
            self.file.named.insert(path);
        }
    }
}

impl<'ast> Visit<'ast> for Paths<'_> {
    fn visit_item(&mut self, item: &'ast Item) {
        let attributes = match item {
            Item::Mod(item) => &item.attrs,
            Item::Fn(item) => &item.attrs,
            Item::Impl(item) => &item.attrs,
            Item::Use(item) => &item.attrs,
            _ => &Vec::new(),
        };
        if !is_test(attributes) {
            visit::visit_item(self, item);
        }
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        let is_handed_on = !matches!(item.vis, Visibility::Inherited);
        self.used(&item.tree, &[], is_handed_on);
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let words: Vec<String> = path
            .segments
            .iter()
            .map(|segment| segment.ident.to_string())
            .collect();
        if words.len() > 1 {
            // A child is named by its name alone.
            let absolute = self
                .absolute(&words)
                .unwrap_or_else(|| [self.own.as_slice(), words.as_slice()].concat());
            self.file.named.insert(absolute);
        }
        visit::visit_path(self, path);
    }
}

fn house() -> BTreeMap<Module, File> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut house = BTreeMap::new();
    for entry in WalkDir::new(&root).sort_by_file_name() {
        let entry = entry.expect("src is read");
        let path = entry.path();
        if path.extension().is_none_or(|extension| extension != "rs") {
            continue;
        }
        let below = path.strip_prefix(&root).expect("below src");
        let mut own: Module = below
            .with_extension("")
            .iter()
            .map(|word| word.to_str().expect("UTF-8").to_owned())
            .collect();
        if own.last().is_some_and(|last| last == "mod") {
            own.pop();
        }
        if own == ["lib"] || own == ["main"] || own.iter().any(|word| word == "tests") {
            continue;
        }
        let text = fs::read_to_string(path).expect("source is text");
        // A module of tests ends a file; its attributes may stand between.
        let tests = text
            .rfind("\n#[cfg(test)]\n")
            .filter(|at| text[*at..].contains("\nmod tests"));
        let code = &text[..tests.unwrap_or(text.len())];
        let parsed = syn::parse_file(&text).expect("Rust");
        let mut paths = Paths {
            own: &own,
            file: File {
                lines: code.lines().count(),
                ..File::default()
            },
        };
        paths.visit_file(&parsed);
        let file = paths.file;
        house.insert(own, file);
    }
    assert!(house.len() > 100, "only {} files", house.len());
    house
}

/// The file that has what a path names: the module that it leads to, through what is handed on.
fn owner(house: &BTreeMap<Module, File>, path: &[String]) -> Option<Module> {
    let mut path = path.to_vec();
    for _ in 0..10 {
        let len = (1..=path.len())
            .rev()
            .find(|len| house.contains_key(&path[..*len]))?;
        let module = path[..len].to_vec();
        let Some(next) = path
            .get(len)
            .and_then(|name| house[&module].handed_on.get(name))
        else {
            return Some(module);
        };
        path = [next.as_slice(), &path[len + 1..]].concat();
    }
    None
}

#[apply(test)]
fn files_import_without_a_circle() {
    let house = house();
    let mut imports: BTreeMap<&Module, BTreeSet<Module>> = house
        .iter()
        .map(|(own, file)| {
            let others = file.named.iter().filter_map(|path| owner(&house, path));
            // A folder and what is in it are one house: what it hands down is known to its rooms.
            let is_own = |other: &Module| other.starts_with(own) || own.starts_with(other);
            (own, others.filter(|other| !is_own(other)).collect())
        })
        .collect();
    let edges: usize = imports.values().map(BTreeSet::len).sum();
    assert!(edges > 500, "only {edges} imports were seen");
    // What imports nobody that is left stands on the ground and is taken away, until none is left.
    loop {
        let ground: BTreeSet<Module> = imports
            .iter()
            .filter(|(_, others)| others.is_empty())
            .map(|(own, _)| (*own).clone())
            .collect();
        if ground.is_empty() {
            break;
        }
        imports.retain(|own, _| !ground.contains(*own));
        for others in imports.values_mut() {
            others.retain(|other| !ground.contains(other));
        }
    }
    // The same from above: what nobody imports is in no circle, it only stands on one.
    loop {
        let named: BTreeSet<Module> = imports.values().flatten().cloned().collect();
        let before = imports.len();
        imports.retain(|own, _| named.contains(*own));
        if imports.len() == before {
            break;
        }
    }
    let words = |module: &Module| module.join("::");
    let left: Vec<String> = imports
        .iter()
        .map(|(own, others)| {
            let others: Vec<String> = others.iter().map(words).collect();
            format!("{} -> {}", words(own), others.join(", "))
        })
        .collect();
    assert!(left.is_empty(), "a circle:\n{}", left.join("\n"));
}

#[apply(test)]
fn no_file_is_too_long() {
    let long: Vec<String> = house()
        .iter()
        .filter(|(_, file)| file.lines > LINES_MAX)
        .map(|(own, file)| format!("{}: {} lines", own.join("::"), file.lines))
        .collect();
    assert!(long.is_empty(), "{}", long.join("\n"));
}
