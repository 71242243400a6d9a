//! From a service port to the endpoints that the configuration names, and how more come to be known.
//!
//! Invariant: endpoints come in a fixed order and no address twice, so that equal configuration compares equal.

mod collector;
mod entries;
mod of_kubernetes;
mod workloads;

use super::{
    Identity, locality,
    registry::{Port, Service, Source},
};
use crate::cluster::{Discovery, Endpoint};
use config_model::{
    kubernetes::{self, EndpointSlice, Endpoints},
    meta::{Kind, Resource, ResourceKey},
    set::Resources,
    validate::Validated,
};
use foldhash::fast::FixedState;
use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};
use workloads::OfNamespace;
pub(super) use workloads::Workloads;

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
    /// By namespace, then by the Service's name.
    slices: HashMap<&'a str, HashMap<&'a str, Slices<'a>, FixedState>, FixedState>,
    endpoints: &'a Resources<Endpoints>,
    workloads: &'a Workloads,
}

type Slices<'a> = Vec<&'a Arc<Resource<EndpointSlice>>>;

/// What the endpoints of one service are made of.
#[derive(Debug)]
pub(super) struct Ingredients {
    slices: Vec<Arc<Resource<EndpointSlice>>>,
    endpoints: Option<Arc<Resource<Endpoints>>>,
    workloads: Option<Arc<OfNamespace>>,
}

impl PartialEq for Ingredients {
    /// The very same ones, not only equal ones.
    fn eq(&self, other: &Self) -> bool {
        fn same<T>(a: &Option<Arc<T>>, b: &Option<Arc<T>>) -> bool {
            a.as_ref().map(Arc::as_ptr) == b.as_ref().map(Arc::as_ptr)
        }
        self.slices.len() == other.slices.len()
            && self.slices.iter().zip(&other.slices).all(|(a, b)| Arc::ptr_eq(a, b))
            && same(&self.endpoints, &other.endpoints)
            && same(&self.workloads, &other.workloads)
    }
}

impl<'a> EndpointSources<'a> {
    /// Indexes what the configuration has.
    pub(super) fn new(input: &'a Validated, identity: &'a Identity, workloads: &'a Workloads) -> Self {
        let mut slices: HashMap<&str, HashMap<&str, Slices<'_>, _>, _> = HashMap::default();
        for resource in input.endpoint_slices().values() {
            if let Some(service) = resource.meta.labels.get(EndpointSlice::SERVICE_LABEL) {
                let of_namespace = slices.entry(&resource.key.namespace).or_default();
                of_namespace.entry(service).or_default().push(resource);
            }
        }
        Self {
            own_node: identity.labels.get(locality::NODE).map(String::as_str),
            slices,
            endpoints: input.endpoints(),
            workloads,
        }
    }

    /// What the endpoints of a service are made of, but for itself.
    pub(super) fn ingredients(&self, service: &Service) -> Ingredients {
        let (slices, endpoints) = match &service.source {
            Source::Kubernetes(resource) => (
                self.slices_of(resource).into_iter().flatten().copied().cloned().collect(),
                self.endpoints_of(resource).cloned(),
            ),
            Source::Entries(_) => (Vec::new(), None),
        };
        Ingredients { slices, endpoints, workloads: self.workloads.of(service.namespace()).cloned() }
    }

    /// The endpoints of a port; `None` where such a service has no cluster at all.
    pub(super) fn of(&self, service: &Service, port: &Port) -> Option<Resolved> {
        match &service.source {
            Source::Kubernetes(resource) => self.of_kubernetes(resource, service, port),
            Source::Entries(entries) => self.of_entries(entries, service, port),
        }
    }

    fn slices_of(&self, service: &Resource<kubernetes::Service>) -> Option<&Slices<'a>> {
        self.slices.get(service.key.namespace.as_str())?.get(service.key.name.as_str())
    }

    fn endpoints_of(&self, service: &Resource<kubernetes::Service>) -> Option<&'a Arc<Resource<Endpoints>>> {
        // There are none in most clusters, and a key is two strings.
        let key =
            || ResourceKey::new(Kind::Endpoints, service.key.namespace.as_str(), service.key.name.as_str());
        if self.endpoints.is_empty() { None } else { self.endpoints.get(&key()) }
    }
}

fn pod_ips(pod: &kubernetes::Pod) -> impl Iterator<Item = &str> {
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
            let (compiled, findings) = crate::compile::compile(&input, identity);
            let cluster = compiled.clusters.values().find(|c| c.spec.port == 80).unwrap();
            let told = findings.iter().filter(|f| f.message.contains("internalTrafficPolicy")).count();
            (cluster.endpoints.iter().map(|e| e.address.to_string()).collect(), told)
        };
        assert_eq!(addresses(&identity), (vec!["10.1.0.1:8081".to_owned(), "10.1.0.2:8081".to_owned()], 1));
        identity.labels.insert("kubernetes.io/hostname".to_owned(), "n2".to_owned());
        assert_eq!(addresses(&identity), (vec!["10.1.0.2:8081".to_owned()], 0));
    }

    #[test]
    fn endpoints_know_whom_they_belong_to_and_share_it() {
        let yaml = SERVICE.replace("CLUSTER_IP", "10.0.0.1")
            + "---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: a-1, namespace: shop, labels: {kubernetes.io/service-name: a}}
addressType: IPv4
ports: [{name: http, port: 8081}]
endpoints: [{addresses: [10.1.0.1]}, {addresses: [10.1.0.2]}, {addresses: [10.1.0.3]}]
---
apiVersion: v1
kind: Pod
metadata: {name: a-v1-7f-1, generateName: a-v1-7f-, namespace: shop, labels: {app: a, version: v1, pod-template-hash: 7f},
  ownerReferences: [{kind: ReplicaSet, name: a-v1-7f, controller: true}]}
status: {podIP: 10.1.0.1}
---
apiVersion: v1
kind: Pod
metadata: {name: a-v1-7f-2, generateName: a-v1-7f-, namespace: shop, labels: {app: a, version: v1, pod-template-hash: 7f},
  ownerReferences: [{kind: ReplicaSet, name: a-v1-7f, controller: true}]}
status: {podIP: 10.1.0.2}
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: db, namespace: shop}
spec: {hosts: [db.example], resolution: STATIC, ports: [{number: 80, name: a, protocol: HTTP}], endpoints: [{address: 10.2.0.1, labels: {app: db}}]}
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: out, namespace: shop}
spec: {hosts: [out.example], resolution: DNS, ports: [{number: 80, name: a, protocol: HTTP}]}
";
        let (compiled, _) = compiled(&yaml);
        let identities = |name: &str| -> Vec<_> {
            let (_, cluster) = compiled.clusters.iter().find(|(found, _)| found.as_str() == name).unwrap();
            cluster.endpoints.iter().map(|endpoint| endpoint.identity.clone()).collect()
        };
        let pods = identities("outbound|80||a.shop.svc.cluster.local");
        assert_eq!((&*pods[0].name, &*pods[0].canonical_revision), ("a-v1", "v1"));
        assert!(std::sync::Arc::ptr_eq(&pods[0], &pods[1]), "one workload");
        assert_eq!(pods[2].name, "", "of this one nothing is known");
        assert_eq!(identities("outbound|80||db.example")[0].name, "db-0");
        assert_eq!(identities("outbound|80||out.example")[0].name, "out");
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
- {addresses: [10.1.0.2], conditions: {ready: false, terminating: false}}
- {addresses: [10.1.0.3], conditions: {ready: false, serving: true, terminating: true}}
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
    fn a_named_target_port_has_the_number_of_each_slice_and_pods_are_in_the_zone_of_theirs() {
        let slice = |name: &str, port: u16, endpoints: &str| {
            format!(
                "---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: {name}, namespace: shop, labels: {{kubernetes.io/service-name: a}}}}
addressType: IPv4
ports: [{{name: http, port: {port}}}]
endpoints: [{endpoints}]
"
            )
        };
        let yaml = SERVICE.replace("CLUSTER_IP", "10.0.0.1").replace("targetPort: 8080", "targetPort: web")
            + &slice(
                "a-1",
                8081,
                "{addresses: [10.1.0.1], zone: z1, conditions: {ready: true, serving: true}}",
            )
            + &slice("a-2", 9090, "{addresses: [10.1.0.2], zone: z2, conditions: {serving: true}}")
            + &slice(
                "a-3",
                9091,
                "{addresses: [10.1.0.3], conditions: {ready: false, serving: true, terminating: true}}",
            )
            + &slice("a-4", 9092, "{addresses: [10.1.0.4], conditions: {ready: false, terminating: false}}");
        let (compiled, _) = compiled(&yaml);
        let cluster = compiled.clusters.values().find(|cluster| cluster.spec.port == 80).unwrap();
        let found = cluster.endpoints.iter();
        let found: Vec<String> =
            found.map(|e| format!("{} {:?} {}", e.address, e.health, e.place.locality)).collect();
        // Who is not said to be unready is ready; who leaves is left, though it would still serve (Istio, without sticky sessions).
        assert_eq!(
            found,
            ["10.1.0.1:8081 Healthy /z1", "10.1.0.2:9090 Healthy /z2", "10.1.0.4:9092 Unhealthy "]
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
