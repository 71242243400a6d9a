//! The little of a VirtualService that checks ask of all of them.
//!
//! Invariant: worked out of the one resource, once for each; a check that looks at all of them then looks at this, and into the few that it
//! is about.

use super::{claims::first_claim, mesh_hosts::takes_all};
use crate::{istio::VirtualService, meta::Resource};

/// What is known of a VirtualService by itself.
#[derive(Debug)]
pub(super) struct Facts {
    /// Whether it is for the mesh, perhaps among others.
    pub(super) in_mesh: bool,
    /// Whether it is for the mesh and chooses a subset somewhere.
    pub(super) chooses_in_mesh: bool,
    /// Whether one of its hosts has a star.
    pub(super) has_wildcard: bool,
    /// Whether it takes rules of others.
    pub(super) delegates: bool,
    /// Its first rule that takes every request.
    pub(super) takes_all: Option<usize>,
    /// Its first match of a claim: path and claim.
    pub(super) claim: Option<Box<(String, String)>>,
}

impl Facts {
    pub(super) fn of(resource: &Resource<VirtualService>) -> Facts {
        let spec = &resource.spec;
        let only_mesh = spec.gateways.iter().all(|gateway| gateway == "mesh");
        let chooses =
            || spec.http.iter().flat_map(|rule| &rule.route).any(|to| !to.destination.subset.is_empty());
        Facts {
            in_mesh: spec.gateways.is_empty() || spec.gateways.iter().any(|gateway| gateway == "mesh"),
            chooses_in_mesh: only_mesh && chooses(),
            has_wildcard: spec.hosts.iter().any(|host| host.is_wildcard()),
            delegates: spec.http.iter().any(|rule| rule.delegate.is_some()),
            takes_all: spec.http.iter().position(takes_all),
            claim: first_claim(spec).map(Box::new),
        }
    }
}
