//! Endpoints of ServiceEntries: those that they list, the workloads and pods that they select, or a name to resolve.
//!
//! Invariant: a name that is to be resolved and that nothing names has no cluster (Istio: cluster_builder.go).

use super::{
    super::{
        locality,
        registry::{Port, Service},
    },
    EndpointSources, Resolved,
    collector::{Collector, Found},
    pod_ips,
};
use crate::cluster::{Address, Discovery, Endpoint, Workload};
use config_model::{
    istio::{
        WorkloadEntry,
        service_entry::{Resolution, ServiceEntry},
    },
    meta::Resource,
    scalar::labels::is_subset_of,
};
use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

impl EndpointSources<'_> {
    pub(super) fn of_entries(
        &self,
        entries: &[Arc<Resource<ServiceEntry>>],
        service: &Service,
        port: &Port,
    ) -> Option<Resolved> {
        let discovery = match entries.first()?.spec.resolution {
            Resolution::Static => Discovery::Static,
            Resolution::Dns => Discovery::StrictDns,
            Resolution::DnsRoundRobin => Discovery::LogicalDns,
            Resolution::None => {
                let mut all = entries.iter().flat_map(|entry| &entry.spec.ports);
                let written = all.find(|written| written.number.get() == port.number);
                // Istio: serviceentry/conversion.go `PassthroughTargetPorts`.
                let port = written.and_then(|written| written.target_port).map(|target| target.get());
                return Some(Collector::default().resolved(Discovery::OriginalDestination { port }));
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
                for (index, endpoint) in entry.spec.endpoints.iter().enumerate() {
                    // Istio: convertServiceEntryToInstances names them so.
                    let name = format!("{}-{index}", entry.key.name);
                    let identity = Workload::of(&name, &entry.key.namespace, &endpoint.labels);
                    let own = (entry.key.namespace.as_str(), None, identity);
                    let told = (endpoint, &endpoint.labels);
                    found.push_workload(told, own, (&written.name, target), discovery);
                }
            } else if discovery != Discovery::Static && !service.host.starts_with('*') {
                let address = match service.host.parse::<IpAddr>() {
                    Ok(ip) => Address::Ip(SocketAddr::new(ip, target)),
                    Err(_) => Address::Name(Arc::clone(&service.host), target),
                };
                let identity = Workload::of(&entry.key.name, &entry.key.namespace, &BTreeMap::new());
                found.push(Found { address, identity: Some(identity), ..Found::default_at(target) });
            }
        }
        // Istio: cluster_builder.go makes no DNS cluster without an endpoint to resolve.
        if discovery != Discovery::Static && found.endpoints.is_empty() {
            return None;
        }
        Some(found.resolved(discovery))
    }

    /// Adds the WorkloadEntries that a selector picks; says whether there was any.
    pub(super) fn add_workloads(
        &self,
        namespace: &str,
        selector: &BTreeMap<String, String>,
        (port_name, target): (&str, u16),
        discovery: Discovery,
        found: &mut Collector,
    ) -> bool {
        let mut any = false;
        for workload in self.workloads.of(namespace).into_iter().flat_map(|known| known.workloads()) {
            if is_subset_of(selector, &workload.labels) {
                any = true;
                let resource = &workload.resource;
                let identity = Workload::of_entry(&resource.meta, &workload.labels);
                let own = (namespace, Some(resource.key.name.as_str()), identity);
                found.push_workload((&resource.spec, &workload.labels), own, (port_name, target), discovery);
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
        for pod in self.workloads.of(namespace).into_iter().flat_map(|known| known.pods()) {
            // Istio: pod.go `IsPodReady`; a file tends to say nothing of it.
            let ready = pod.meta.conditions.get("Ready").is_none_or(|status| status == "True");
            let running = ready && matches!(pod.spec.status.phase.as_str(), "Running" | "");
            let ip = pod_ips(&pod.spec).next().and_then(|ip| ip.parse::<IpAddr>().ok());
            if let (true, true, Some(ip)) = (running, is_subset_of(selector, &pod.meta.labels), ip) {
                found.account(namespace, &pod.spec.spec.service_account_name);
                found.push(Found {
                    address: Address::Ip(SocketAddr::new(ip, target)),
                    locality: locality::of_pod(Some(&pod.meta.labels), None),
                    node: pod.spec.spec.node_name.clone(),
                    labels: pod.meta.labels.clone(),
                    workload: Some(pod.key.name.as_str().into()),
                    identity: Some(Workload::of_pod(&pod.meta)),
                    ..Found::default_at(target)
                });
            }
        }
    }
}

impl Collector {
    /// Istio: serviceentry/conversion.go `convertEndpoint`: a unix socket has no port; else the port by name, else the
    /// target port. A name can only be resolved where the service is resolved by DNS.
    fn push_workload(
        &mut self,
        (workload, labels): (&WorkloadEntry, &BTreeMap<String, String>),
        (namespace, name, identity): (&str, Option<&str>, Workload),
        (port_name, target): (&str, u16),
        discovery: Discovery,
    ) {
        let port = workload.ports.get(port_name).map_or(target, |port| port.get());
        let address = match workload.address.strip_prefix("unix://") {
            Some(path) => Address::Unix(path.into()),
            None => match workload.address.parse::<IpAddr>() {
                Ok(ip) => Address::Ip(SocketAddr::new(ip, port)),
                // Only the gateways of its network know where it is.
                Err(_) if workload.address.is_empty() && !workload.network.is_empty() => Address::nowhere(),
                Err(_) if discovery == Discovery::Static || workload.address.is_empty() => return,
                Err(_) => Address::Name(workload.address.as_str().into(), port),
            },
        };
        self.account(namespace, &workload.service_account);
        self.push(Found {
            address,
            weight: workload.weight.max(1),
            locality: locality::of_workload(workload, labels),
            network: workload.network.clone(),
            labels: mesh_labels(workload, labels),
            workload: name.map(Arc::from),
            identity: Some(identity),
            ..Found::default_at(port)
        });
    }
}

/// Labels of a workload; one with a service account is of the mesh unless it says otherwise (Istio:
/// serviceentry/conversion.go `convertEndpoint`).
fn mesh_labels(workload: &WorkloadEntry, labels: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let mut labels = labels.clone();
    if !workload.service_account.is_empty() {
        labels.entry(Endpoint::TLS_MODE_LABEL.to_owned()).or_insert_with(|| "istio".to_owned());
    }
    labels
}
