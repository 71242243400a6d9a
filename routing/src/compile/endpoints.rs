//! From a service port to the endpoints that the configuration names, and how more come to be known.
//!
//! Invariant: endpoints come in a fixed order and no address twice, so that equal configuration compares equal.

use super::locality;
use super::registry::{Port, Service, Source};
use crate::cluster::{Address, Discovery, Endpoint, Health, Place};
use config_model::{
    istio::{
        self, WorkloadEntry,
        service_entry::{Resolution, ServiceEntry},
    },
    kubernetes::{self, EndpointSlice, ObjectReference, TargetPort},
    meta::{Kind, Resource, ResourceKey},
    scalar::labels::is_subset_of,
    set::Resources,
    validate::Validated,
};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

/// What is known of one port's endpoints.
pub(super) struct Resolved {
    /// How more come to be known.
    pub(super) discovery: Discovery,
    /// The endpoints named.
    pub(super) endpoints: Vec<Endpoint>,
    /// Service accounts that they run as, `namespace/name`.
    pub(super) accounts: BTreeSet<String>,
}

/// The resources that endpoints are made of, by what they are looked up by.
pub(super) struct EndpointSources<'a> {
    slices: HashMap<(&'a str, &'a str), Vec<&'a EndpointSlice>>,
    endpoints: &'a Resources<kubernetes::Endpoints>,
    pods: &'a Resources<kubernetes::Pod>,
    pods_by_ip: HashMap<(&'a str, &'a str), &'a Resource<kubernetes::Pod>>,
    pods_by_namespace: HashMap<&'a str, Vec<&'a Resource<kubernetes::Pod>>>,
    workloads: HashMap<&'a str, Vec<&'a Resource<istio::WorkloadEntry>>>,
}

impl<'a> EndpointSources<'a> {
    /// Indexes what the configuration has.
    pub(super) fn new(input: &'a Validated) -> Self {
        let mut slices: HashMap<_, Vec<_>> = HashMap::new();
        for resource in input.endpoint_slices().values() {
            if let Some(service) = resource.meta.labels.get(EndpointSlice::SERVICE_LABEL) {
                let key = (resource.key.namespace.as_str(), service.as_str());
                slices.entry(key).or_default().push(&resource.spec);
            }
        }
        let mut pods_by_ip = HashMap::new();
        let mut pods_by_namespace: HashMap<_, Vec<_>> = HashMap::new();
        for pod in input.pods().values() {
            let namespace = pod.key.namespace.as_str();
            pods_by_namespace.entry(namespace).or_default().push(&**pod);
            for ip in pod_ips(&pod.spec) {
                pods_by_ip.insert((namespace, ip), &**pod);
            }
        }
        let mut workloads: HashMap<_, Vec<_>> = HashMap::new();
        for workload in input.workload_entries() {
            workloads.entry(workload.key.namespace.as_str()).or_default().push(&**workload);
        }
        Self {
            slices,
            endpoints: input.endpoints(),
            pods: input.pods(),
            pods_by_ip,
            pods_by_namespace,
            workloads,
        }
    }

    /// The endpoints of a port; `None` where such a service has no cluster at all.
    pub(super) fn of(&self, service: &Service<'a>, port: &Port<'a>) -> Option<Resolved> {
        match &service.source {
            Source::Kubernetes(resource) => self.of_kubernetes(resource, service, port),
            Source::Entries(entries) => self.of_entries(entries, service, port),
        }
    }

    fn of_kubernetes(
        &self,
        resource: &'a Resource<kubernetes::Service>,
        service: &Service<'a>,
        port: &Port<'a>,
    ) -> Option<Resolved> {
        let spec = &resource.spec;
        if spec.service_type == kubernetes::ServiceType::ExternalName {
            return None;
        }
        let written = spec.ports.iter().find(|p| p.port.get() == port.number && p.name == port.name);
        let target = match written.and_then(|p| p.target_port.as_ref()) {
            Some(TargetPort::Number(number)) => number.get(),
            Some(TargetPort::Name(_)) | None => port.number,
        };
        let mut found = Collector::default();
        let (namespace, name) = (resource.key.namespace.as_str(), resource.key.name.as_str());
        let slices = self.slices.get(&(namespace, name));
        let old = self.endpoints.get(&ResourceKey::new(Kind::Endpoints, namespace, name));
        match (slices, old) {
            (Some(slices), _) => self.add_slices(slices, namespace, port, &mut found),
            (None, Some(old)) => self.add_endpoints(&old.spec, namespace, port, &mut found),
            (None, None) => {}
        }
        // WorkloadEntries are pods to a Service's selector (Istio: serviceentry/controller.go, workload handlers).
        let selected = !spec.selector.is_empty()
            && self.add_workloads(
                namespace,
                &spec.selector,
                (port.name, target),
                Discovery::Static,
                &mut found,
            );
        if slices.is_some() || old.is_some() || selected {
            return Some(found.resolved(Discovery::Static));
        }
        let one = |address, discovery| {
            let mut found = Collector::default();
            found.push(Found { address, ..Found::default_at(port.number) });
            Some(found.resolved(discovery))
        };
        match spec.cluster_ip.parse::<IpAddr>() {
            Ok(ip) => one(Address::Ip(SocketAddr::new(ip, port.number)), Discovery::Static),
            // The name of a headless Service gives the pods themselves, which listen on the target port.
            Err(_) => {
                let number = if spec.is_headless() { target } else { port.number };
                one(Address::Name(Arc::clone(&service.host), number), Discovery::StrictDns)
            }
        }
    }

    fn add_slices(
        &self,
        slices: &[&'a EndpointSlice],
        namespace: &str,
        port: &Port<'a>,
        found: &mut Collector,
    ) {
        // One family only, as Istio without dual stack: else every pod would be there twice.
        let v4 = slices.iter().any(|slice| slice.address_type != "IPv6" && slice.address_type != "FQDN");
        for slice in slices {
            let wanted = if v4 { slice.address_type != "IPv6" } else { slice.address_type == "IPv6" };
            if !wanted || slice.address_type == "FQDN" {
                continue;
            }
            let number = slice.ports.iter().find(|p| p.name == port.name).and_then(|p| p.port);
            let Some(number) = number else { continue };
            for endpoint in &slice.endpoints {
                // A terminating endpoint leaves at once (Istio: endpointslice.go, no persistent sessions).
                if endpoint.conditions.terminating == Some(true) {
                    continue;
                }
                let Some(ip) = endpoint.addresses.first() else { continue };
                let health = if endpoint.conditions.is_ready() { Health::Healthy } else { Health::Unhealthy };
                let reference = endpoint.target_ref.as_ref();
                self.push_pod(
                    (namespace, ip),
                    reference,
                    (number.get(), health),
                    endpoint.zone.as_deref(),
                    found,
                );
            }
        }
    }

    fn add_endpoints(
        &self,
        endpoints: &'a kubernetes::Endpoints,
        namespace: &str,
        port: &Port<'a>,
        found: &mut Collector,
    ) {
        for subset in &endpoints.subsets {
            let number = subset.ports.iter().find(|p| p.name == port.name).and_then(|p| p.port);
            let Some(number) = number else { continue };
            let ready = subset.addresses.iter().map(|a| (a, Health::Healthy));
            let not_ready = subset.not_ready_addresses.iter().map(|a| (a, Health::Unhealthy));
            for (address, health) in ready.chain(not_ready) {
                let reference = address.target_ref.as_ref();
                self.push_pod((namespace, &address.ip), reference, (number.get(), health), None, found);
            }
        }
    }

    fn push_pod(
        &self,
        (namespace, ip): (&str, &str),
        reference: Option<&ObjectReference>,
        (port, health): (u16, Health),
        zone: Option<&str>,
        found: &mut Collector,
    ) {
        let Ok(address) = ip.parse::<IpAddr>() else { return };
        let named = reference.filter(|r| r.kind == "Pod" || r.kind.is_empty());
        let pod = named
            .and_then(|r| self.pods.get(&ResourceKey::new(Kind::Pod, namespace, r.name.as_str())))
            .map(|pod| &**pod)
            .or_else(|| self.pods_by_ip.get(&(namespace, ip)).copied());
        let workload = pod.map(|pod| pod.key.name.as_str()).or(named.map(|r| r.name.as_str()));
        if let Some(pod) = pod {
            found.account(namespace, &pod.spec.spec.service_account_name);
        }
        found.push(Found {
            locality: locality::of_pod(pod.map(|pod| &pod.meta.labels), zone),
            address: Address::Ip(SocketAddr::new(address, port)),
            health,
            labels: pod.map(|pod| pod.meta.labels.clone()).unwrap_or_default(),
            workload: workload.filter(|name| !name.is_empty()).map(Arc::from),
            ..Found::default_at(port)
        });
    }

    fn of_entries(
        &self,
        entries: &[&'a Resource<ServiceEntry>],
        service: &Service<'a>,
        port: &Port<'a>,
    ) -> Option<Resolved> {
        let discovery = match entries.first()?.spec.resolution {
            Resolution::Static => Discovery::Static,
            Resolution::Dns => Discovery::StrictDns,
            Resolution::DnsRoundRobin => Discovery::LogicalDns,
            Resolution::None => {
                return Some(Collector::default().resolved(Discovery::OriginalDestination));
            }
            // Each name that is asked for is resolved by itself.
            Resolution::DynamicDns => {
                let written = entries.first()?.spec.ports.iter().find(|p| p.number.get() == port.number)?;
                let target = written.target_port.unwrap_or(written.number).get();
                let mut found = Collector::default();
                found.push(Found {
                    address: Address::Name(Arc::clone(&service.host), target),
                    ..Found::default_at(target)
                });
                return Some(found.resolved(Discovery::DynamicDns));
            }
        };
        let mut found = Collector::default();
        for entry in entries {
            let written = entry.spec.ports.iter().find(|p| p.number.get() == port.number);
            let Some(written) = written else { continue };
            let target = written.target_port.unwrap_or(written.number).get();
            if let Some(selector) = &entry.spec.workload_selector {
                let namespace = entry.key.namespace.as_str();
                self.add_workloads(
                    namespace,
                    &selector.labels,
                    (&written.name, target),
                    discovery,
                    &mut found,
                );
                self.add_pods(namespace, &selector.labels, target, &mut found);
            } else if !entry.spec.endpoints.is_empty() {
                for endpoint in &entry.spec.endpoints {
                    let own = (entry.key.namespace.as_str(), None);
                    found.push_workload(endpoint, own, (&written.name, target), discovery);
                }
            } else if discovery != Discovery::Static && !service.host.starts_with('*') {
                let address = match service.host.parse::<IpAddr>() {
                    Ok(ip) => Address::Ip(SocketAddr::new(ip, target)),
                    Err(_) => Address::Name(Arc::clone(&service.host), target),
                };
                found.push(Found { address, ..Found::default_at(target) });
            }
        }
        // Istio: cluster_builder.go makes no DNS cluster without an endpoint to resolve.
        if discovery != Discovery::Static && found.endpoints.is_empty() {
            return None;
        }
        Some(found.resolved(discovery))
    }

    /// Adds the WorkloadEntries that a selector picks; says whether there was any.
    fn add_workloads(
        &self,
        namespace: &str,
        selector: &BTreeMap<String, String>,
        (port_name, target): (&str, u16),
        discovery: Discovery,
        found: &mut Collector,
    ) -> bool {
        let mut any = false;
        for workload in self.workloads.get(namespace).into_iter().flatten() {
            if is_subset_of(selector, &workload.spec.labels) {
                any = true;
                let own = (namespace, Some(workload.key.name.as_str()));
                found.push_workload(&workload.spec, own, (port_name, target), discovery);
            }
        }
        any
    }

    fn add_pods(
        &self,
        namespace: &str,
        selector: &BTreeMap<String, String>,
        target: u16,
        found: &mut Collector,
    ) {
        for pod in self.pods_by_namespace.get(namespace).into_iter().flatten() {
            let running = matches!(pod.spec.status.phase.as_str(), "Running" | "");
            let ip = pod_ips(&pod.spec).next().and_then(|ip| ip.parse::<IpAddr>().ok());
            if let (true, true, Some(ip)) = (running, is_subset_of(selector, &pod.meta.labels), ip) {
                found.account(namespace, &pod.spec.spec.service_account_name);
                found.push(Found {
                    address: Address::Ip(SocketAddr::new(ip, target)),
                    locality: locality::of_pod(Some(&pod.meta.labels), None),
                    labels: pod.meta.labels.clone(),
                    workload: Some(pod.key.name.as_str().into()),
                    ..Found::default_at(target)
                });
            }
        }
    }
}

fn pod_ips(pod: &kubernetes::Pod) -> impl Iterator<Item = &str> {
    let first = Some(pod.status.pod_ip.as_str());
    first.into_iter().chain(pod.status.pod_ips.iter().map(|p| p.ip.as_str())).filter(|ip| !ip.is_empty())
}

/// Labels of a workload; one with a service account is of the mesh unless it says otherwise (Istio:
/// serviceentry/conversion.go `convertEndpoint`).
fn mesh_labels(workload: &WorkloadEntry) -> BTreeMap<String, String> {
    let mut labels = workload.labels.clone();
    if !workload.service_account.is_empty() {
        labels.entry(Endpoint::TLS_MODE_LABEL.to_owned()).or_insert_with(|| "istio".to_owned());
    }
    labels
}

struct Found {
    address: Address,
    weight: u32,
    health: Health,
    labels: BTreeMap<String, String>,
    workload: Option<Arc<str>>,
    locality: Arc<str>,
}

impl Found {
    /// An endpoint with nothing said about it.
    fn default_at(port: u16) -> Self {
        Self {
            address: Address::Name("".into(), port),
            weight: 1,
            health: Health::Healthy,
            labels: BTreeMap::new(),
            workload: None,
            locality: "".into(),
        }
    }
}

/// Gathers endpoints; of one address the first stays.
#[derive(Default)]
struct Collector {
    endpoints: Vec<Endpoint>,
    seen: HashSet<Address>,
    accounts: BTreeSet<String>,
}

impl Collector {
    fn push(&mut self, found: Found) {
        if self.seen.insert(found.address.clone()) {
            let Found { address, weight, health, labels, workload, locality } = found;
            let place = Place { locality, ..Place::default() };
            let known = Endpoint::at(address);
            self.endpoints.push(Endpoint { weight, health, labels, workload, place, ..known });
        }
    }

    fn account(&mut self, namespace: &str, name: &str) {
        if !name.is_empty() {
            self.accounts.insert(format!("{namespace}/{name}"));
        }
    }

    fn resolved(self, discovery: Discovery) -> Resolved {
        Resolved { discovery, endpoints: self.endpoints, accounts: self.accounts }
    }

    /// Istio: serviceentry/conversion.go `convertEndpoint`: a unix socket has no port; else the port by name, else the
    /// target port. A name can only be resolved where the service is resolved by DNS.
    fn push_workload(
        &mut self,
        workload: &WorkloadEntry,
        (namespace, name): (&str, Option<&str>),
        (port_name, target): (&str, u16),
        discovery: Discovery,
    ) {
        let port = workload.ports.get(port_name).map_or(target, |port| port.get());
        let address = match workload.address.strip_prefix("unix://") {
            Some(path) => Address::Unix(path.into()),
            None => match workload.address.parse::<IpAddr>() {
                Ok(ip) => Address::Ip(SocketAddr::new(ip, port)),
                Err(_) if discovery == Discovery::Static || workload.address.is_empty() => return,
                Err(_) => Address::Name(workload.address.as_str().into(), port),
            },
        };
        self.account(namespace, &workload.service_account);
        self.push(Found {
            address,
            weight: workload.weight.max(1),
            locality: locality::of_workload(workload),
            labels: mesh_labels(workload),
            workload: name.map(Arc::from),
            ..Found::default_at(port)
        });
    }
}

#[cfg(test)]
mod tests {
    use crate::compile::testing::compiled;

    fn endpoints(yaml: &str, cluster: &str) -> Vec<String> {
        let (compiled, _) = compiled(yaml);
        let (_, cluster) = compiled.clusters.iter().find(|(name, _)| name.as_str() == cluster).unwrap();
        cluster.endpoints.iter().map(|e| format!("{} {:?} {}", e.address, e.health, e.weight)).collect()
    }

    const SERVICE: &str = "
apiVersion: v1
kind: Service
metadata: {name: a, namespace: shop}
spec: {clusterIP: CLUSTER_IP, selector: {app: a}, ports: [{name: http, port: 80, targetPort: 8080}]}
";

    #[test]
    fn a_service_alone_is_its_cluster_ip_or_its_name() {
        let at =
            |ip: &str| endpoints(&SERVICE.replace("CLUSTER_IP", ip), "outbound|80||a.shop.svc.cluster.local");
        assert_eq!(at("10.0.0.1"), ["10.0.0.1:80 Healthy 1"]);
        assert_eq!(at("\"\""), ["a.shop.svc.cluster.local:80 Healthy 1"]);
        assert_eq!(at("None"), ["a.shop.svc.cluster.local:8080 Healthy 1"]);
    }

    #[test]
    fn slices_give_pods_by_port_name_and_drop_the_terminating() {
        let yaml = SERVICE.replace("CLUSTER_IP", "10.0.0.1")
            + "---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: a-1, namespace: shop, labels: {kubernetes.io/service-name: a}}
addressType: IPv4
ports: [{name: metrics, port: 1}, {name: http, port: 8081}]
endpoints:
- {addresses: [10.1.0.1]}
- {addresses: [10.1.0.2], conditions: {ready: false}}
- {addresses: [10.1.0.3], conditions: {ready: true, terminating: true}}
- {addresses: [10.1.0.1]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: a-2, namespace: shop, labels: {kubernetes.io/service-name: a}}
addressType: IPv6
ports: [{name: http, port: 8081}]
endpoints: [{addresses: ['fd00::1']}]
";
        assert_eq!(
            endpoints(&yaml, "outbound|80||a.shop.svc.cluster.local"),
            ["10.1.0.1:8081 Healthy 1", "10.1.0.2:8081 Unhealthy 1"]
        );
    }

    #[test]
    fn old_endpoints_and_workload_entries_serve_too() {
        let yaml = SERVICE.replace("CLUSTER_IP", "10.0.0.1")
            + "---
apiVersion: v1
kind: Endpoints
metadata: {name: a, namespace: shop}
subsets: [{addresses: [{ip: 10.2.0.1}], notReadyAddresses: [{ip: 10.2.0.2}], ports: [{name: http, port: 9}]}]
---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: vm, namespace: shop}
spec: {address: 10.3.0.1, labels: {app: a}, weight: 5, ports: {http: 7}}
";
        assert_eq!(
            endpoints(&yaml, "outbound|80||a.shop.svc.cluster.local"),
            ["10.2.0.1:9 Healthy 1", "10.2.0.2:9 Unhealthy 1", "10.3.0.1:7 Healthy 5"]
        );
    }

    #[test]
    fn service_entries_resolve_as_they_say() {
        let entry = |rest: &str| {
            format!(
                "
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: e, namespace: shop}}
spec:
  hosts: [api.ext.com]
  ports: [{{number: 443, name: https, protocol: HTTPS, targetPort: 8443}}]
{rest}
"
            )
        };
        let cluster = "outbound|443||api.ext.com";
        assert_eq!(endpoints(&entry("  resolution: DNS"), cluster), ["api.ext.com:8443 Healthy 1"]);
        assert_eq!(
            endpoints(
                &entry(
                    "  resolution: DNS\n  endpoints: [{address: b.ext.com, ports: {https: 1}}, {address: c.ext.com, weight: 3}]"
                ),
                cluster
            ),
            ["b.ext.com:1 Healthy 1", "c.ext.com:8443 Healthy 3"]
        );
        assert_eq!(
            endpoints(&entry("  resolution: STATIC\n  endpoints: [{address: 1.2.3.4}]"), cluster),
            ["1.2.3.4:8443 Healthy 1"]
        );
        assert_eq!(endpoints(&entry("  resolution: NONE"), cluster), Vec::<String>::new());
    }
}
