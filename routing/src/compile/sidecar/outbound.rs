//! Outbound listeners: one for each port of the services that a sidecar reaches, those that its Sidecar gives explicitly, and the one
//! that connections are redirected to.
//!
//! Invariant: HTTP is told apart by names on any address, everything else by the address of the service, by its pods' where it has none of
//! its own, and by server name or first come where it has neither (Istio: listener.go `buildSidecarOutboundListeners`).

use super::{
    super::{
        endpoints::EndpointSources,
        registry::{Service, Source},
        rule::RuleCompiler,
    },
    Making,
    addresses::{Allocated, VirtualAddress, addresses},
    bytes::{At, Bytes},
    chains::{Carries, Draft, Entries, Entry, Offer, TableKey},
    hosts::{Common, Hosts, of_port},
    routes,
    scope::{Egress, Rest, Scope},
};
use crate::{
    cluster::{Address, ClusterName},
    compile::Workload,
    listener::{
        Bind, ChainMatch, Chains, Direction, FilterChain, Listener, ListenerKey, Listeners, Matched,
        PLAIN_HTTP, Reached, TcpRoute,
    },
    table::RouteTable,
};
use config_model::{
    diagnostic::Diagnostics,
    istio::{gateway::ServerTlsMode, service_entry::Resolution, sidecar::CaptureMode},
    scalar::Protocol,
};
use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
};

/// Ports of the proxy itself, on every address.
const RESERVED: [u16; 2] = [15021, 15090];

/// Makes them.
pub(super) struct Outbound<'o> {
    pub(super) scope: &'o Scope<'o>,
    pub(super) workload: &'o Workload,
    pub(super) sources: &'o EndpointSources<'o>,
    pub(super) bytes: Bytes<'o>,
    pub(super) making: &'o Making,
    pub(super) allocated: Allocated,
}

/// Where the services of an egress listener are listened for.
#[derive(Clone)]
struct Place {
    /// As written; `None`: at the addresses of services.
    bind: Option<Bind>,
    bound: bool,
}

impl Outbound<'_> {
    /// All listeners. Their tables are made with `rules`.
    pub(super) fn listeners<'r>(
        &self,
        entries: Entries,
        views: &'r Views,
        rules: &mut RuleCompiler<'r>,
        common: &Common<'_>,
        findings: &mut Diagnostics,
    ) -> Listeners {
        let tables = self.tables(&entries, views, rules, common, findings);
        let mut listeners = Listeners::new();
        let mut add = |key: &ListenerKey, reached, chains: Matched| {
            let (key, chains) = (key.clone(), Chains::Matched(Arc::new(chains)));
            let listener = Listener { key: key.clone(), direction: Direction::Outbound, reached, chains };
            listeners.insert(key, Arc::new(listener));
        };
        for (key, entry) in entries.finish() {
            let reached = if entry.bound { Reached::Bound } else { Reached::HandedOver };
            add(&key, reached, self.chains(&key, entry, &tables));
        }
        let key = ListenerKey { bind: Bind::Any, port: self.workload.outbound };
        // What is meant for that port itself would come back for ever.
        let own = ChainMatch { port: Some(key.port), ..ChainMatch::default() };
        let black_hole = self.to_cluster("virtualOutbound-blackhole", ClusterName::black_hole());
        let rest = self.to_cluster("virtualOutbound-catchall-tcp", self.of_the_rest());
        let mut chains = vec![(own, black_hole)];
        if matches!(self.scope.rest, Rest::Named) {
            // Istio: listener_builder.go `buildAllowAnyDynamicDNSHTTPFilterChain`.
            let requests = ChainMatch { protocols: PLAIN_HTTP.into(), ..ChainMatch::default() };
            let host = routes::of_the_rest(&self.scope.rest, || self.of_the_rest());
            let table = RouteTable::new("allow_any_dynamic_dns", [host]);
            let chain = self.making.requests("virtualOutbound-catchall-tcp-http", 0, Arc::new(table));
            chains.push((requests, Arc::new(chain)));
        }
        add(&key, Reached::Redirected, Matched::new(chains, Some(rest)));
        listeners
    }

    /// Which services each table is made of.
    pub(super) fn views(&self, entries: &Entries, domain: &str) -> Views {
        let mut views = Views::new();
        for table in entries.tables() {
            if let Some(egress) = self.scope.egress.get(table.egress) {
                views
                    .entry((table.egress, table.port))
                    .or_insert_with(|| of_port(egress, table.port, domain));
            }
        }
        views
    }

    fn tables<'r>(
        &self,
        entries: &Entries,
        views: &'r Views,
        rules: &mut RuleCompiler<'r>,
        common: &Common<'_>,
        findings: &mut Diagnostics,
    ) -> BTreeMap<TableKey, Arc<RouteTable>> {
        let others = routes::of_the_rest(&self.scope.rest, || self.of_the_rest());
        let mut hosts: BTreeMap<(usize, u16), Hosts> = BTreeMap::new();
        for (at, services) in views {
            let Some(egress) = self.scope.egress.get(at.0) else { continue };
            rules.among(services);
            hosts.insert(*at, Hosts::new(egress, at.1, services, rules, common, findings));
        }
        let mut tables = BTreeMap::new();
        for key in entries.tables() {
            let Some(hosts) = hosts.get(&(key.egress, key.port)) else { continue };
            tables.entry(key.clone()).or_insert_with(|| {
                Arc::new(match &key.service {
                    Some(service) => hosts.of_service(&key.name, service, key.port),
                    None => hosts.shared(&key.name, Arc::clone(&others)),
                })
            });
        }
        tables
    }

    /// The listeners before their tables are made.
    pub(super) fn entries(&self) -> Entries {
        let mut entries = Entries::default();
        for (number, egress) in self.scope.egress.iter().enumerate() {
            let place = place_of(egress);
            if let Some(port) = egress.listener.and_then(|listener| listener.port.as_ref()) {
                let number_of_port = port.number.map_or(0, |number| number.get());
                let protocol = Protocol::parse(&port.protocol);
                for service in &egress.services {
                    self.service(&mut entries, number, service, (number_of_port, protocol), &place);
                }
                continue;
            }
            entries.lock();
            for service in &egress.services {
                for port in &service.ports {
                    let at = (port.number, port.protocol);
                    if place.bind.is_none() && self.has_pods_only(service, port.protocol) {
                        self.pods(&mut entries, number, service, at);
                    } else {
                        self.service(&mut entries, number, service, at, &place);
                    }
                }
            }
        }
        entries
    }

    /// A service that has no address: each of its pods is listened for.
    fn pods(
        &self,
        entries: &mut Entries,
        egress: usize,
        service: &Service,
        (port, protocol): (u16, Option<Protocol>),
    ) {
        let known = service.ports.iter().find(|known| known.number == port);
        let resolved = known.and_then(|known| self.sources.of(service, known));
        let endpoints = resolved.map(|resolved| resolved.endpoints).unwrap_or_default();
        let own = self.workload.addresses.first();
        let mut ips: Vec<IpAddr> = endpoints
            .iter()
            .filter_map(|endpoint| match endpoint.address {
                Address::Ip(at) => Some(at.ip()),
                Address::Name(..) | Address::Unix(_) => None,
            })
            // What it asks of itself does not leave the pod.
            .filter(|ip| Some(ip) != own)
            .collect();
        ips.sort();
        ips.dedup();
        if ips.is_empty() && is_unresolved(service) {
            return self.service(
                entries,
                egress,
                service,
                (port, protocol),
                &Place { bind: None, bound: false },
            );
        }
        for ip in ips {
            let place = Place { bind: Some(Bind::Ip(ip)), bound: false };
            self.service(entries, egress, service, (port, protocol), &place);
        }
    }

    fn service(
        &self,
        entries: &mut Entries,
        number: usize,
        service: &Service,
        (port, protocol): (u16, Option<Protocol>),
        place: &Place,
    ) {
        // Another name of a service is no service.
        let (Some(egress), None) = (self.scope.egress.get(number), service.alias_of()) else { return };
        let http = protocol.is_some_and(Protocol::is_http);
        let own = if http || place.bind.is_some() { Vec::new() } else { addresses(service, self.allocated) };
        let mut wheres: Vec<(Bind, At)> = Vec::new();
        let at = At { port, protocol, within: Vec::new(), anywhere: false };
        for address in &own {
            wheres.push(match address {
                VirtualAddress::Ip(ip) => (bind(*ip), at.clone()),
                VirtualAddress::Net(net) => (Bind::Any, At { within: vec![*net], ..at.clone() }),
            });
        }
        if own.is_empty() {
            let bind = place.bind.clone().unwrap_or(Bind::Any);
            let anywhere = bind == Bind::Any && addresses(service, self.allocated).is_empty();
            wheres.push((bind, At { anywhere, ..at }));
        }
        for (bind, at) in wheres {
            if !place.bound && bind == Bind::Any && self.is_reserved(port) {
                continue;
            }
            let offer =
                Offer { key: ListenerKey { bind: bind.clone(), port }, port, bound: place.bound, protocol };
            let table = table(number, service, &bind, port, protocol);
            entries.add(offer, table, || self.bytes.chains(egress, service, &at));
        }
    }

    /// Whether a port is listened for on the addresses of pods: nothing else tells the service from others.
    fn has_pods_only(&self, service: &Service, protocol: Option<Protocol>) -> bool {
        let passes = match &service.source {
            Source::Kubernetes(resource) => resource.spec.is_headless(),
            Source::Entries(entries) => {
                entries.first().is_some_and(|entry| entry.spec.resolution == Resolution::None)
            }
        };
        passes && addresses(service, self.allocated).is_empty() && !protocol.is_some_and(Protocol::is_http)
    }

    fn is_reserved(&self, port: u16) -> bool {
        RESERVED.contains(&port) || [self.workload.outbound, self.workload.inbound].contains(&port)
    }

    fn chains(
        &self,
        key: &ListenerKey,
        entry: Entry,
        tables: &BTreeMap<TableKey, Arc<RouteTable>>,
    ) -> Matched {
        let name = key.to_string();
        let mut otherwise = None;
        let mut all = Vec::new();
        for Draft { condition, carries } in entry.chains {
            let chain = match carries {
                Carries::Requests(table) => {
                    let Some(table) = tables.get(&table) else { continue };
                    self.making.requests(&name, entry.port, Arc::clone(table))
                }
                Carries::Bytes { route, passed } => FilterChain {
                    mode: passed.then_some(ServerTlsMode::Passthrough),
                    ..self.making.bytes(&name, entry.port, route)
                },
            };
            if condition == ChainMatch::default() {
                otherwise.get_or_insert(Arc::new(chain));
            } else {
                all.push((condition, Arc::new(chain)));
            }
        }
        let rest = || self.to_cluster("PassthroughFilterChain", self.of_the_rest());
        Matched::new(all, Some(otherwise.unwrap_or_else(rest)))
    }

    /// The cluster of what no service has (Istio: listener_builder.go `buildOutboundCatchAllNetworkFiltersOnly`).
    fn of_the_rest(&self) -> ClusterName {
        match self.scope.rest {
            Rest::Passes | Rest::Named => ClusterName::passthrough(),
            Rest::Ends => ClusterName::black_hole(),
            Rest::Proxied(to) => {
                let port = to.port_number().map_or(0, |port| port.get());
                ClusterName::outbound(port, &to.subset, to.host.as_str())
            }
        }
    }

    fn to_cluster(&self, name: &str, cluster: ClusterName) -> Arc<FilterChain> {
        Arc::new(self.making.bytes(name, 0, Arc::new(TcpRoute::automatic(cluster))))
    }
}

/// The services that tables are made of, by the number of the egress listener and the port.
pub(super) type Views = BTreeMap<(usize, u16), super::super::registry::Registry>;

/// Istio: where an egress listener stands that says so itself.
fn place_of(egress: &Egress<'_>) -> Place {
    let Some(listener) = egress.listener else { return Place { bind: None, bound: false } };
    let unix = listener.bind.strip_prefix("unix://");
    let bound = listener.capture_mode == CaptureMode::None || unix.is_some();
    let written = match unix {
        Some(path) => Some(Bind::Unix(path.into())),
        None => listener.bind.parse().ok().map(bind),
    };
    let loopback = || Bind::Ip(IpAddr::V4(Ipv4Addr::LOCALHOST));
    Place { bind: written.or_else(|| bound.then(loopback)), bound }
}

fn bind(ip: IpAddr) -> Bind {
    if ip.is_unspecified() { Bind::Any } else { Bind::Ip(ip) }
}

/// A ServiceEntry that neither gives addresses nor selects workloads.
fn is_unresolved(service: &Service) -> bool {
    match &service.source {
        Source::Kubernetes(_) => false,
        Source::Entries(entries) => entries.iter().all(|entry| entry.spec.workload_selector.is_none()),
    }
}

/// Istio: listener.go `buildSidecarOutboundHTTPListenerOpts`, and the names of routes in httproute.go.
fn table(egress: usize, service: &Service, bind: &Bind, port: u16, protocol: Option<Protocol>) -> TableKey {
    let told_by = if protocol == Some(Protocol::HttpProxy) { 0 } else { port };
    match bind {
        Bind::Unix(path) => {
            TableKey { egress, port: 0, service: None, name: format!("unix://{path}").into() }
        }
        Bind::Ip(_) if protocol.is_none() => {
            let name = format!("{}:{port}", service.host).into();
            TableKey { egress, port, service: Some(Arc::clone(&service.host)), name }
        }
        Bind::Any | Bind::Ip(_) => {
            TableKey { egress, port: told_by, service: None, name: port.to_string().into() }
        }
    }
}
