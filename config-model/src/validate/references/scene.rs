//! What the checks between resources see, with a note of what each has looked at.
//!
//! Invariant: nothing of the configuration is seen without a note, so a check has to be made again only when something that it looked at
//! has changed. A check that asks for more is made again more often by itself: there is no list to keep.

use std::{cell::Cell, sync::Arc};

use super::{
    super::{Deployment, Validated},
    certificate::{self, Dates},
    facts::Facts,
    registry::Registry,
};
use crate::{
    derived::Derived,
    istio, kubernetes,
    mesh::MeshConfig,
    meta::{Kind, Resource, ResourceKey},
    scalar::Timestamp,
    set::{ResourceSet, Resources},
};

/// Kinds of resources, and what the whole mesh says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(in crate::validate) struct Seen(u64);

impl Seen {
    /// All there is.
    pub(in crate::validate) const EVERYTHING: Seen = Seen(u64::MAX);
    const MESH: Seen = Seen(1 << 63);

    pub(super) fn of(kind: Kind) -> Seen {
        Seen(1 << kind as u64)
    }

    /// The kinds of which two sets do not have the very same resources.
    pub(in crate::validate) fn differing(a: &ResourceSet, b: &ResourceSet) -> Seen {
        let differing = Kind::ALL.into_iter().filter(|kind| !a.shares(b, *kind));
        differing.fold(Seen::default(), |seen, kind| seen.and(Seen::of(kind)))
    }

    /// The same, and what the whole mesh says.
    pub(in crate::validate) fn and_mesh(self) -> Seen {
        self.and(Seen::MESH)
    }

    /// Whether a kind is among them.
    pub(in crate::validate) fn has(self, kind: Kind) -> bool {
        self.meets(Seen::of(kind))
    }

    /// Whether both have something in common.
    pub(super) fn meets(self, other: Seen) -> bool {
        self.0 & other.0 != 0
    }

    /// Both together.
    pub(super) fn and(self, other: Seen) -> Seen {
        Seen(self.0 | other.0)
    }
}

/// The configuration as one check sees it.
pub(super) struct Scene<'a> {
    pub(super) validated: Reader<'a>,
    pub(super) deployment: &'a Deployment,
    registry: &'a Registry,
    facts: &'a Derived<Resource<istio::VirtualService>, Facts>,
    until: Cell<Option<Timestamp>>,
}

impl<'a> Scene<'a> {
    pub(super) fn new(
        validated: &'a Validated,
        deployment: &'a Deployment,
        registry: &'a Registry,
        facts: &'a Derived<Resource<istio::VirtualService>, Facts>,
    ) -> Scene<'a> {
        let validated = Reader { validated, seen: Cell::default() };
        Scene { validated, deployment, registry, facts, until: Cell::default() }
    }

    /// The hosts that rules may name.
    pub(super) fn registry(&self) -> &'a Registry {
        self.validated.note(Registry::seen());
        self.registry
    }

    /// The end of the full name of a Service.
    pub(super) fn domain(&self) -> &'static str {
        self.registry.domain
    }

    /// VirtualServices, oldest first, with what is known of each by itself.
    pub(super) fn virtual_services(
        &self,
    ) -> impl Iterator<Item = (&'a Arc<Resource<istio::VirtualService>>, &'a Facts)> + Clone {
        self.validated.note(Seen::of(Kind::VirtualService));
        self.facts.iter()
    }

    /// What the dates of a certificate say now.
    pub(super) fn dates(&self, chain: &[x509_cert::Certificate]) -> Dates {
        let Some(now) = self.deployment.now else { return Dates::Good };
        let (dates, until) = certificate::dates(chain, now);
        let first = [until, self.until.get()].into_iter().flatten().min();
        self.until.set(first);
        dates
    }

    /// What was looked at, and how long what was judged by the time stays as it is.
    pub(super) fn seen(&self) -> (Seen, Option<Timestamp>) {
        (self.validated.seen.get(), self.until.get())
    }
}

/// Resources, with a note of the kinds that were looked at.
pub(in crate::validate) struct Reader<'a> {
    validated: &'a Validated,
    seen: Cell<Seen>,
}

macro_rules! kinds {
    ($($kind:ident $list:ident $of:ty;)*) => {
        impl<'a> Reader<'a> {
            $(pub(in crate::validate) fn $list(&self) -> &'a $of {
                self.note(Seen::of(Kind::$kind));
                self.validated.$list()
            })*
        }
    };
}

kinds! {
    Gateway gateways [Arc<Resource<istio::Gateway>>];
    DestinationRule destination_rules [Arc<Resource<istio::DestinationRule>>];
    ServiceEntry service_entries [Arc<Resource<istio::ServiceEntry>>];
    Telemetry telemetries [Arc<Resource<istio::Telemetry>>];
    RequestAuthentication request_authentications [Arc<Resource<istio::RequestAuthentication>>];
    AuthorizationPolicy authorization_policies [Arc<Resource<istio::AuthorizationPolicy>>];
    Namespace namespaces Resources<kubernetes::Namespace>;
    Service services Resources<kubernetes::Service>;
    Secret secrets Resources<kubernetes::Secret>;
    ConfigMap config_maps Resources<kubernetes::ConfigMap>;
    Pod pods Resources<kubernetes::Pod>;
}

impl<'a> Reader<'a> {
    fn note(&self, seen: Seen) {
        self.seen.set(self.seen.get().and(seen));
    }

    /// A Gateway, refused ones too.
    pub(super) fn gateway(&self, key: &ResourceKey) -> Option<&'a Arc<Resource<istio::Gateway>>> {
        self.note(Seen::of(Kind::Gateway));
        self.validated.set().gateways().get(key)
    }

    /// Whether there is such a resource, refused ones too.
    pub(super) fn contains(&self, key: &ResourceKey) -> bool {
        self.note(Seen::of(key.kind));
        self.validated.set().contains(key)
    }

    /// Whether a resource was left out, which it is for what it says itself.
    pub(super) fn is_rejected(&self, key: &ResourceKey) -> bool {
        self.note(Seen::of(key.kind));
        self.validated.is_rejected(key)
    }

    /// What the whole mesh says.
    pub(super) fn mesh(&self) -> &'a MeshConfig {
        self.note(Seen::MESH);
        self.validated.mesh()
    }
}
