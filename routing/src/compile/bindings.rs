//! Which VirtualServices take part, and at which Gateways: the little of each that has to be known of all of them.
//!
//! Invariant: a VirtualService is looked into once, as long as it is the very same; afterwards only this summary of it is.

use super::{
    Input,
    visibility::{Reach, reach},
};
use config_model::{
    derived::Derived,
    istio::VirtualService,
    meta::{Kind, Resource, ResourceKey},
    validate::resolve_gateway_name,
};
use foldhash::fast::FixedState;
use smallvec::SmallVec;
use std::{collections::HashMap, sync::Arc};

type Shared = Arc<Resource<VirtualService>>;

/// VirtualServices by the Gateways they name, in the order in which they are considered.
#[derive(Debug, Default)]
pub(super) struct Bindings {
    summaries: Derived<Resource<VirtualService>, Summary>,
    /// Those with HTTP rules, by `namespace/name` of the Gateway.
    by_gateway: HashMap<Box<str>, Vec<Shared>, FixedState>,
    l4: Vec<Shared>,
    delegation: Vec<Shared>,
}

/// What has to be known of each VirtualService.
#[derive(Debug)]
struct Summary {
    reach: Reach,
    http: bool,
    l4: bool,
    /// Whether it lends its rules or takes those of others.
    delegation: bool,
    /// The Gateways it names, each once.
    gateways: SmallVec<[Box<str>; 1]>,
}

impl Bindings {
    /// What they are made of.
    pub(super) const KINDS: [Kind; 1] = [Kind::VirtualService];

    /// Takes up those that the gateway's namespace may see: private ones, then those exported by name, then public ones; each
    /// group oldest first (Istio: push_context.go `VirtualServicesForGateway`).
    pub(super) fn follow(&mut self, input: &Input<'_>) {
        if input.shares(&Self::KINDS) {
            return;
        }
        if !input.is_of_the_same_mesh() {
            self.summaries.clear();
        }
        let default = &input.now.mesh().default_virtual_service_export_to;
        let proxy = input.identity.namespace.as_str();
        self.summaries.follow(input.now.virtual_services(), |_, resource| {
            let (key, spec) = (&resource.key, &resource.spec);
            let mut gateways = SmallVec::new();
            for (namespace, name) in
                spec.gateways.iter().filter_map(|entry| resolve_gateway_name(entry, &key.namespace))
            {
                let name = gateway_name(namespace, name);
                if !gateways.contains(&name) {
                    gateways.push(name);
                }
            }
            Summary {
                reach: reach(&spec.export_to, default, &key.namespace, proxy),
                http: !spec.http.is_empty(),
                l4: !(spec.tcp.is_empty() && spec.tls.is_empty()),
                delegation: spec.hosts.is_empty() || spec.http.iter().any(|rule| rule.delegate.is_some()),
                gateways,
            }
        });
        self.by_gateway.values_mut().for_each(Vec::clear);
        self.l4.clear();
        for reach in [Reach::Private, Reach::Named, Reach::Public] {
            for (resource, summary) in self.summaries.iter().filter(|(_, summary)| summary.reach == reach) {
                for gateway in summary.gateways.iter().filter(|_| summary.http) {
                    match self.by_gateway.get_mut(gateway) {
                        Some(list) => list.push(Arc::clone(resource)),
                        None => {
                            self.by_gateway.insert(gateway.clone(), vec![Arc::clone(resource)]);
                        }
                    }
                }
                if summary.l4 {
                    self.l4.push(Arc::clone(resource));
                }
            }
        }
        self.by_gateway.retain(|_, list| !list.is_empty());
        let delegation = self.summaries.iter().filter(|(_, summary)| summary.delegation);
        self.delegation = delegation.map(|(resource, _)| Arc::clone(resource)).collect();
    }

    /// Those with HTTP rules that name a Gateway.
    pub(super) fn of(&self, gateway: &ResourceKey) -> &[Shared] {
        let name = gateway_name(&gateway.namespace, &gateway.name);
        self.by_gateway.get(&name).map(Vec::as_slice).unwrap_or_default()
    }

    /// Those with rules for TCP or for TLS that is passed through.
    pub(super) fn l4(&self) -> &[Shared] {
        &self.l4
    }

    /// Those that lend their rules or take those of others, oldest first, whoever may see them.
    pub(super) fn delegation(&self) -> &[Shared] {
        &self.delegation
    }
}

/// A namespace has no slash in its name.
fn gateway_name(namespace: &str, name: &str) -> Box<str> {
    format!("{namespace}/{name}").into()
}
