//! The gateways of networks: addresses that MeshNetworks names, Services that say where they lead, and Services that it names.
//!
//! Invariant: a gateway that is a Service is reached at its external addresses only (Istio: kube/controller/network.go). One that cannot be
//! had is left out; where somebody has named it, it is a finding.

use crate::{cluster::Address, compile::locality::NETWORK};
use config_model::{
    diagnostic::{Code, Diagnostic},
    kubernetes::{Service, ServiceType},
    mesh::{MeshConfig, Network},
    meta::{Kind, Resource, ResourceKey},
    validate::Validated,
};
use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
};

/// Label of a Service with the port of the gateway that it is, and the port where it says none.
const GATEWAY_PORT: &str = "networking.istio.io/gatewayPort";
const DEFAULT_GATEWAY_PORT: u16 = 15443;

/// Annotation of a Service whose external addresses are those of nodes.
const NODE_SELECTOR: &str = "traffic.istio.io/nodeSelector";

/// Whether the endpoints of a cluster are of a network.
pub(super) fn has(network: &Network, cluster: &str) -> bool {
    network.endpoints.iter().any(|of| !of.from_registry.is_empty() && of.from_registry == cluster)
}

/// The gateways of a network.
#[derive(Default)]
pub(super) struct Found {
    /// Services of the cluster that is read.
    pub(super) of_cluster: Vec<Address>,
    pub(super) all: Vec<Address>,
}

/// The gateways of each network, and what is to be said of those that cannot be had. `own` is the network of who asks.
pub(super) fn find(
    now: &Validated,
    own: &str,
    domain: &str,
    cluster: &str,
) -> (BTreeMap<String, Found>, Vec<Diagnostic>) {
    let mut making = Making { now, own, domain, found: BTreeMap::new(), findings: Vec::new() };
    making.by_address(now.mesh());
    making.by_label();
    for (name, network) in &now.mesh().networks {
        making.by_name(name, network, has(network, cluster), cluster);
    }
    (making.found, making.findings)
}

/// Gateways in the making.
struct Making<'m> {
    now: &'m Validated,
    /// The gateway's own network.
    own: &'m str,
    domain: &'m str,
    found: BTreeMap<String, Found>,
    findings: Vec<Diagnostic>,
}

impl Making<'_> {
    fn by_address(&mut self, mesh: &MeshConfig) {
        for (name, network) in &mesh.networks {
            for gateway in network.gateways.iter().filter(|gateway| !gateway.address.is_empty()) {
                if let Some(port) = port(gateway.port) {
                    let all = &mut self.found.entry(name.clone()).or_default().all;
                    all.push(address(&gateway.address, port));
                }
            }
        }
    }

    /// Services that say by a label which network they lead to (Istio: kube/controller/network.go `getGatewayDetails`).
    fn by_label(&mut self) {
        for resource in self.now.services().values() {
            let labels = &resource.meta.labels;
            let Some(network) = labels.get(NETWORK).filter(|network| !network.is_empty()) else { continue };
            let port = labels.get(GATEWAY_PORT).and_then(|port| port.parse().ok()).filter(|port| *port > 0);
            self.service(resource, network, port.unwrap_or(DEFAULT_GATEWAY_PORT));
        }
    }

    /// Services that MeshNetworks names. Only those of a cluster whose endpoints are of the network are looked for.
    fn by_name(&mut self, name: &str, network: &Network, is_of_cluster: bool, cluster: &str) {
        for (index, gateway) in network.gateways.iter().enumerate() {
            let wanted = gateway.registry_service_name.as_str();
            if wanted.is_empty() || !gateway.address.is_empty() {
                continue;
            }
            let field = format!("{name}.gateways[{index}].registryServiceName");
            if !is_of_cluster {
                let clusters: Vec<&str> =
                    network.endpoints.iter().map(|of| of.from_registry.as_str()).collect();
                let of = clusters.into_iter().find(|of| !of.is_empty()).unwrap_or("another cluster");
                self.report(
                    Code::NOT_YET_HONOURED,
                    format!("network {name}: gateway {wanted:?} is a Service of {of}, and only {cluster} is read"),
                    field,
                    "write the gateway's address; or, where this cluster is meant, give the network the endpoints fromRegistry of its name",
                );
                continue;
            }
            let found =
                self.now.services().values().find(|service| self.is_called(&service.key, wanted)).cloned();
            match (found, port(gateway.port)) {
                (Some(service), Some(port)) => {
                    // A Service that says itself where it leads is not asked again.
                    let says = service.meta.labels.get(NETWORK).is_some_and(|network| !network.is_empty());
                    if !says && self.service(&service, name, port) == 0 {
                        self.report(
                            Code::RULE_DROPPED,
                            format!("network {name}: gateway {wanted:?} has neither a load balancer's address nor externalIPs"),
                            field,
                            "endpoints of the network are reached by its other gateways, or without any at their own address",
                        );
                    }
                }
                (None, _) => self.report(
                    Code::REFERENCE_NOT_FOUND,
                    format!("network {name}: there is no Service {wanted:?} to be its gateway"),
                    field,
                    "write the full name, service.namespace.svc.cluster.local",
                ),
                (Some(_), None) => self.report(
                    Code::RULE_DROPPED,
                    format!("network {name}: gateway {wanted:?} has no port"),
                    field,
                    "write the port where the gateway passes mutual TLS on, mostly 15443",
                ),
            }
        }
    }

    /// Adds a Service at its external addresses (Istio: `ClusterExternalAddresses`), and says how many there are.
    fn service(&mut self, resource: &Resource<Service>, network: &str, port: u16) -> usize {
        let spec = &resource.spec;
        let balanced =
            (spec.service_type == ServiceType::LoadBalancer).then_some(&resource.meta.load_balancers);
        let all = balanced.into_iter().flatten().chain(&spec.external_ips).filter(|at| !at.is_empty());
        let addresses: Vec<Address> = all.map(|at| address(at, port)).collect();
        if resource.meta.annotations.contains_key(NODE_SELECTOR) && network != self.own {
            let message = format!(
                "the Service is a gateway of network {network} at addresses of nodes, which are not read"
            );
            let finding = Diagnostic::new(Code::NOT_YET_HONOURED, message)
                .about(&resource.key, &resource.origin)
                .at(format!("metadata.annotations.{NODE_SELECTOR}"))
                .hint("write the addresses into MeshNetworks, or give the Service externalIPs");
            self.findings.push(finding);
        }
        let found = self.found.entry(network.to_owned()).or_default();
        found.of_cluster.extend(addresses.iter().cloned());
        let count = addresses.len();
        found.all.extend(addresses);
        count
    }

    fn is_called(&self, key: &ResourceKey, wanted: &str) -> bool {
        let rest = wanted.strip_prefix(key.name.as_str()).and_then(|rest| rest.strip_prefix('.'));
        let rest = rest.and_then(|rest| rest.strip_prefix(key.namespace.as_str())?.strip_prefix(".svc."));
        rest == Some(self.domain)
    }

    fn report(&mut self, code: Code, message: String, field: String, hint: &str) {
        let root = MeshConfig::default().root_namespace;
        let key = ResourceKey::new(Kind::ConfigMap, root.as_str(), MeshConfig::CONFIG_MAP);
        let mut finding = Diagnostic::new(code, message);
        if let Some(from) = self.now.config_maps().get(&key) {
            finding = finding.about(&from.key, &from.origin);
        }
        let path = format!("data.{}: networks.{field}", MeshConfig::NETWORKS_KEY);
        self.findings.push(finding.at(path).hint(hint));
    }
}

fn port(number: u32) -> Option<u16> {
    u16::try_from(number).ok().filter(|port| *port > 0)
}

fn address(written: &str, port: u16) -> Address {
    match written.parse::<IpAddr>() {
        Ok(ip) => Address::Ip(SocketAddr::new(ip, port)),
        Err(_) => Address::Name(written.into(), port),
    }
}
