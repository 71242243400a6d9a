//! The services that destinations may name: Kubernetes Services and the hosts of ServiceEntries.
//!
//! Invariant: holds only what is exported to the gateway's namespace. Of several services with one host the first is
//! the one that clusters are made of: a Kubernetes Service, else the oldest ServiceEntry.

use super::{
    Identity,
    visibility::{Reach, reach},
};
use config_model::{
    istio,
    kubernetes::{self, ServiceType},
    meta::{Kind, Resource},
    scalar::{HostPattern, Protocol},
    validate::{Validated, resolve_short_name},
};
use std::{collections::HashMap, sync::Arc};

/// Comma list of namespaces that a Kubernetes Service is exported to.
const EXPORT_ANNOTATION: &str = "networking.istio.io/exportTo";

/// Services by host.
#[derive(Debug, Default)]
pub(super) struct Registry {
    services: Vec<Service>,
    by_host: HashMap<Arc<str>, Vec<usize>>,
    domain: String,
}

/// One service.
#[derive(Clone, Debug)]
pub(super) struct Service {
    /// Its fully qualified host.
    pub(super) host: Arc<str>,
    /// Ports that speak TCP, each number once.
    pub(super) ports: Vec<Port>,
    /// Numbers of all its ports, whatever they speak.
    numbers: Vec<u16>,
    /// How it comes to be seen.
    pub(super) reach: Reach,
    /// What it is made of.
    pub(super) source: Source,
}

impl Service {
    /// Namespace of the resource that makes it.
    pub(super) fn namespace(&self) -> &str {
        match &self.source {
            Source::Kubernetes(resource) => &resource.key.namespace,
            Source::Entries(entries) => entries.first().map_or("", |entry| &entry.key.namespace),
        }
    }
}

impl Service {
    /// The same with none but these of its ports; `None` where it has none of them.
    pub(super) fn with_ports(&self, wanted: impl Fn(u16) -> bool) -> Option<Self> {
        let ports: Vec<Port> = self.ports.iter().filter(|port| wanted(port.number)).cloned().collect();
        let numbers = ports.iter().map(|port| port.number).collect();
        (!ports.is_empty()).then(|| Self {
            host: Arc::clone(&self.host),
            ports,
            numbers,
            reach: self.reach,
            source: self.source.clone(),
        })
    }

    /// Takes up the ports of another that it has not.
    pub(super) fn take_ports(&mut self, other: &Self) {
        for port in &other.ports {
            if !self.ports.iter().any(|known| known.number == port.number) {
                self.ports.push(port.clone());
                self.numbers.push(port.number);
            }
        }
    }

    /// Name of the Service whose name it is another for.
    pub(super) fn alias_of(&self) -> Option<String> {
        let Source::Kubernetes(resource) = &self.source else { return None };
        let target = resource.spec.external_name.trim_end_matches('.');
        let is_alias = resource.spec.service_type == ServiceType::ExternalName && !target.is_empty();
        is_alias.then(|| target.to_ascii_lowercase())
    }

    /// Its name as metrics know it: a ServiceEntry's is the host (Istio: convertServices).
    pub(super) fn name(&self) -> &str {
        match &self.source {
            Source::Kubernetes(resource) => &resource.key.name,
            Source::Entries(_) => &self.host,
        }
    }
}

/// A service port.
#[derive(Clone, Debug)]
pub(super) struct Port {
    /// The number that destinations name.
    pub(super) number: u16,
    /// Its name, by which endpoints know it.
    pub(super) name: Box<str>,
    /// Application protocol; `None` where nothing tells.
    pub(super) protocol: Option<Protocol>,
}

/// What a service is made of.
#[derive(Debug, Clone)]
pub(super) enum Source {
    /// A Kubernetes Service.
    Kubernetes(Arc<Resource<kubernetes::Service>>),
    /// ServiceEntries of one namespace that describe one service, oldest first.
    Entries(Vec<Arc<Resource<istio::ServiceEntry>>>),
}

impl PartialEq for Source {
    /// The very same resources, not only equal ones.
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Kubernetes(a), Self::Kubernetes(b)) => Arc::ptr_eq(a, b),
            (Self::Entries(a), Self::Entries(b)) => {
                a.len() == b.len() && a.iter().zip(b).all(|(a, b)| Arc::ptr_eq(a, b))
            }
            (Self::Kubernetes(_), Self::Entries(_)) | (Self::Entries(_), Self::Kubernetes(_)) => false,
        }
    }
}

impl Registry {
    /// What it is made of.
    pub(super) const KINDS: [Kind; 2] = [Kind::Service, Kind::ServiceEntry];

    /// Everything that the gateway may see.
    pub(super) fn new(input: &Validated, identity: &Identity) -> Self {
        let mut registry =
            Self { services: Vec::new(), by_host: HashMap::new(), domain: identity.domain.clone() };
        let default = &input.mesh().default_service_export_to;
        for resource in input.services().values() {
            let own = resource.key.namespace.as_str();
            let exported: Vec<&str> = match resource.meta.annotations.get(EXPORT_ANNOTATION) {
                Some(list) => list.split(',').map(str::trim).filter(|entry| !entry.is_empty()).collect(),
                None => Vec::new(),
            };
            let reach = reach(&exported, default, own, &identity.namespace);
            if reach != Reach::Hidden {
                registry.add_kubernetes(resource, reach);
            }
        }
        for resource in input.service_entries() {
            let own = resource.key.namespace.as_str();
            let reach = reach(&resource.spec.export_to, default, own, &identity.namespace);
            if reach != Reach::Hidden {
                for host in &resource.spec.hosts {
                    registry.add_entry(resource, host.to_shared(), reach);
                }
            }
        }
        registry
    }

    /// The namespaces of the services with a host, sorted.
    pub(super) fn namespaces_of(&self, host: &str) -> impl Iterator<Item = &str> {
        let all = self.by_host.get(host).into_iter().flatten();
        let mut all: Vec<_> = all.filter_map(|&at| self.services.get(at)).map(Service::namespace).collect();
        all.sort_unstable();
        all.into_iter()
    }

    /// These services and no others: what a sidecar reaches by one of its listeners.
    pub(super) fn of(services: impl IntoIterator<Item = Service>, domain: &str) -> Self {
        let mut registry = Self { services: Vec::new(), by_host: HashMap::new(), domain: domain.to_owned() };
        services.into_iter().for_each(|service| registry.add(service));
        registry
    }

    /// All services, also those of one host.
    pub(super) fn all(&self) -> &[Service] {
        &self.services
    }

    /// The services of a host.
    pub(super) fn of_host(&self, host: &str) -> impl Iterator<Item = &Service> {
        let all = self.by_host.get(host).into_iter().flatten();
        all.filter_map(|&at| self.services.get(at))
    }

    fn add_kubernetes(&mut self, resource: &Arc<Resource<kubernetes::Service>>, reach: Reach) {
        let key = &resource.key;
        let host = format!("{}.{}.svc.{}", key.name, key.namespace, self.domain).to_ascii_lowercase();
        let mut ports: Vec<Port> = Vec::with_capacity(resource.spec.ports.len());
        for port in &resource.spec.ports {
            let number = port.port.get();
            // A UDP port makes no cluster; DNS Services have one number twice.
            if !port.protocol.eq_ignore_ascii_case("UDP") && !ports.iter().any(|p| p.number == number) {
                ports.push(Port { number, name: port.name.as_str().into(), protocol: detect(port) });
            }
        }
        let numbers = resource.spec.ports.iter().map(|port| port.port.get()).collect();
        let source = Source::Kubernetes(Arc::clone(resource));
        self.add(Service { host: host.into(), ports, numbers, reach, source });
    }

    fn add_entry(&mut self, resource: &Arc<Resource<istio::ServiceEntry>>, host: Arc<str>, reach: Reach) {
        let ports = resource.spec.ports.iter().map(|port| Port {
            number: port.number.get(),
            name: port.name.as_str().into(),
            protocol: Protocol::parse(&port.protocol),
        });
        let ports = ports.filter(|port| port.protocol != Some(Protocol::Udp));
        let numbers = resource.spec.ports.iter().map(|port| port.number.get());
        // Istio: sidecar.go `appendSidecarServices` merges the ports of entries that describe the same thing.
        let same = self.by_host.get(&host).into_iter().flatten().copied().find(|&at| {
            self.services.get(at).is_some_and(|service| match &service.source {
                Source::Kubernetes(_) => false,
                Source::Entries(entries) => entries.first().is_some_and(|first| {
                    first.key.namespace == resource.key.namespace
                        && first.spec.resolution == resource.spec.resolution
                        && first.spec.location == resource.spec.location
                        && first.spec.export_to == resource.spec.export_to
                }),
            })
        });
        match same.and_then(|at| self.services.get_mut(at)) {
            Some(service) => {
                if let Source::Entries(entries) = &mut service.source {
                    entries.push(Arc::clone(resource));
                }
                for port in ports {
                    if !service.ports.iter().any(|known| known.number == port.number) {
                        service.ports.push(port);
                    }
                }
                for number in numbers {
                    if !service.numbers.contains(&number) {
                        service.numbers.push(number);
                    }
                }
            }
            None => {
                let mut unique: Vec<Port> = Vec::with_capacity(resource.spec.ports.len());
                for port in ports {
                    if !unique.iter().any(|known| known.number == port.number) {
                        unique.push(port);
                    }
                }
                let source = Source::Entries(vec![Arc::clone(resource)]);
                self.add(Service { host, ports: unique, numbers: numbers.collect(), reach, source });
            }
        }
    }

    fn add(&mut self, service: Service) {
        let of_host = self.by_host.entry(Arc::clone(&service.host));
        of_host.or_insert_with(|| Vec::with_capacity(1)).push(self.services.len());
        self.services.push(service);
    }

    /// The service of each host that clusters are made of, in a fixed order.
    pub(super) fn primary(&self) -> impl Iterator<Item = &Service> {
        self.services.iter().enumerate().filter_map(|(at, service)| {
            (self.by_host.get(&service.host).and_then(|list| list.first()) == Some(&at)).then_some(service)
        })
    }

    /// The service that a rule in `namespace` means by a host: its own namespace's before any other (Istio:
    /// gateway.go `buildNameToServiceMapForHttpRoutes`).
    fn find(&self, host: &str, namespace: &str) -> Option<&Service> {
        let list = self.by_host.get(host)?;
        let mut services = list.iter().filter_map(|at| self.services.get(*at));
        let first = services.next()?;
        if first.namespace() == namespace {
            return Some(first);
        }
        Some(services.find(|service| service.namespace() == namespace).unwrap_or(first))
    }

    /// Host and port that a destination means (Istio: route.go `GetDestinationCluster`): the port written, else the
    /// service's only one, else the server's own number. An ExternalName Service stands for its target.
    pub(super) fn resolve(
        &self,
        host: &HostPattern,
        port: Option<u16>,
        namespace: &str,
        server_port: u16,
    ) -> (Arc<str>, u16) {
        let host = resolve_short_name(host, namespace, &self.domain);
        let service = self.find(&host, namespace);
        let only = service.and_then(|service| match service.numbers.as_slice() {
            [only] => Some(*only),
            _ => None,
        });
        let port = port.or(only).unwrap_or(server_port);
        (service.and_then(Service::alias_of).map_or(host, Arc::from), port)
    }
}

/// Protocol of a Kubernetes Service port (Istio: kube/conversion.go `ConvertProtocol`).
fn detect(port: &kubernetes::ServicePort) -> Option<Protocol> {
    match port.app_protocol.as_deref() {
        Some("kubernetes.io/h2c") => return Some(Protocol::Http2),
        Some("kubernetes.io/ws") => return Some(Protocol::Http),
        Some("kubernetes.io/wss") => return Some(Protocol::Https),
        Some(other) => return by_prefix(other),
        None => {}
    }
    by_prefix(&port.name)
        .or_else(|| matches!(port.port.get(), 25 | 53 | 3306 | 27017).then_some(Protocol::Tcp))
}

fn by_prefix(name: &str) -> Option<Protocol> {
    if name.get(..8).is_some_and(|head| head.eq_ignore_ascii_case("grpc-web")) {
        return Some(Protocol::GrpcWeb);
    }
    Protocol::parse(name.split('-').next().unwrap_or(name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compile::testing::{identity, validated};

    #[test]
    fn the_protocol_is_read_from_app_protocol_then_name_then_number() {
        let port = |name: &str, number: u16, app: Option<&str>| kubernetes::ServicePort {
            name: name.into(),
            port: config_model::scalar::PortNumber::new(number).unwrap(),
            target_port: None,
            protocol: String::new(),
            app_protocol: app.map(Into::into),
        };
        assert_eq!(detect(&port("http", 80, Some("kubernetes.io/h2c"))), Some(Protocol::Http2));
        assert_eq!(detect(&port("http", 80, Some("grpc"))), Some(Protocol::Grpc));
        assert_eq!(detect(&port("GRPC-web-x", 80, None)), Some(Protocol::GrpcWeb));
        assert_eq!(detect(&port("http2-api", 80, None)), Some(Protocol::Http2));
        assert_eq!(detect(&port("web", 80, None)), None);
        assert_eq!(detect(&port("db", 3306, None)), Some(Protocol::Tcp));
    }

    #[test]
    fn a_destinations_port_is_the_one_written_then_the_only_one_then_the_servers() {
        let input = validated(
            r"
apiVersion: v1
kind: Service
metadata: {name: one, namespace: shop}
spec: {ports: [{port: 9080, name: http}]}
---
apiVersion: v1
kind: Service
metadata: {name: two, namespace: shop}
spec: {ports: [{port: 81, name: http}, {port: 82, name: http-b}, {port: 82, name: dns, protocol: UDP}]}
---
apiVersion: v1
kind: Service
metadata: {name: alias, namespace: shop}
spec: {type: ExternalName, externalName: api.ext.com, ports: [{port: 443, name: https}]}
",
        );
        let registry = Registry::new(&input, &identity());
        let resolve = |host: &str, port| {
            let (host, port) = registry.resolve(&host.parse().unwrap(), port, "shop", 8000);
            format!("{host}:{port}")
        };
        assert_eq!(resolve("one", None), "one.shop.svc.cluster.local:9080");
        assert_eq!(resolve("one", Some(1)), "one.shop.svc.cluster.local:1");
        assert_eq!(resolve("two", None), "two.shop.svc.cluster.local:8000");
        assert_eq!(resolve("one.shop", None), "one.shop:8000");
        assert_eq!(resolve("alias", None), "api.ext.com:443");
    }
}
