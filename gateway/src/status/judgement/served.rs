//! What of the configuration is in force: of which resources a part can be met, and which ports are bound.
//!
//! Invariant: it is read off what was compiled, not off what was written; of what other gateways serve it says nothing.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
};

use config_model::{
    diagnostic::{Code, Diagnostic},
    istio::Gateway,
    meta::{Kind, ResourceKey},
    scalar::labels::selects,
    set::AnyResource,
    validate::resolve_gateway_name,
};
use routing::{listener::FilterChain, table::RouteTable};

use crate::{listener::BindFailure, pipeline::Built};

/// Whether a resource is in force, where that is for this gateway to say.
pub(super) enum Programmed {
    /// As far as no finding says otherwise.
    Yes,
    /// No part of it.
    Nothing,
    /// Some of its ports are bound, and why others are not.
    Partly(String),
    /// None of its ports is bound, and why.
    Unbound(String),
}

/// What of the configuration is in force.
pub(super) struct Served<'a> {
    built: &'a Built,
    /// Those that have a listener, or a part of one, to themselves or are the first of several.
    gateways: HashSet<&'a str>,
    /// Those that a request can meet.
    virtual_services: HashSet<&'a str>,
    /// Ports of servers, as written, that are not bound, and why.
    unbound: BTreeMap<u16, String>,
}

impl<'a> Served<'a> {
    pub(super) fn of(built: &'a Built, failures: &[BindFailure]) -> Served<'a> {
        let (gateways, virtual_services) = (HashSet::new(), HashSet::new());
        let mut served = Served { built, gateways, virtual_services, unbound: BTreeMap::new() };
        let mut tables = HashSet::new();
        for listener in built.compiled.listeners.values() {
            let failure = failures.iter().find(|failure| failure.key == listener.key);
            for (_, chain) in listener.chains.each() {
                served.note(chain, failure, &mut tables);
            }
        }
        served
    }

    fn note(
        &mut self,
        chain: &'a FilterChain,
        failure: Option<&BindFailure>,
        tables: &mut HashSet<*const RouteTable>,
    ) {
        self.gateways.insert(&chain.gateway);
        if let Some(failure) = failure {
            self.unbound.entry(chain.server_port).or_insert_with(|| failure.to_string());
        }
        self.virtual_services.extend(chain.tcp.as_ref().and_then(|route| route.virtual_service()));
        // Servers share a table: it is walked once.
        if tables.insert(Arc::as_ptr(&chain.table)) {
            let routes = chain.table.hosts().iter().flat_map(|(_, host)| host.routes());
            for origin in routes.map(|route| &route.origin) {
                self.virtual_services.insert(&origin.virtual_service);
                let delegate = origin.delegate.as_ref().map(|delegate| &*delegate.virtual_service);
                self.virtual_services.extend(delegate);
            }
        }
    }

    /// `None` where it is not for this gateway to say.
    pub(super) fn programmed(&self, resource: &AnyResource, findings: &[&Diagnostic]) -> Option<Programmed> {
        let key = resource.key();
        let name = format!("{}/{}", key.namespace, key.name);
        match resource {
            AnyResource::Gateway(gateway) => self.selects(key).then(|| {
                if self.gateways.contains(name.as_str()) || !is_dropped(&gateway.spec, findings) {
                    self.bound(&gateway.spec)
                } else {
                    Programmed::Nothing
                }
            }),
            AnyResource::VirtualService(of) => {
                if self.virtual_services.contains(name.as_str()) {
                    return Some(Programmed::Yes);
                }
                let named = of.spec.gateways.iter();
                let mut named = named.filter_map(|entry| resolve_gateway_name(entry, &key.namespace));
                named
                    .any(|(namespace, name)| self.selects(&ResourceKey::new(Kind::Gateway, namespace, name)))
                    .then_some(Programmed::Nothing)
            }
            AnyResource::DestinationRule(_)
            | AnyResource::ServiceEntry(_)
            | AnyResource::WorkloadEntry(_) => Some(Programmed::Yes),
            _ => None,
        }
    }

    /// Whether the ports of a Gateway are bound.
    fn bound(&self, gateway: &Gateway) -> Programmed {
        let ports = gateway.servers.iter().filter_map(|server| server.port.number).map(|number| number.get());
        let why: Vec<&str> = ports.filter_map(|port| self.unbound.get(&port)).map(String::as_str).collect();
        match why.len() {
            0 => Programmed::Yes,
            broken if broken < gateway.servers.len() => Programmed::Partly(why.join("; ")),
            _ => Programmed::Unbound(why.join("; ")),
        }
    }

    /// Whether a Gateway is for this gateway's pods.
    fn selects(&self, gateway: &ResourceKey) -> bool {
        let labels = &self.built.compiled.identity().labels;
        let gateway = self.built.validated.set().gateways().get(gateway);
        gateway.is_some_and(|gateway| selects(gateway.spec.selector.as_ref(), labels))
    }
}

/// Whether each server of a Gateway is said to be left out.
fn is_dropped(gateway: &Gateway, findings: &[&Diagnostic]) -> bool {
    let drops =
        |finding: &&&Diagnostic| matches!(finding.code, Code::SERVER_DROPPED | Code::CONFLICTING_GATEWAYS);
    (0..gateway.servers.len()).all(|index| {
        let path = format!("spec.servers[{index}]");
        findings.iter().filter(drops).any(|finding| finding.path.starts_with(&path))
    })
}
