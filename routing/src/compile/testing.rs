//! For the unit tests of `compile`: YAML to what is compiled from it.
//!
//! Invariant: a test whose YAML is wrong fails, it does not test less.

use super::{Compiled, Identity, compile};
use crate::cluster::Cluster;
use config_model::{
    diagnostic::{Diagnostics, Effect},
    parse::parse,
    set::ResourceSet,
    validate::{Validated, validate},
};
use std::sync::Arc;

pub(super) fn identity() -> Identity {
    Identity::default()
}

pub(super) fn validated(yaml: &str) -> Validated {
    let parsed = parse("test.yaml", yaml);
    assert!(parsed.failed.is_empty(), "{:?}", parsed.diagnostics);
    let mut set = ResourceSet::new();
    assert!(set.extend(parsed.resources).is_empty());
    let (validated, findings) = validate(set);
    let rejected: Vec<_> = findings.iter().filter(|f| f.effect == Effect::Rejected).collect();
    assert!(rejected.is_empty(), "{rejected:?}");
    validated
}

pub(super) fn compiled(yaml: &str) -> (Compiled, Diagnostics) {
    compile(&validated(yaml), &identity())
}

pub(super) fn find_cluster(compiled: &Compiled, name: &str) -> Option<Arc<Cluster>> {
    compiled.clusters.iter().find(|(known, _)| known.as_str() == name).map(|(_, cluster)| Arc::clone(cluster))
}
