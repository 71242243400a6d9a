//! From validated resources to what is served: listeners with their tables, and clusters.
//!
//! Invariant: total. Whatever validation let through compiles to something; what cannot be served is a finding and hurts
//! nothing else. Compiling the same input twice gives the same, and shares with the earlier result what did not change.

mod actions;
mod attachment;
mod authentication;
mod authorization;
mod clusters;
mod delegate;
mod endpoints;
mod l4;
mod locality;
mod registry;
mod rule;
mod rules;
mod servers;
mod tables;
#[cfg(test)]
mod testing;
mod tls;
mod traffic;
mod upstream_tls;
mod visibility;

use crate::{
    authn::Authentication,
    authz::Authorization,
    cluster::{Cluster, ClusterName},
    host::HostIndex,
    listener::{Bind, Chains, FilterChain, Listener, ListenerKey, Listeners, TcpRoute},
};
use config_model::{
    diagnostic::{Code, Diagnostic, Diagnostics},
    parse::locate,
    validate::Validated,
};
use foldhash::fast::FixedState;
use servers::{BoundServer, Serves};
use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};
use tables::{Bindings, Cache, TableBuilder};

/// All clusters by name; in no order.
pub type Clusters = HashMap<ClusterName, Arc<Cluster>, FixedState>;

/// Who this gateway is: what selectors and visibility are judged by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Namespace of the gateway's pods.
    pub namespace: String,
    /// Labels of the gateway's pods.
    pub labels: BTreeMap<String, String>,
    /// DNS domain of the cluster, the end of every Service's name.
    pub domain: String,
}

impl Default for Identity {
    /// Istio's own ingress gateway.
    fn default() -> Self {
        let label = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        Self {
            namespace: "istio-system".to_owned(),
            labels: [label("app", "istio-ingressgateway"), label("istio", "ingressgateway")].into(),
            domain: "cluster.local".to_owned(),
        }
    }
}

/// Everything that is served.
#[derive(Debug)]
pub struct Compiled {
    /// Listeners by address.
    pub listeners: Listeners,
    /// Clusters by name. A route may name one that is not here: 503 NC.
    pub clusters: Clusters,
    /// Whose tokens are taken, on every listener.
    pub authentication: Arc<Authentication>,
    /// Who may do what, on every listener.
    pub authorization: Arc<Authorization>,
    identity: Identity,
    cache: Cache,
}

impl Compiled {
    /// The cluster of that name.
    #[must_use]
    pub fn cluster(&self, name: &ClusterName) -> Option<&Arc<Cluster>> {
        self.clusters.get(name)
    }

    /// Who it was compiled for.
    #[must_use]
    pub fn identity(&self) -> &Identity {
        &self.identity
    }
}

/// Compiles what `identity` serves of `input`. Whatever of `previous` is still so is shared with it: clusters, virtual
/// hosts, tables and TLS settings are the same `Arc` when nothing they were made of changed.
pub fn compile(
    input: &Validated,
    identity: &Identity,
    previous: Option<&Compiled>,
) -> (Compiled, Diagnostics) {
    let previous = previous.filter(|previous| previous.identity == *identity);
    let mut findings = Vec::new();
    let registry = registry::Registry::new(input, identity);
    let bindings = Bindings::new(input, identity);
    let bound = servers::bind(input, identity, &mut findings);
    let passing: Vec<_> = bound.values().flatten().filter(|s| s.serves == Serves::AutoPassthrough).collect();
    let (old, passed) = (previous.map(|p| &p.clusters), |host: &str| passing.iter().any(|s| s.covers(host)));
    let clusters = clusters::build(input, identity, &registry, old, &passed, &mut findings);
    let authentication = Arc::new(authentication::compile(input, identity));
    let authorization = Arc::new(authorization::compile(input, identity, &registry, &mut findings));
    let l4 = l4::L4::new(input, identity, &registry);
    let rules = {
        let delegates = delegate::Delegates::new(input, &identity.domain);
        rule::RuleCompiler::new(&registry, identity, input.mesh(), delegates)
    };
    let mut tables = TableBuilder::new(rules, &bindings, &identity.domain, previous.map(|p| &p.cache));
    let mut listeners = Listeners::new();
    for (key, servers) in &bound {
        let old = previous.and_then(|previous| previous.listeners.get(key));
        if let Some(chains) = chains(key, servers, old, &mut tables, (&l4, &clusters), &mut findings) {
            listeners.insert(key.clone(), Arc::new(Listener { key: key.clone(), chains }));
        }
    }
    let compiled = Compiled {
        listeners,
        clusters,
        authentication,
        authorization,
        identity: identity.clone(),
        cache: tables.into_cache(),
    };
    (compiled, diagnostics(findings))
}

/// The chains of one listener: one for all on plain text, else one for each server by SNI.
fn chains(
    key: &ListenerKey,
    servers: &[BoundServer<'_>],
    old: Option<&Arc<Listener>>,
    tables: &mut TableBuilder<'_, '_>,
    (l4, clusters): (&l4::L4<'_, '_>, &Clusters),
    findings: &mut Vec<Diagnostic>,
) -> Option<Chains> {
    let first = servers.first()?;
    if first.serves == Serves::Tcp {
        // One that no rule is for is not listened on (Istio: no filter chain, no listener).
        let route = l4.tcp(first)?;
        return Some(Chains::Http(Arc::new(bytes(first, route))));
    }
    let suffix = match &key.bind {
        Bind::Any => String::new(),
        Bind::Ip(ip) => format!(".{ip}"),
        Bind::Unix(path) => format!(".{path}"),
    };
    if first.serves == Serves::Http {
        let name = format!("http.{}{suffix}", key.port);
        let all: Vec<_> = servers.iter().collect();
        let table = tables.table(&key.to_string().into(), &name, first.port, &all, findings);
        return Some(Chains::Http(Arc::new(chain(first, table))));
    }
    let mut index: HostIndex<Arc<FilterChain>> = HostIndex::new();
    for server in servers {
        let gateway = &server.gateway.key;
        if server.serves == Serves::Passthrough {
            passed_through(server, l4, &mut index, findings);
            continue;
        }
        if server.serves == Serves::AutoPassthrough {
            passed_on(server, clusters, &mut index);
            continue;
        }
        let (port, port_name) = (server.port, &server.server.port.name);
        let name = format!("https.{port}.{port_name}.{}.{}{suffix}", gateway.name, gateway.namespace);
        let mut made = if server.serves == Serves::TerminatedTcp {
            let Some(route) = l4.tcp(server) else { continue };
            bytes(server, route)
        } else {
            let table_key = format!("{key}/{}/{}", server.gateway_name(), server.index);
            let table = tables.table(&table_key.into(), &name, port, &[server], findings);
            chain(server, table)
        };
        made.tls = made.tls.map(|tls| shared_tls(old, &tls).unwrap_or(tls));
        let made = Arc::new(made);
        for host in &server.hosts {
            // `a/*` and `b/*` differ as hosts, and both are any name to a client: the first stays.
            match index.get(host.host) {
                None => {
                    index.insert(host.host, Arc::clone(&made));
                }
                Some(taken) if !Arc::ptr_eq(taken, &made) => {
                    let message = format!(
                        "Conflict with gateway {}: server name {:?} on port {port} is already taken",
                        taken.gateway, host.host
                    );
                    let finding = Diagnostic::new(Code::CONFLICTING_GATEWAYS, message)
                        .about(gateway, &server.gateway.origin)
                        .at(format!("spec.servers[{}].hosts", server.index));
                    findings.push(finding);
                }
                Some(_) => {}
            }
        }
    }
    (!index.is_empty()).then_some(Chains::Tls(index))
}

/// A chain for each server name of each TLS match; a match with a name that is taken is left out whole (Istio:
/// gateway.go `buildGatewayNetworkFiltersFromTLSRoutes`).
fn passed_through(
    server: &BoundServer<'_>,
    l4: &l4::L4<'_, '_>,
    index: &mut HostIndex<Arc<FilterChain>>,
    findings: &mut Vec<Diagnostic>,
) {
    for (names, route) in l4.tls(server) {
        if let Some((name, taken)) = names.iter().find_map(|name| index.get(name).map(|by| (name, by))) {
            let message = format!(
                "server name {name:?} on port {} is already taken by gateway {}: this match of VirtualService {} is left out",
                server.port,
                taken.gateway,
                route.virtual_service().unwrap_or_default()
            );
            let finding = Diagnostic::new(Code::CONFLICTING_GATEWAYS, message)
                .about(&server.gateway.key, &server.gateway.origin)
                .at(format!("spec.servers[{}].hosts", server.index));
            findings.push(finding);
            continue;
        }
        let made = Arc::new(bytes(server, route));
        for name in &names {
            index.insert(name, Arc::clone(&made));
        }
    }
}

/// A chain for each cluster whose host a server covers, under the cluster's own name (Istio: gateway.go
/// `builtAutoPassthroughFilterChains`). A name that is taken stays whose it is: another server of this mode leads to the same place,
/// and a rule that names a cluster's server name means it.
fn passed_on(server: &BoundServer<'_>, clusters: &Clusters, index: &mut HostIndex<Arc<FilterChain>>) {
    let passed = clusters.values().map(|cluster| &cluster.spec);
    let mut covered: Vec<_> =
        passed.filter(|spec| spec.name.is_passed_on() && server.covers(&spec.host)).collect();
    covered.sort_by(|a, b| a.name.cmp(&b.name));
    for spec in covered {
        let name = spec.name.as_str();
        if index.get(name).is_none() {
            index.insert(name, Arc::new(bytes(server, Arc::new(TcpRoute::automatic(spec.name.clone())))));
        }
    }
}

/// A chain whose connections are not looked into.
fn bytes(server: &BoundServer<'_>, route: Arc<TcpRoute>) -> FilterChain {
    let name = format!("tcp.{}", server.port);
    let table = Arc::new(crate::table::RouteTable::new(name, []));
    FilterChain { tcp: Some(route), ..chain(server, table) }
}

fn chain(server: &BoundServer<'_>, table: Arc<crate::table::RouteTable>) -> FilterChain {
    let name = &server.server.name;
    FilterChain {
        gateway: server.gateway_name().into(),
        server: if name.is_empty() { server.server.port.name.as_str() } else { name }.into(),
        server_port: server.port,
        mode: server.mode(),
        tls: server.tls.clone(),
        tcp: None,
        table,
    }
}

/// Equal TLS settings of the listener as it was: whoever keeps an acceptor by them keeps it.
fn shared_tls(
    old: Option<&Arc<Listener>>,
    tls: &crate::listener::ServerTls,
) -> Option<Arc<crate::listener::ServerTls>> {
    let Chains::Tls(index) = &old?.chains else { return None };
    index.iter().filter_map(|(_, chain)| chain.tls.as_ref()).find(|known| ***known == *tls).cloned()
}

/// In the order of files, each finding once: a VirtualService on two ports is compiled twice.
fn diagnostics(findings: Vec<Diagnostic>) -> Diagnostics {
    let mut all: Diagnostics = findings.into_iter().collect();
    locate::place(&mut all);
    all.sort();
    let mut unique: Vec<Diagnostic> = Vec::with_capacity(all.len());
    for finding in all {
        if unique.last() != Some(&finding) {
            unique.push(finding);
        }
    }
    unique.into_iter().collect()
}
