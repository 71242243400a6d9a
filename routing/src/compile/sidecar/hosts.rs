//! Virtual hosts of a sidecar: which names of which services a listener knows, and what VirtualServices say about them.
//!
//! Invariant: of two that want one domain the first has it: those of VirtualServices in their order, then services by name (Istio:
//! httproute.go `BuildSidecarOutboundVirtualHosts`). Rules of several VirtualServices for one host are never joined.

use super::{
    super::{
        l4::covers,
        registry::{Registry, Service, Source},
        rule::{RuleCompiler, Site},
    },
    addresses::{Allocated, addresses},
    routes::Plain,
    scope::{Egress, Rules},
};
use crate::{
    request::Scheme,
    route::Route,
    table::{Ports, RouteTable, VirtualHost},
};
use config_model::{diagnostic::Diagnostics, scalar::Protocol};
use std::{
    borrow::Cow,
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};

/// What all tables of a sidecar are made with.
pub(super) struct Common<'c> {
    /// Namespace of the workload.
    pub(super) namespace: &'c str,
    /// DNS domain of the cluster.
    pub(super) domain: &'c str,
    /// Routes that no VirtualService makes.
    pub(super) plain: &'c Plain,
    /// Other names of services, by their host.
    pub(super) aliases: &'c HashMap<String, Vec<Arc<str>>>,
    /// Whether allocated addresses count.
    pub(super) allocated: Allocated,
}

/// The virtual hosts of one port of an egress listener.
pub(super) struct Hosts {
    ports: Ports,
    list: Vec<Named>,
}

/// A virtual host with its domains.
struct Named {
    /// The service that it is; `None`: it is a VirtualService's only.
    service: Option<Arc<str>>,
    port: u16,
    domains: Vec<String>,
    host: Arc<VirtualHost>,
}

/// Virtual hosts that have the same routes.
struct Group<'g> {
    port: u16,
    services: Vec<&'g Service>,
    /// Hosts of the VirtualService that no service has.
    others: Vec<Arc<str>>,
    routes: Vec<Arc<Route>>,
}

/// The services of an egress listener as one of its ports sees them; 0 is for all of their ports.
pub(super) fn of_port(egress: &Egress<'_>, port: u16, domain: &str) -> Registry {
    let seen = egress.services.iter().filter_map(|service| match port {
        0 => Some(Cow::into_owned(service.clone())),
        _ => service.with_ports(|number| number == port),
    });
    Registry::of(seen, domain)
}

impl Hosts {
    /// Those of `services`, which are what a listener of this port sees; 0 is for all of their ports.
    pub(super) fn new(
        egress: &Egress<'_>,
        port: u16,
        services: &Registry,
        rules: &mut RuleCompiler<'_>,
        common: &Common<'_>,
        findings: &mut Diagnostics,
    ) -> Self {
        let groups = groups(egress, port, services, rules, common, findings);
        let ports = if port == 0 { Ports::Counted } else { Ports::Ignored };
        let mut naming = Naming::new(&groups, ports, common);
        let mut list = Vec::new();
        for group in &groups {
            for name in &group.others {
                // Names of none of the services are for port 80 only where ports are told apart.
                let domains = if ports == Ports::Counted && group.port != 80 {
                    Vec::new()
                } else {
                    vec![bracketed(name).into_owned()]
                };
                list.extend(naming.name(name, None, domains, &[], group));
            }
            for service in &group.services {
                let (domains, alternates) = naming.domains(service, group.port);
                list.extend(naming.name(&service.host, Some(service), domains, &alternates, group));
            }
        }
        Self { ports, list }
    }

    /// The table of a listener that all of them share; the rest is for `others`.
    pub(super) fn shared(&self, name: &str, others: Arc<VirtualHost>) -> RouteTable {
        let own = self.list.iter().map(|named| (named.domains.clone(), Arc::clone(&named.host)));
        let rest = std::iter::once((vec!["*".to_owned()], others));
        RouteTable::with_domains(name, self.ports, own.chain(rest))
    }

    /// The table of a listener of one service alone: whatever name is asked for, it is that.
    pub(super) fn of_service(&self, name: &str, service: &str, port: u16) -> RouteTable {
        let own = self
            .list
            .iter()
            .filter(|named| named.port == port && named.service.as_deref() == Some(service))
            .map(|named| (vec!["*".to_owned()], Arc::clone(&named.host)));
        RouteTable::with_domains(name, Ports::Ignored, own)
    }
}

/// Istio: route.go `BuildSidecarVirtualHostWrapper`.
fn groups<'g>(
    egress: &Egress<'_>,
    port: u16,
    services: &'g Registry,
    rules: &mut RuleCompiler<'_>,
    common: &Common<'_>,
    findings: &mut Diagnostics,
) -> Vec<Group<'g>> {
    let mut by_host: HashMap<&str, &Service> = HashMap::new();
    for service in services.all() {
        by_host.entry(&service.host).or_insert(service);
    }
    let owners = Owners::new(&egress.rules);
    let mut groups = Vec::new();
    let mut taken: HashSet<&str> = HashSet::new();
    for (number, of_mesh) in egress.rules.iter().enumerate() {
        let (found, others) = matching(of_mesh, number, &by_host, services, &owners);
        let mut by_port: BTreeMap<u16, Vec<&Service>> = BTreeMap::new();
        for &service in &found {
            for known in service.ports.iter().filter(|known| is_http_or_unknown(known.protocol)) {
                by_port.entry(known.number).or_default().push(service);
            }
        }
        if by_port.is_empty() {
            // Istio: hosts that no service has are served on port 80, and on no other.
            if port != 80 {
                continue;
            }
            by_port.insert(80, Vec::new());
        }
        let site = Site { gateway: None, port, scheme: Scheme::Http };
        if !rules.applies(of_mesh.resource, site) {
            continue;
        }
        let list = rules.compile(of_mesh.resource, site);
        findings.share(&rules.report(&list, of_mesh.resource));
        if list.routes.is_empty() {
            continue;
        }
        let others: Vec<_> = others.into_iter().cloned().collect();
        for (port, services) in by_port {
            taken.extend(services.iter().map(|service| &*service.host));
            groups.push(Group { port, services, others: others.clone(), routes: list.routes.clone() });
        }
    }
    let mut rest: Vec<_> = by_host
        .into_values()
        .filter(|service| !taken.contains(&*service.host) && service.alias_of().is_none())
        .collect();
    rest.sort_by(|a, b| a.host.cmp(&b.host));
    for service in rest {
        for known in service.ports.iter().filter(|known| is_http_or_unknown(known.protocol)) {
            let routes = vec![common.plain.outbound(&service.host, known.number)];
            groups.push(Group { port: known.number, services: vec![service], others: Vec::new(), routes });
        }
    }
    groups
}

fn is_http_or_unknown(protocol: Option<Protocol>) -> bool {
    protocol.is_none_or(Protocol::is_http)
}

/// The services that a VirtualService is for, and those of its hosts that no service has (Istio: route.go
/// `separateVSHostsAndServices`).
fn matching<'g, 'r>(
    of_mesh: &'r Rules<'_>,
    number: usize,
    by_host: &HashMap<&str, &'g Service>,
    services: &'g Registry,
    owners: &Owners<'_>,
) -> (Vec<&'g Service>, Vec<&'r Arc<str>>) {
    let (mut found, mut others) = (Vec::new(), Vec::new());
    for host in of_mesh.hosts.iter().filter(|host| !host.starts_with('*')) {
        match by_host.get(&**host) {
            Some(service) => found.push(*service),
            None => others.push(host),
        }
    }
    for host in of_mesh.hosts.iter().filter(|host| host.starts_with('*')) {
        let mut any = false;
        for service in services.all() {
            if covers(host, &service.host) || covers(&service.host, host) {
                any = true;
                if owners.of(&service.host) == Some(number) {
                    found.push(service);
                }
            }
        }
        if !any {
            others.push(host);
        }
    }
    let mut seen = HashSet::new();
    found.retain(|service| seen.insert(Arc::as_ptr(&service.host)));
    (found, others)
}

/// Whose rules a service has that several VirtualServices cover by wildcards (Istio: sidecar.go
/// `computeWildcardHostVirtualServiceIndex`).
struct Owners<'o> {
    named: HashMap<&'o str, usize>,
    /// Longest first.
    wildcards: Vec<(&'o str, usize)>,
}

impl<'o> Owners<'o> {
    fn new(rules: &'o [Rules<'_>]) -> Self {
        let mut owners = Self { named: HashMap::new(), wildcards: Vec::new() };
        for (number, of_mesh) in rules.iter().enumerate() {
            for host in of_mesh.hosts.iter() {
                owners.named.entry(host).or_insert(number);
                if host.starts_with('*') {
                    owners.wildcards.push((&**host, number));
                }
            }
        }
        // Stable: of two the same the first stays in front.
        owners.wildcards.sort_by_key(|(host, _)| std::cmp::Reverse(host.len()));
        owners
    }

    fn of(&self, host: &str) -> Option<usize> {
        let by_wildcard = || self.wildcards.iter().find(|(wildcard, _)| covers(wildcard, host));
        self.named.get(host).copied().or_else(|| by_wildcard().map(|(_, number)| *number))
    }
}

/// Gives domains, each once.
struct Naming<'n> {
    common: &'n Common<'n>,
    ports: Ports,
    names: HashSet<String>,
    domains: HashSet<String>,
    /// Full names of services, which no short form of another may be.
    full: HashSet<&'n str>,
}

impl<'n> Naming<'n> {
    fn new(groups: &[Group<'n>], ports: Ports, common: &'n Common<'n>) -> Self {
        let full = groups.iter().flat_map(|group| &group.services).map(|service| &*service.host).collect();
        Self { common, ports, names: HashSet::new(), domains: HashSet::new(), full }
    }

    /// The virtual host with those of `domains` that nobody has; `None` where that is none.
    fn name(
        &mut self,
        host: &str,
        service: Option<&Service>,
        mut domains: Vec<String>,
        alternates: &[String],
        group: &Group<'_>,
    ) -> Option<Named> {
        let name = format!("{host}:{}", group.port);
        if !self.names.insert(name.clone()) {
            return None;
        }
        domains.retain(|domain| {
            let is_anothers = || {
                let bare = domain.strip_suffix(&format!(":{}", group.port)).unwrap_or(domain);
                alternates.contains(domain) && self.full.contains(bare)
            };
            !is_anothers() && self.domains.insert(domain.to_ascii_lowercase())
        });
        let first = domains.first()?.clone();
        let host = Arc::new(VirtualHost::new(name, first, false, group.routes.clone()));
        Some(Named { service: service.map(|s| Arc::clone(&s.host)), port: group.port, domains, host })
    }

    /// All names that a service is asked for by, and which of them are short forms (Istio: httproute.go
    /// `generateVirtualHostDomains`).
    fn domains(&self, service: &Service, port: u16) -> (Vec<String>, Vec<String>) {
        let (mut domains, mut alternates) = (Vec::new(), Vec::new());
        let others = self.common.aliases.get(&*service.host).into_iter().flatten();
        for host in std::iter::once(&service.host).chain(others) {
            let short = short_forms(host, self.common.namespace, self.common.domain);
            self.push(host, port, &mut domains);
            for form in short {
                let from = domains.len();
                self.push(&form, port, &mut domains);
                alternates.extend(domains.get(from..).into_iter().flatten().cloned());
            }
        }
        if matches!(&service.source, Source::Kubernetes(resource) if resource.spec.is_headless()) {
            // Each pod of it has a name of its own.
            let of_pods: Vec<_> = domains.iter().map(|domain| format!("*.{domain}")).collect();
            domains.extend(of_pods);
        }
        for ip in addresses(service, self.common.allocated).iter().filter_map(|at| at.ip()) {
            self.push(&ip.to_string(), port, &mut domains);
        }
        if self.ports == Ports::Counted && port != 80 {
            // Without a port it is port 80 that is asked for.
            domains.retain(|domain| domain.ends_with(&format!(":{port}")));
        }
        (domains, alternates)
    }

    fn push(&self, name: &str, port: u16, domains: &mut Vec<String>) {
        let name = bracketed(name);
        if self.ports == Ports::Counted {
            domains.push(format!("{name}:{port}"));
        }
        domains.push(name.into_owned());
    }
}

/// As an authority has it: an IPv6 address in brackets.
fn bracketed(name: &str) -> Cow<'_, str> {
    if name.parse::<std::net::Ipv6Addr>().is_ok() { format!("[{name}]").into() } else { name.into() }
}

/// Short forms of a Service's name, as a resolver of the workload's namespace would complete them (Istio: httproute.go
/// `GenerateAltVirtualHosts`).
pub(super) fn short_forms(host: &str, namespace: &str, domain: &str) -> Vec<String> {
    let mut forms = Vec::new();
    if host.parse::<std::net::IpAddr>().is_err() && !host.starts_with('*') {
        forms.push(format!("{host}."));
    }
    let Some(within) = host.strip_suffix(domain).and_then(|rest| rest.strip_suffix(".svc.")) else {
        return forms;
    };
    let Some((name, of)) = within.split_once('.') else { return forms };
    if of == namespace {
        forms.push(name.to_owned());
    }
    forms.push(format!("{within}.svc"));
    forms.push(within.to_owned());
    forms
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_forms_are_what_a_resolver_completes() {
        let of = |host: &str, namespace: &str| short_forms(host, namespace, "cluster.local");
        assert_eq!(
            of("a.shop.svc.cluster.local", "shop"),
            ["a.shop.svc.cluster.local.", "a", "a.shop.svc", "a.shop"]
        );
        assert_eq!(
            of("a.shop.svc.cluster.local", "other"),
            ["a.shop.svc.cluster.local.", "a.shop.svc", "a.shop"]
        );
        assert_eq!(of("api.example.com", "shop"), ["api.example.com."]);
        assert_eq!(of("10.0.0.1", "shop"), Vec::<String>::new());
    }
}
