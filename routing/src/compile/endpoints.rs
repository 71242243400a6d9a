//! From a service port to the endpoints that the configuration names, and how more come to be known.
//!
//! Invariant: endpoints come in a fixed order and no address twice, so that equal configuration compares equal.

mod collector;
mod entries;
mod kubernetes;

use super::{
    Identity, locality,
    registry::{Port, Service, Source},
};
use crate::cluster::{Discovery, Endpoint};
use config_model::{
    istio,
    kubernetes::{EndpointSlice, Endpoints, Pod},
    meta::Resource,
    set::Resources,
    validate::Validated,
};
use std::collections::{BTreeSet, HashMap};

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
    /// The gateway's, where it is known.
    own_node: Option<&'a str>,
    slices: HashMap<(&'a str, &'a str), Vec<&'a EndpointSlice>>,
    endpoints: &'a Resources<Endpoints>,
    pods: &'a Resources<Pod>,
    pods_by_ip: HashMap<(&'a str, &'a str), &'a Resource<Pod>>,
    pods_by_namespace: HashMap<&'a str, Vec<&'a Resource<Pod>>>,
    workloads: HashMap<&'a str, Vec<&'a Resource<istio::WorkloadEntry>>>,
}

impl<'a> EndpointSources<'a> {
    /// Indexes what the configuration has.
    pub(super) fn new(input: &'a Validated, identity: &'a Identity) -> Self {
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
            own_node: identity.labels.get(locality::NODE).map(String::as_str),
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
}

fn pod_ips(pod: &Pod) -> impl Iterator<Item = &str> {
    let first = Some(pod.status.pod_ip.as_str());
    first.into_iter().chain(pod.status.pod_ips.iter().map(|p| p.ip.as_str())).filter(|ip| !ip.is_empty())
}

#[cfg(test)]
mod tests {
    use crate::compile::testing::compiled;

    fn endpoints(yaml: &str, cluster: &str) -> Vec<String> {
        let (compiled, _) = compiled(yaml);
        let (_, cluster) = compiled.clusters.iter().find(|(name, _)| name.as_str() == cluster).unwrap();
        cluster.endpoints.iter().map(|e| format!("{} {:?} {}", e.address, e.health, e.weight)).collect()
    }

    #[test]
    fn a_local_service_is_served_by_the_gateways_own_node() {
        let yaml = SERVICE
            .replace("CLUSTER_IP", "10.0.0.1")
            .replace("spec: {", "spec: {internalTrafficPolicy: Local, ")
            + "---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: a-1, namespace: shop, labels: {kubernetes.io/service-name: a}}
addressType: IPv4
ports: [{name: http, port: 8081}]
endpoints: [{addresses: [10.1.0.1], nodeName: n1}, {addresses: [10.1.0.2], nodeName: n2}]
";
        let input = crate::compile::testing::validated(&yaml);
        let mut identity = crate::compile::testing::identity();
        let addresses = |identity: &crate::compile::Identity| -> (Vec<String>, usize) {
            let (compiled, findings) = crate::compile::compile(&input, identity, None);
            let cluster = compiled.clusters.values().find(|c| c.spec.port == 80).unwrap();
            let told = findings.iter().filter(|f| f.message.contains("internalTrafficPolicy")).count();
            (cluster.endpoints.iter().map(|e| e.address.to_string()).collect(), told)
        };
        assert_eq!(addresses(&identity), (vec!["10.1.0.1:8081".to_owned(), "10.1.0.2:8081".to_owned()], 1));
        identity.labels.insert("kubernetes.io/hostname".to_owned(), "n2".to_owned());
        assert_eq!(addresses(&identity), (vec!["10.1.0.2:8081".to_owned()], 0));
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
