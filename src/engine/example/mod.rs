//! A worked example: an engine that answers nothing but what every engine has to answer.
//!
//! ```text
//! /srv/example/<container>/rootfs     its only directory: no image, no union
//!
//! roots        where it is found
//! store        what its rooms share
//! containers   which there are, and where each has its files
//! ```

mod containers;
mod roots;
mod store;

use self::store::Example;
use super::interface::{Description, Engine};
use super::inventory::Container;
use super::roots::{EngineOption, Value};
use super::union::Union;
use crate::bytes::Bytes;
use crate::error::Result;

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
    names_what_is_there: false,
    diff_has_attributes: false,
    numbers_layers: false,
    stands_on: None,
    daemons: &[],
    in_volumes: None,
    find: roots::find,
};

impl Engine for Example<'_> {
    fn description(&self) -> &'static Description {
        &DESCRIPTION
    }

    fn root(&self) -> &Bytes {
        &self.root
    }

    fn containers(&self) -> Vec<Container> {
        self.read_containers()
    }

    fn union_of(&self, container: &Container) -> Result<Union> {
        Ok(self.directory_of(container))
    }
}

mod tests {
    use super::DESCRIPTION;
    use crate::bytes::Bytes;
    use crate::engine::interface::Description;
    use crate::engine::roots::Roots;
    use crate::engine::survey::Survey;
    use crate::host::Host;

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
}
