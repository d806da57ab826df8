//! A worked example: an engine that answers nothing but what every engine has to answer.
//!
//! ```text
//! /srv/example/<container>/rootfs     its only directory: no image, no union
//! ```

use super::interface::{Description, Engine, FoundEngine};
use super::inventory::{Container, ContainerState, is_id};
use super::problems::Problems;
use super::roots::{EngineOption, Roots, Value};
use super::search::{Search, Why};
use super::survey::Survey;
use super::union::{Owner, OwnerKind, Role, Store, Union, UnionKind, layer_branch};
use crate::branch::Permission;
use crate::bytes::Bytes;
use crate::error::Result;
use crate::host::Host;

static DESCRIPTION: Description = Description {
    name: "example",
    also: &[],
    options: &[EngineOption {
        name: "example-root",
        short: None,
        help: "Where the example keeps its containers",
        value: Value::Path,
        requires: None,
    }],
    variables: &[],
    goes_without_saying: false,
    diff_has_attributes: false,
    numbers_layers: false,
    stands_on: None,
    daemons: &[],
    in_volumes: None,
    find,
};

struct Example<'h> {
    host: &'h Host,
    root: Bytes,
    problems: Problems,
}

fn find<'h>(host: &'h Host, roots: &Roots, search: &Search) -> Vec<FoundEngine<'h>> {
    let named = roots.option("example-root").cloned();
    let root = named.unwrap_or_else(|| Bytes::from("/srv/example"));
    let is_there = host.stat(&root).is_ok_and(|stat| stat.is_some());
    search.looked_at(DESCRIPTION.name, &root, Why::Default, is_there);
    if !is_there {
        return Vec::new();
    }
    let problems = Problems::default();
    vec![FoundEngine {
        problems: problems.clone(),
        engine: Box::new(Example {
            host,
            root,
            problems,
        }),
    }]
}

impl Engine for Example<'_> {
    fn description(&self) -> &'static Description {
        &DESCRIPTION
    }

    fn root(&self) -> &Bytes {
        &self.root
    }

    fn containers(&self) -> Vec<Container> {
        let names = self.host.list(&self.root).unwrap_or_else(|error| {
            self.problems.note(error);
            Vec::new()
        });
        let ids = names
            .into_iter()
            .filter_map(|(name, _)| String::from_utf8(name).ok());
        ids.filter(|id| is_id(id))
            .map(|id| Container {
                name: id.clone(),
                image: String::new(),
                image_id: String::new(),
                manifest: None,
                command: String::new(),
                created: String::new(),
                state: ContainerState::default(),
                driver: "directory".into(),
                ports: String::new(),
                namespace: None,
                pod: None,
                id,
            })
            .collect()
    }

    fn union_of(&self, container: &Container) -> Result<Union> {
        let directory = self.root.join(container.id.as_bytes()).join(b"rootfs");
        let mut branch = layer_branch(directory, Permission::RW, container.id.clone());
        branch.layer.role = Role::Container;
        let driver = container.driver.clone();
        Ok(Union {
            kind: UnionKind::Copy,
            driver: Some(driver.clone()),
            owner: Some(Owner {
                engine: DESCRIPTION.name,
                kind: OwnerKind::Container,
                id: container.id.clone(),
                name: Some(container.name.clone()),
                store: Store {
                    root: self.root.clone(),
                    driver,
                    namespace: None,
                },
            }),
            ..Union::unmounted(vec![branch])
        })
    }
}

#[test]
fn an_engine_that_answers_only_what_it_has_to() {
    static ENGINES: &[&Description] = &[&DESCRIPTION];
    let directory = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(directory.path().join("data/web/rootfs/etc")).unwrap();
    let host = Host::open(directory.path()).unwrap();
    let mut roots = Roots::of_caller(&host);
    let option = &DESCRIPTION.options[0];
    roots.take_option(option, "data".as_ref(), &Bytes::from("/"));
    let survey = Survey::new(&host, ENGINES, roots);

    let containers = survey.containers();
    let [(engine, web)] = containers.as_slice() else {
        panic!("{} containers", containers.len());
    };
    assert_eq!((engine.name(), &*web.name), ("example", "web"));
    let stack = engine.union_of(web).unwrap().open(&survey);
    assert!(stack.lost().next().is_none());

    // What it does not answer is none, or unknown: nothing is found to be left over.
    assert!(survey.images().is_empty() && survey.layers().is_empty());
    assert!(engine.layer_uses().unwrap().is_empty());
    assert!(engine.leftovers().is_err());
    assert!(!engine.has_union(web));
    assert_eq!(engine.driver(&[]), "unknown");
    assert!(survey.take_problems().is_empty());
}

#[test]
fn what_it_cannot_read_is_told_by_the_survey() {
    static ENGINES: &[&Description] = &[&DESCRIPTION];
    let directory = tempfile::tempdir().unwrap();
    std::fs::create_dir(directory.path().join("srv")).unwrap();
    std::fs::File::create_new(directory.path().join("srv/example")).unwrap();
    let host = Host::open(directory.path()).unwrap();
    let survey = Survey::new(&host, ENGINES, Roots::of_caller(&host));
    assert!(survey.containers().is_empty());
    assert_eq!(survey.take_problems().len(), 1);
    assert!(survey.take_problems().is_empty());
}
