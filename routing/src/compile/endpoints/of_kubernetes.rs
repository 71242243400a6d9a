//! Endpoints of a Kubernetes Service: its slices, its Endpoints, the workloads that it selects, or itself.
//!
//! Invariant: a Service whose endpoints the configuration does not have is reached by its own address or name.

use super::{
    super::{
        locality,
        registry::{Port, Service},
    },
    EndpointSources, Resolved,
    collector::{Collector, Found},
};
use crate::cluster::{Address, Discovery, Health, Workload};
use config_model::{
    kubernetes::{self, EndpointSlice, ObjectReference, TargetPort},
    meta::Resource,
};
use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

impl EndpointSources<'_> {
    pub(super) fn of_kubernetes(
        &self,
        resource: &Resource<kubernetes::Service>,
        service: &Service,
        port: &Port,
    ) -> Option<Resolved> {
        let spec = &resource.spec;
        if spec.service_type == kubernetes::ServiceType::ExternalName {
            return None;
        }
        let written = spec.ports.iter().find(|p| p.port.get() == port.number && *p.name == *port.name);
        let target = match written.and_then(|p| p.target_port.as_ref()) {
            Some(TargetPort::Number(number)) => number.get(),
            Some(TargetPort::Name(_)) | None => port.number,
        };
        let mut found = Collector::default();
        let namespace = resource.key.namespace.as_str();
        let (slices, old) = (self.slices_of(resource), self.endpoints_of(resource));
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
                (&port.name, target),
                Discovery::Static,
                &mut found,
            );
        if slices.is_some() || old.is_some() || selected {
            // Istio: endpoints of other nodes are not the gateway's to use.
            if let Some(node) = self.own_node.filter(|_| spec.is_local()) {
                found.endpoints.retain(|e| e.labels.get(locality::NODE).is_some_and(|of| of == node));
            }
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
        slices: &[&Arc<Resource<EndpointSlice>>],
        namespace: &str,
        port: &Port,
        found: &mut Collector,
    ) {
        // One family only, as Istio without dual stack: else every pod would be there twice.
        let slices = slices.iter().map(|slice| &slice.spec);
        let v4 = slices.clone().any(|slice| slice.address_type != "IPv6" && slice.address_type != "FQDN");
        for slice in slices {
            let wanted = if v4 { slice.address_type != "IPv6" } else { slice.address_type == "IPv6" };
            if !wanted || slice.address_type == "FQDN" {
                continue;
            }
            let number = slice.ports.iter().find(|p| *p.name == *port.name).and_then(|p| p.port);
            let Some(number) = number else { continue };
            for endpoint in &slice.endpoints {
                let health = match (endpoint.conditions.is_ready(), endpoint.conditions.terminating) {
                    (true, _) => Health::Healthy,
                    // It leaves at once, without persistent sessions (Istio: endpointslice.go `endpointHealthStatus`).
                    (false, Some(true) | None) => continue,
                    (false, Some(false)) => Health::Unhealthy,
                };
                for ip in &endpoint.addresses {
                    self.push_pod(
                        (namespace, ip),
                        endpoint.target_ref.as_ref(),
                        (number.get(), health),
                        (endpoint.zone.as_deref(), endpoint.node_name.as_deref()),
                        found,
                    );
                }
            }
        }
    }

    fn add_endpoints(
        &self,
        endpoints: &kubernetes::Endpoints,
        namespace: &str,
        port: &Port,
        found: &mut Collector,
    ) {
        for subset in &endpoints.subsets {
            let number = subset.ports.iter().find(|p| *p.name == *port.name).and_then(|p| p.port);
            let Some(number) = number else { continue };
            let ready = subset.addresses.iter().map(|a| (a, Health::Healthy));
            let not_ready = subset.not_ready_addresses.iter().map(|a| (a, Health::Unhealthy));
            for (address, health) in ready.chain(not_ready) {
                let reference = address.target_ref.as_ref();
                self.push_pod(
                    (namespace, &address.ip),
                    reference,
                    (number.get(), health),
                    (None, address.node_name.as_deref()),
                    found,
                );
            }
        }
    }

    fn push_pod(
        &self,
        (namespace, ip): (&str, &str),
        reference: Option<&ObjectReference>,
        (port, health): (u16, Health),
        (zone, node): (Option<&str>, Option<&str>),
        found: &mut Collector,
    ) {
        let Ok(address) = ip.parse::<IpAddr>() else { return };
        let named = reference.filter(|r| r.kind == "Pod" || r.kind.is_empty());
        let known = self.workloads.of(namespace);
        let pod = known.and_then(|known| {
            named.and_then(|reference| known.pod(&reference.name)).or_else(|| known.pod_at(ip))
        });
        let workload = pod.map(|pod| pod.key.name.as_str()).or(named.map(|r| r.name.as_str()));
        if let Some(pod) = pod {
            found.account(namespace, &pod.spec.spec.service_account_name);
        }
        found.push(Found {
            locality: locality::of_pod(pod.map(|pod| &pod.meta.labels), zone),
            address: Address::Ip(SocketAddr::new(address, port)),
            health,
            node: pod
                .map(|pod| pod.spec.spec.node_name.clone())
                .filter(|node| !node.is_empty())
                .or_else(|| node.map(str::to_owned))
                .unwrap_or_default(),
            labels: pod.map(|pod| pod.meta.labels.clone()).unwrap_or_default(),
            workload: workload.filter(|name| !name.is_empty()).map(Arc::from),
            identity: pod.map(|pod| Workload::of_pod(&pod.meta)),
            ..Found::default_at(port)
        });
    }
}
