//! From validated resources to what is served: listeners with their tables, and clusters.
//!
//! Invariant: total. Whatever validation let through compiles to something; what cannot be served is a finding and hurts
//! nothing else. What comes out depends on the input alone, never on what was compiled before; but what did not change since then is shared
//! with it.

mod actions;
mod annotations;
mod attachment;
mod authentication;
mod authorization;
mod bindings;
mod clusters;
mod delegate;
mod endpoints;
mod identity;
mod input;
mod l4;
mod locality;
mod networks;
mod registry;
mod rule;
mod rules;
mod server_index;
mod servers;
mod shown;
mod sidecar;
mod tables;
#[cfg(test)]
mod testing;
mod tls;
mod traffic;
mod upstream_tls;
mod visibility;

use crate::{
    annotated::{self, Annotated},
    authn::Authentication,
    authz::Authorization,
    cluster::{Cluster, ClusterName},
    host::HostIndex,
    listener::{Bind, Chains, FilterChain, Listener, ListenerKey, Listeners, ServerTls, TcpRoute},
};
pub use identity::{Identity, Role, Workload, WorkloadFiles};

use bindings::Bindings;
use config_model::{
    diagnostic::{Code, Diagnostic, Diagnostics},
    meta::Kind,
    parse::locate,
    validate::Validated,
};
use foldhash::fast::FixedState;
use input::Input;
use registry::Registry;
use servers::{Bound, BoundServer, Ports, Serves};
use shown::{Shows, Steady};
use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};
use tables::{TableBuilder, Tables};

/// All clusters by name; in no order.
pub type Clusters = HashMap<ClusterName, Arc<Cluster>, FixedState>;

/// Everything that is served.
#[derive(Clone, Debug, Default)]
pub struct Compiled {
    /// Listeners by address.
    pub listeners: Listeners,
    /// Clusters by name. A route may name one that is not here: 503 NC.
    pub clusters: Arc<Clusters>,
    /// Whose tokens are taken, on every listener.
    pub authentication: Arc<Authentication>,
    /// Who may do what, on every listener.
    pub authorization: Arc<Authorization>,
    /// What annotations ask for, of all resources.
    pub annotated: Arc<annotated::Index>,
    identity: Identity,
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

/// Compiles what `identity` serves of `input`.
pub fn compile(input: &Validated, identity: &Identity) -> (Compiled, Diagnostics) {
    Compiler::new(identity.clone()).compile(input)
}

/// Compiles one configuration after the other for one gateway.
///
/// What it makes depends on the configuration alone; what it does for it depends on what has changed since the one before. A part
/// is made anew when one of the resources that it is made of is another object, and is the same `Arc` as before when it comes out equal.
#[derive(Debug)]
pub struct Compiler {
    identity: Identity,
    input: Option<Validated>,
    registry: Registry,
    bindings: Bindings,
    makers: clusters::Maker,
    shows: Shows,
    tables: Tables,
    served: Served,
    /// What the sidecar role served last, which is made whole each time.
    beside: Option<Compiled>,
}

/// What was compiled last, and what of it was made of more than resources.
#[derive(Debug, Default)]
struct Served {
    listeners: Listeners,
    clusters: Arc<Clusters>,
    /// Ports of the gateway's own Services.
    ports: Ports,
    /// Hosts of the servers that pass TLS on by server name.
    passing: Vec<String>,
    /// The clusters that they pass it on to, sorted.
    passed: Vec<ClusterName>,
    authentication: Arc<Authentication>,
    authorization: Arc<Authorization>,
    annotated: Arc<annotated::Index>,
    of_annotations: Diagnostics,
    of_policies: Diagnostics,
    of_clusters: Diagnostics,
    of_listeners: Diagnostics,
}

impl Compiler {
    /// A compiler for the gateway of this identity.
    #[must_use]
    pub fn new(identity: Identity) -> Self {
        Self {
            identity,
            input: None,
            registry: Registry::default(),
            bindings: Bindings::default(),
            makers: clusters::Maker::default(),
            shows: Shows::default(),
            tables: Tables::default(),
            served: Served::default(),
            beside: None,
        }
    }

    /// Compiles the next configuration.
    pub fn compile(&mut self, now: &Validated) -> (Compiled, Diagnostics) {
        if let Role::Sidecar(workload) = &self.identity.role {
            let (compiled, findings) = sidecar::compile(now, &self.identity, workload, self.beside.as_ref());
            self.beside = Some(compiled.clone());
            return (compiled, findings);
        }
        let before = self.input.replace(now.clone());
        let identity = self.identity.clone();
        let input = Input::new(now, &identity, before.as_ref());
        if !input.shares(&Registry::KINDS) {
            self.registry = Registry::new(now, &identity);
        }
        self.bindings.follow(&input);
        let ports = Ports::new(now, &identity);
        let same_servers = input.shares(&[Kind::Gateway]) && ports == self.served.ports;
        self.served.ports = ports;
        let bind = |ports: &Ports| {
            let mut findings = Vec::new();
            let bound = servers::bind(now, &identity, ports, &mut findings);
            (bound, findings)
        };
        let mut bound = (!same_servers).then(|| bind(&self.served.ports));
        if let Some((bound, _)) = &bound {
            self.served.passing = passing(bound);
        }
        if !(same_servers && input.shares(&clusters::Maker::KINDS)) {
            self.clusters(&input);
        }
        self.policies(&input);
        let passed = passed(&self.served);
        let same_routes = input.shares(&Bindings::KINDS) && input.shares(&Registry::KINDS);
        if !(same_servers && same_routes && passed == self.served.passed) {
            self.served.passed = passed;
            let (bound, findings) = bound.take().unwrap_or_else(|| bind(&self.served.ports));
            self.listeners(&input, &bound, findings);
        }
        let mut findings = self.served.of_clusters.clone();
        findings.share(&self.served.of_listeners);
        findings.share(&self.served.of_policies);
        findings.share(&self.served.of_annotations);
        let compiled = Compiled {
            listeners: self.served.listeners.clone(),
            clusters: Arc::clone(&self.served.clusters),
            authentication: Arc::clone(&self.served.authentication),
            authorization: Arc::clone(&self.served.authorization),
            annotated: Arc::clone(&self.served.annotated),
            identity,
        };
        (compiled, in_order(findings))
    }

    fn policies(&mut self, input: &Input<'_>) {
        let (now, identity, served) = (input.now, input.identity, &mut self.served);
        if !input.shares(&[Kind::RequestAuthentication]) {
            served.authentication = Arc::new(authentication::compile(now, identity));
        }
        // Providers are found by their Services.
        if !(input.shares(&[Kind::AuthorizationPolicy]) && input.shares(&Registry::KINDS)) {
            let mut findings = Vec::new();
            let authorization = authorization::compile(now, identity, &self.registry, &mut findings);
            served.authorization = Arc::new(authorization);
            served.of_policies = findings.into_iter().collect();
            locate::place(&mut served.of_policies);
        }
        if !input.shares(&[Kind::VirtualService, Kind::Gateway, Kind::ConfigMap]) {
            let (index, mut findings) = annotations::compile(now);
            locate::place(&mut findings);
            served.annotated = Arc::new(index);
            served.of_annotations = findings;
        }
    }

    fn clusters(&mut self, input: &Input<'_>) {
        let passing = &self.served.passing;
        let passes = |host: &str| passing.iter().any(|pattern| l4::covers(pattern, host));
        let mut findings = Diagnostics::new();
        let clusters = self.makers.follow(input, &self.registry, &passes, &mut findings);
        self.served.clusters = Arc::new(clusters);
        self.served.of_clusters = findings;
    }

    fn listeners(&mut self, input: &Input<'_>, bound: &Bound<'_>, mut own: Vec<Diagnostic>) {
        let Self { identity, registry, bindings, shows, tables, served, .. } = self;
        let steady = if input.shares(&Registry::KINDS) { Steady::Yes } else { Steady::No };
        let l4 = l4::L4::new(identity, registry, bindings);
        let mesh = input.now.mesh();
        let delegates = delegate::Delegates::new(bindings.delegation(), mesh, &identity.domain);
        let rules = rule::RuleCompiler::new(registry, identity, mesh, &delegates);
        let mut findings = Diagnostics::new();
        let mut builder = tables.begin(shows, bound, bindings, rules, steady, &mut findings);
        let mut listeners = Listeners::new();
        for (key, servers) in bound {
            let old = served.listeners.get(key);
            let of = (&l4, &*served.clusters);
            if let Some(chains) = chains(key, servers, old, &mut builder, of, &mut own) {
                listeners.insert(key.clone(), Arc::new(Listener::of_gateway(key.clone(), chains)));
            }
        }
        tables.end(builder);
        findings.extend(own);
        locate::place(&mut findings);
        served.listeners = listeners;
        served.of_listeners = findings;
    }
}

/// Hosts of the servers that pass TLS on by server name.
fn passing(bound: &Bound<'_>) -> Vec<String> {
    let servers = bound.values().flatten().filter(|server| server.serves == Serves::AutoPassthrough);
    servers.flat_map(|server| &server.hosts).map(|admitted| admitted.host.to_owned()).collect()
}

/// The clusters that TLS can be passed on to, sorted.
fn passed(served: &Served) -> Vec<ClusterName> {
    if served.passing.is_empty() {
        return Vec::new();
    }
    let mut names: Vec<_> = served.clusters.keys().filter(|name| name.is_passed_on()).cloned().collect();
    names.sort();
    names
}

/// The chains of one listener: one for all on plain text, else one for each server by SNI.
fn chains(
    key: &ListenerKey,
    servers: &[BoundServer<'_>],
    old: Option<&Arc<Listener>>,
    tables: &mut TableBuilder<'_>,
    (l4, clusters): (&l4::L4<'_>, &Clusters),
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
        let table = tables.table(&key.to_string().into(), &name, first.port, &all);
        return Some(Chains::Http(Arc::new(chain(first, table))));
    }
    let mut index: HostIndex<Arc<FilterChain>> = HostIndex::new();
    let known = tls_of(old);
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
            let table = tables.table(&table_key.into(), &name, port, &[server]);
            chain(server, table)
        };
        // Whoever keeps an acceptor by these settings keeps it.
        made.tls = made.tls.map(|tls| known.get(&tls).copied().cloned().unwrap_or(tls));
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
    l4: &l4::L4<'_>,
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
        policies: Annotated::of(Kind::Gateway, &server.gateway.meta),
    }
}

/// The TLS settings of a listener as it was.
fn tls_of(old: Option<&Arc<Listener>>) -> HashSet<&Arc<ServerTls>> {
    match old.map(|old| &old.chains) {
        Some(Chains::Tls(index)) => index.iter().filter_map(|(_, chain)| chain.tls.as_ref()).collect(),
        Some(Chains::Http(_) | Chains::Matched(_)) | None => HashSet::new(),
    }
}

/// In the order of files, each finding once: a VirtualService on two ports is compiled twice.
fn in_order(mut all: Diagnostics) -> Diagnostics {
    all.sort();
    let mut unique: Vec<Arc<Diagnostic>> = Vec::with_capacity(all.len());
    for finding in all {
        if unique.last() != Some(&finding) {
            unique.push(finding);
        }
    }
    unique.into_iter().collect()
}
