//! TCP and TLS of a service as a sidecar sends it out: the rules of VirtualServices, else the service itself.
//!
//! Invariant: what can be told of a match without a connection (source, gateways, port) is told here; of two matches that ask a
//! connection for the same the first stays (Istio: tls.go `buildSidecarOutboundTLSFilterChainOpts`,
//! `buildSidecarOutboundTCPFilterChainOpts`).

use super::{
    super::{
        l4::covers,
        registry::{Registry, Service, Source},
    },
    chains::{Carries, Draft},
    hosts::short_forms,
    scope::{Egress, Rules},
};
use crate::{
    cluster::ClusterName,
    compile::Identity,
    listener::{ChainMatch, TcpDestination, TcpRoute},
};
use config_model::{
    istio::{service_entry::Resolution, virtual_service::RouteDestination},
    scalar::{PortNumber, Protocol, labels::is_subset_of},
};
use ipnet::IpNet;
use std::{
    collections::{BTreeMap, HashMap, HashSet},
    net::IpAddr,
    sync::Arc,
};

/// Where a listener stands that a service is to have chains on.
#[derive(Clone)]
pub(super) struct At {
    /// Its port; 0 is a unix socket.
    pub(super) port: u16,
    /// What its connections carry.
    pub(super) protocol: Option<Protocol>,
    /// Ranges of addresses that the service has on it; empty: the listener's address says enough.
    pub(super) within: Vec<IpNet>,
    /// Whether the service has no address that tells it from others on the listener.
    pub(super) anywhere: bool,
}

/// Makes the chains.
pub(super) struct Bytes<'b> {
    /// Whose connections they are.
    pub(super) identity: &'b Identity,
    /// All services that the sidecar reaches.
    pub(super) reached: &'b Registry,
    /// Names of Services that stand for another, by that one's host.
    pub(super) aliases: &'b HashMap<String, Vec<Arc<str>>>,
}

impl Bytes<'_> {
    /// The chains of a service on a listener.
    pub(super) fn chains(&self, egress: &Egress<'_>, service: &Service, at: &At) -> Vec<Draft> {
        let rules = egress.rules.iter().filter(|rules| {
            rules.hosts.iter().any(|host| covers(host, &service.host) || covers(&service.host, host))
        });
        let rules: Vec<_> = rules.collect();
        if at.protocol.is_some_and(Protocol::is_tls) {
            self.tls(&rules, service, at)
        } else {
            self.tcp(&rules, service, at)
        }
    }

    fn tls(&self, rules: &[&Rules<'_>], service: &Service, at: &At) -> Vec<Draft> {
        let (mut drafts, mut seen) = (Vec::new(), HashSet::new());
        let mut within = at.within.clone();
        for of_mesh in rules {
            for rule in of_mesh.resource.spec.tls.iter().filter(|rule| !rule.route.is_empty()) {
                for m in &rule.matches {
                    let source = (&m.source_labels, m.source_namespace.as_str());
                    if !self.fits(m.port, &m.gateways, source, at) {
                        continue;
                    }
                    if !m.destination_subnets.is_empty() && at.port > 0 {
                        within = nets(&m.destination_subnets);
                    }
                    if seen.insert((&m.sni_hosts, &m.destination_subnets)) {
                        let names = m.sni_hosts.iter().map(|host| host.as_str().into()).collect();
                        let condition = of(names, &within);
                        drafts.push(Draft::bytes(condition, self.route(of_mesh, &rule.route, at), at));
                    }
                }
            }
        }
        if drafts.is_empty() {
            let told_by_name = !at.within.is_empty() || at.anywhere || is_asked_for(service);
            let names = if told_by_name { self.names(service) } else { Vec::new() };
            drafts.push(Draft::bytes(of(names, &at.within), own_route(service, at), at));
        }
        drafts
    }

    fn tcp(&self, rules: &[&Rules<'_>], service: &Service, at: &At) -> Vec<Draft> {
        let mut drafts = Vec::new();
        for of_mesh in rules {
            for rule in of_mesh.resource.spec.tcp.iter().filter(|rule| !rule.route.is_empty()) {
                let fitting = rule.matches.iter().filter(|m| {
                    self.fits(m.port, &m.gateways, (&m.source_labels, m.source_namespace.as_str()), at)
                });
                let mut within = Vec::new();
                let mut all = rule.matches.is_empty();
                for m in fitting {
                    all |= m.destination_subnets.is_empty() || at.port == 0;
                    within.extend(nets(&m.destination_subnets));
                }
                if all {
                    let route = self.route(of_mesh, &rule.route, at);
                    drafts.push(Draft::bytes(of(Vec::new(), &at.within), route, at));
                    return drafts;
                }
                if !within.is_empty() {
                    let route = self.route(of_mesh, &rule.route, at);
                    drafts.push(Draft::bytes(of(Vec::new(), &within), route, at));
                }
            }
        }
        // Behind a rule for the very same addresses it takes nothing.
        drafts.push(Draft::bytes(of(Vec::new(), &at.within), own_route(service, at), at));
        drafts
    }

    fn fits(
        &self,
        port: Option<PortNumber>,
        gateways: &[String],
        (labels, namespace): (&BTreeMap<String, String>, &str),
        at: &At,
    ) -> bool {
        port.is_none_or(|port| port.get() == at.port)
            && (gateways.is_empty() || gateways.iter().any(|gateway| gateway == "mesh"))
            && is_subset_of(labels, &self.identity.labels)
            && (namespace.is_empty() || namespace == self.identity.namespace)
    }

    fn route(&self, of_mesh: &Rules<'_>, route: &[RouteDestination], at: &At) -> Arc<TcpRoute> {
        let key = &of_mesh.resource.key;
        let single = route.len() == 1;
        let destinations = route.iter().filter_map(|to| {
            let weight = if single { 1 } else { to.weight.get() };
            let port = to.destination.port_number().map(|port| port.get());
            let (host, port) = self.reached.resolve(&to.destination.host, port, &key.namespace, at.port);
            let cluster = ClusterName::outbound(port, &to.destination.subset, &host);
            (weight > 0).then_some(TcpDestination { cluster, weight })
        });
        Arc::new(TcpRoute::new(format!("{}/{}", key.namespace, key.name).into(), destinations.collect()))
    }

    /// The service's own name, and those that stand for it in all their forms.
    fn names(&self, service: &Service) -> Vec<Arc<str>> {
        let mut names = vec![Arc::clone(&service.host)];
        for other in self.aliases.get(&*service.host).into_iter().flatten() {
            names.push(Arc::clone(other));
            let forms = short_forms(other, &self.identity.namespace, &self.identity.domain);
            names.extend(forms.into_iter().map(Arc::from));
        }
        names
    }
}

/// Straight to the service: its only port, or the listener's.
fn own_route(service: &Service, at: &At) -> Arc<TcpRoute> {
    let port = match service.ports.as_slice() {
        [only] => only.number,
        _ => at.port,
    };
    Arc::new(TcpRoute::automatic(ClusterName::outbound(port, "", &service.host)))
}

/// Whether the name that is asked for decides where a connection goes.
fn is_asked_for(service: &Service) -> bool {
    matches!(&service.source, Source::Entries(entries)
        if service.host.starts_with('*')
            && entries.first().is_some_and(|entry| entry.spec.resolution == Resolution::DynamicDns))
}

fn of(server_names: Vec<Arc<str>>, within: &[IpNet]) -> ChainMatch {
    let mut names: Vec<_> = server_names.into_iter().filter(|name| &**name != "*").collect();
    names.sort();
    let mut prefixes = within.to_vec();
    prefixes.sort();
    ChainMatch { prefixes: prefixes.into(), server_names: names.into(), ..ChainMatch::default() }
}

fn nets(written: &[String]) -> Vec<IpNet> {
    let net = |text: &String| text.parse().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from));
    written.iter().filter_map(net).collect()
}

impl Draft {
    fn bytes(condition: ChainMatch, route: Arc<TcpRoute>, at: &At) -> Self {
        let passed = at.protocol.is_some_and(Protocol::is_tls);
        Self { condition, carries: Carries::Bytes { route, passed } }
    }
}
