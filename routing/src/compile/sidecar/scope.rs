//! What a sidecar may know of: the Sidecar in force, and for each of its egress listeners the services and VirtualServices that it
//! imports.
//!
//! Invariant: nothing is reached that this does not name (Istio: sidecar.go `convertToSidecarScope`). What no Sidecar bounds is what is
//! exported to the workload's namespace.

use super::{super::delegate::Delegates, imports::Imports};
use crate::compile::{
    Identity,
    registry::{Registry, Service, Source},
    visibility::{Reach, reach},
};
use config_model::{
    istio::{
        Sidecar, VirtualService,
        sidecar::{IstioEgressListener, OutboundTrafficMode},
        virtual_service::{Destination, HttpRoute},
    },
    meta::Resource,
    scalar::{Protocol, labels::is_subset_of},
    validate::{Validated, resolve_short_name},
};
use std::{
    borrow::Cow,
    cmp::Ordering,
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

/// All of it.
pub(super) struct Scope<'a> {
    /// The Sidecar in force; `None`: there is none.
    pub(super) sidecar: Option<&'a Arc<Resource<Sidecar>>>,
    /// Its egress listeners, or the one of Istio's default.
    pub(super) egress: Vec<Egress<'a>>,
    /// What any of them reaches, each host once: what clusters are made of.
    pub(super) services: Vec<Cow<'a, Service>>,
    /// What becomes of the rest.
    pub(super) rest: Rest<'a>,
}

/// One egress listener.
pub(super) struct Egress<'a> {
    /// As written; `None`: Istio's default, which has no port.
    pub(super) listener: Option<&'a IstioEgressListener>,
    /// In the order in which they are considered.
    pub(super) services: Vec<Cow<'a, Service>>,
    /// The same of VirtualServices, with their hosts in full.
    pub(super) rules: Vec<Rules<'a>>,
}

/// A VirtualService for traffic within the mesh.
#[derive(Clone)]
pub(super) struct Rules<'a> {
    /// It.
    pub(super) resource: &'a Arc<Resource<VirtualService>>,
    /// Its hosts in full, lower case.
    pub(super) hosts: Arc<[Arc<str>]>,
}

/// What becomes of traffic to what no service has.
#[derive(Clone, Copy, Debug)]
pub(super) enum Rest<'a> {
    /// It goes where it was going.
    Passes,
    /// It goes to this destination, with the number of its port.
    Proxied(&'a Destination),
    /// Requests in the clear go to the name that they ask for, and all else where it was going.
    Named,
    /// It goes nowhere.
    Ends,
}

impl<'a> Scope<'a> {
    /// What the workload's sidecar may know of, of all that `registry` has.
    pub(super) fn new(
        input: &'a Validated,
        identity: &'a Identity,
        registry: &'a Registry,
        delegates: &Delegates<'_>,
    ) -> Self {
        let sidecar = in_force(input, identity);
        let visible = Visible::new(input, identity, registry);
        let written = sidecar.map(|sidecar| sidecar.spec.egress.as_slice()).unwrap_or_default();
        let egress: Vec<_> = if written.is_empty() {
            vec![visible.egress(None, &identity.namespace)]
        } else {
            written.iter().map(|listener| visible.egress(Some(listener), &identity.namespace)).collect()
        };
        let services = imported(&egress, registry, identity, delegates);
        let own = sidecar.and_then(|sidecar| sidecar.spec.outbound_traffic_policy.as_ref());
        let mode = own.map_or(input.mesh().outbound_traffic_policy.mode, |policy| policy.mode);
        let rest = match (mode, own.and_then(|policy| policy.egress_proxy.as_ref())) {
            (OutboundTrafficMode::RegistryOnly, _) => Rest::Ends,
            (OutboundTrafficMode::AllowAnyDynamicDns, _) => Rest::Named,
            (OutboundTrafficMode::AllowAny, Some(proxy)) => Rest::Proxied(proxy),
            (OutboundTrafficMode::AllowAny, None) => Rest::Passes,
        };
        Self { sidecar, egress, services, rest }
    }

    /// `namespace/name` of the Sidecar in force; empty where there is none.
    pub(super) fn name(&self) -> Arc<str> {
        self.sidecar.map_or_else(
            || "".into(),
            |sidecar| format!("{}/{}", sidecar.key.namespace, sidecar.key.name).into(),
        )
    }
}

/// The oldest of the workload's namespace that selects it, else the oldest there that selects nobody in particular, else that of the root
/// namespace (Istio: push_context.go `getSidecarScope`).
fn in_force<'a>(input: &'a Validated, identity: &Identity) -> Option<&'a Arc<Resource<Sidecar>>> {
    let of = |namespace: &str| {
        let namespace = namespace.to_owned();
        input.sidecars().iter().filter(move |sidecar| sidecar.key.namespace == namespace)
    };
    let selects = |sidecar: &&Arc<Resource<Sidecar>>| {
        let selector = sidecar.spec.workload_selector.as_ref();
        selector.is_some_and(|selector| is_subset_of(&selector.labels, &identity.labels))
    };
    let of_all = |sidecar: &&Arc<Resource<Sidecar>>| sidecar.spec.workload_selector.is_none();
    let own = || of(&identity.namespace);
    let root = || of(&input.mesh().root_namespace).find(of_all);
    own().find(selects).or_else(|| own().find(of_all)).or_else(root)
}

/// All that is exported to the workload's namespace, in the order in which it is considered.
struct Visible<'a> {
    services: Vec<&'a Service>,
    rules: Vec<Rules<'a>>,
}

impl<'a> Visible<'a> {
    fn new(input: &'a Validated, identity: &Identity, registry: &'a Registry) -> Self {
        let mut services: Vec<_> = registry.all().iter().collect();
        // Istio: push_context.go `servicesExportedToNamespace`, service.go `SortServicesByCreationTime`.
        services
            .sort_by(|a, b| (a.reach == Reach::Public).cmp(&(b.reach == Reach::Public)).then(by_age(a, b)));
        let default = &input.mesh().default_virtual_service_export_to;
        let of_mesh = |resource: &&Arc<Resource<VirtualService>>| {
            let gateways = &resource.spec.gateways;
            !resource.spec.hosts.is_empty()
                && (gateways.is_empty() || gateways.iter().any(|gateway| gateway == "mesh"))
        };
        let mut rules: Vec<(Reach, Rules<'_>)> = Vec::new();
        for resource in input.virtual_services().iter().filter(of_mesh) {
            let own = resource.key.namespace.as_str();
            let reach = reach(&resource.spec.export_to, default, own, &identity.namespace);
            if reach == Reach::Hidden {
                continue;
            }
            let hosts = resource.spec.hosts.iter();
            let hosts = hosts.map(|host| resolve_short_name(host, own, &identity.domain)).collect();
            rules.push((reach, Rules { resource, hosts }));
        }
        // Stable: the age order stays (Istio: virtualservice.go `SelectVirtualServices`).
        rules.sort_by_key(|(reach, _)| *reach);
        Self { services, rules: rules.into_iter().map(|(_, rules)| rules).collect() }
    }

    fn egress(&self, listener: Option<&'a IstioEgressListener>, own: &'a str) -> Egress<'a> {
        let entries: Vec<&str> = match listener {
            Some(listener) => listener.hosts.iter().map(String::as_str).collect(),
            None => vec!["*/*"],
        };
        let imports = Imports::new(entries, own);
        let port = listener.and_then(only_port);
        let services =
            self.services.iter().filter(|service| imports.service(service.namespace(), &service.host));
        let services = services.filter_map(|service| trimmed(service, port)).collect();
        let rules = self.rules.iter().filter(|rules| {
            imports.rules(&rules.resource.key.namespace, rules.hosts.iter().map(|host| &**host))
        });
        Egress { listener, services: one_namespace_each(services, own), rules: rules.cloned().collect() }
    }
}

/// The port of a listener that is for the services of one port only (Istio: sidecar.go `needsPortMatch`).
fn only_port(listener: &IstioEgressListener) -> Option<u16> {
    let port = listener.port.as_ref()?;
    let number = port.number?.get();
    (Protocol::parse(&port.protocol) != Some(Protocol::HttpProxy)).then_some(number)
}

/// A service as a listener with this port sees it.
fn trimmed<'a>(service: &'a Service, port: Option<u16>) -> Option<Cow<'a, Service>> {
    let Some(port) = port else { return Some(Cow::Borrowed(service)) };
    if service.ports.iter().all(|known| known.number == port) {
        return (!service.ports.is_empty()).then_some(Cow::Borrowed(service));
    }
    service.with_ports(|number| number == port).map(Cow::Owned)
}

pub(super) fn by_age(a: &Service, b: &Service) -> Ordering {
    let age = |service: &Service| match &service.source {
        Source::Kubernetes(resource) => resource.meta.creation_timestamp,
        Source::Entries(entries) => entries.first().and_then(|entry| entry.meta.creation_timestamp),
    };
    let names = || (a.name(), a.namespace()).cmp(&(b.name(), b.namespace()));
    age(a).cmp(&age(b)).then_with(names)
}

fn is_kubernetes(service: &Service) -> bool {
    matches!(service.source, Source::Kubernetes(_))
}

/// Of services with one host those of one namespace: the workload's own, else that of a Kubernetes Service, else the first (Istio:
/// sidecar.go `selectServices`).
fn one_namespace_each<'a>(services: Vec<Cow<'a, Service>>, own: &str) -> Vec<Cow<'a, Service>> {
    let mut chosen: HashMap<Arc<str>, (String, bool)> = HashMap::with_capacity(services.len());
    for service in &services {
        let (namespace, kubernetes) = (service.namespace(), is_kubernetes(service));
        let better = match chosen.get(&service.host) {
            None => true,
            Some(_) if namespace == own => true,
            Some((known, of_kubernetes)) => !of_kubernetes && kubernetes && known != own,
        };
        if better {
            chosen.insert(Arc::clone(&service.host), (namespace.to_owned(), kubernetes));
        }
    }
    let stays = |service: &Cow<'_, Service>| {
        chosen.get(&service.host).is_some_and(|(namespace, _)| namespace == service.namespace())
    };
    services.into_iter().filter(stays).collect()
}

/// All services of all listeners, and those that the imported rules lead to (Istio: sidecar.go `collectImportedServices`).
fn imported<'a>(
    egress: &[Egress<'a>],
    registry: &'a Registry,
    identity: &Identity,
    delegates: &Delegates<'_>,
) -> Vec<Cow<'a, Service>> {
    let mut all = Imported::default();
    for listener in egress {
        listener.services.iter().for_each(|service| all.add(service.clone()));
        for rules in &listener.rules {
            for (host, ports) in destinations(rules.resource, identity, delegates) {
                let Some(service) = meant(registry, &host, &identity.namespace) else { continue };
                let port = listener.listener.and_then(only_port);
                let service = match port {
                    Some(_) => trimmed(service, port),
                    None if ports.contains(&0) || service.ports.iter().all(|p| ports.contains(&p.number)) => {
                        Some(Cow::Borrowed(service))
                    }
                    None => service.with_ports(|number| ports.contains(&number)).map(Cow::Owned),
                };
                service.into_iter().for_each(|service| all.add(service));
            }
        }
    }
    all.services
}

/// The service that a rule's destination means: the workload's own namespace's, else a Kubernetes Service, else the oldest.
fn meant<'a>(registry: &'a Registry, host: &str, own: &str) -> Option<&'a Service> {
    let all = || registry.of_host(host);
    let at_home = all().find(|service| service.namespace() == own);
    at_home.or_else(|| all().find(|service| is_kubernetes(service))).or_else(|| all().next())
}

/// Hosts that the rules of a VirtualService lead to, with ports; 0 stands for a destination without one (Istio: push_context.go
/// `virtualServiceDestinationsFilteredBySourceNamespace`).
fn destinations(
    resource: &Resource<VirtualService>,
    identity: &Identity,
    delegates: &Delegates<'_>,
) -> BTreeMap<Arc<str>, BTreeSet<u16>> {
    let mut found: BTreeMap<Arc<str>, BTreeSet<u16>> = BTreeMap::new();
    let mut add = |to: &Destination| {
        let host = resolve_short_name(&to.host, &resource.key.namespace, &identity.domain);
        found.entry(host).or_default().insert(to.port_number().map_or(0, |port| port.get()));
    };
    let mut of_rule = |rule: &HttpRoute| {
        let mut sources =
            rule.matches.iter().map(|m| m.source_namespace.as_str()).filter(|of| !of.is_empty());
        let elsewhere = sources.clone().next().is_some() && !sources.any(|of| of == identity.namespace);
        if elsewhere {
            return;
        }
        rule.route.iter().for_each(|to| add(&to.destination));
        rule.mirror.iter().for_each(|mirror| add(mirror));
        rule.mirrors.iter().for_each(|mirror| add(&mirror.destination));
    };
    match delegates.expanded(&resource.key) {
        Some(expanded) => expanded.rules.iter().for_each(|rule| of_rule(&rule.rule)),
        None => resource.spec.http.iter().for_each(&mut of_rule),
    }
    resource.spec.tcp.iter().flat_map(|rule| &rule.route).for_each(|to| add(&to.destination));
    resource.spec.tls.iter().flat_map(|rule| &rule.route).for_each(|to| add(&to.destination));
    found
}

/// Services being collected, each host once.
#[derive(Default)]
struct Imported<'a> {
    services: Vec<Cow<'a, Service>>,
    by_host: HashMap<Arc<str>, usize>,
}

impl<'a> Imported<'a> {
    /// Istio: sidecar.go `appendSidecarServices`: a Kubernetes Service takes the place of ServiceEntries; of two parts of one service
    /// the ports come together; else who came first stays.
    fn add(&mut self, service: Cow<'a, Service>) {
        let at = self.by_host.get(&service.host).and_then(|&at| self.services.get_mut(at));
        let Some(known) = at else {
            self.by_host.insert(Arc::clone(&service.host), self.services.len());
            self.services.push(service);
            return;
        };
        if !is_kubernetes(known) && is_kubernetes(&service) {
            *known = service;
        } else if known.source == service.source
            && service.ports.iter().any(|port| known.ports.iter().all(|k| k.number != port.number))
        {
            known.to_mut().take_ports(&service);
        }
    }
}
