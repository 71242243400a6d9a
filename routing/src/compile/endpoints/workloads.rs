//! Pods and WorkloadEntries by namespace: what endpoints are looked up in, and what selectors pick from.
//!
//! Invariant: the part of a namespace is the very same as before while each of its pods and workloads is, so that a pod of one namespace
//! is no reason to look at the services of another.

use config_model::{
    istio,
    kubernetes::Pod,
    meta::{Kind, Resource},
    validate::Validated,
};
use foldhash::fast::FixedState;
use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

/// Annotation of a WorkloadEntry whose status says whether it is well.
const HEALTH_CHECKS: &str = "proxy.istio.io/health-checks-enabled";

/// All of them.
#[derive(Debug, Default)]
pub(in crate::compile) struct Workloads {
    namespaces: HashMap<String, Arc<OfNamespace>, FixedState>,
}

/// Those of one namespace.
#[derive(Debug, Default)]
pub(super) struct OfNamespace {
    /// By name.
    pods: Vec<Arc<Resource<Pod>>>,
    /// Indices of `pods`; those whose address is not known are not there.
    by_ip: HashMap<String, usize, FixedState>,
    /// Oldest first.
    workloads: Vec<Arc<Resource<istio::WorkloadEntry>>>,
    /// Those of them that are used.
    used: Vec<Workload>,
}

/// A WorkloadEntry with the labels that it has: its metadata's win over its own.
#[derive(Debug)]
pub(super) struct Workload {
    pub(super) resource: Arc<Resource<istio::WorkloadEntry>>,
    pub(super) labels: BTreeMap<String, String>,
}

impl Workload {
    /// `None` where it is not to be used: its health is checked, and nobody said that it is well (Istio:
    /// serviceentry/controller.go `convertWorkloadEntryToWorkloadInstance`).
    fn of(resource: &Arc<Resource<istio::WorkloadEntry>>) -> Option<Self> {
        let meta = &resource.meta;
        let checked = meta.annotations.get(HEALTH_CHECKS).is_some_and(|value| value == "true");
        if checked && meta.conditions.get("Healthy").is_none_or(|status| status != "True") {
            return None;
        }
        let mut labels = resource.spec.labels.clone();
        labels.extend(meta.labels.iter().map(|(key, value)| (key.clone(), value.clone())));
        Some(Self { resource: Arc::clone(resource), labels })
    }
}

impl Workloads {
    /// What they are made of.
    pub(in crate::compile) const KINDS: [Kind; 2] = [Kind::Pod, Kind::WorkloadEntry];

    /// Takes up what the configuration has now.
    pub(in crate::compile) fn follow(&mut self, input: &Validated) {
        let mut now: HashMap<&str, OfNamespace, FixedState> = HashMap::default();
        for pod in input.pods().values() {
            now.entry(&pod.key.namespace).or_default().pods.push(Arc::clone(pod));
        }
        for workload in input.workload_entries() {
            now.entry(&workload.key.namespace).or_default().workloads.push(Arc::clone(workload));
        }
        self.namespaces.retain(|namespace, _| now.contains_key(namespace.as_str()));
        for (namespace, mut found) in now {
            if self.namespaces.get(namespace).is_some_and(|known| known.is(&found)) {
                continue;
            }
            found.index();
            self.namespaces.insert(namespace.to_owned(), Arc::new(found));
        }
    }

    pub(super) fn of(&self, namespace: &str) -> Option<&Arc<OfNamespace>> {
        self.namespaces.get(namespace)
    }
}

impl OfNamespace {
    fn is(&self, other: &OfNamespace) -> bool {
        fn same<T>(a: &[Arc<T>], b: &[Arc<T>]) -> bool {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| Arc::ptr_eq(a, b))
        }
        same(&self.pods, &other.pods) && same(&self.workloads, &other.workloads)
    }

    fn index(&mut self) {
        for (at, pod) in self.pods.iter().enumerate() {
            for ip in super::pod_ips(&pod.spec) {
                self.by_ip.insert(ip.to_owned(), at);
            }
        }
        self.used = self.workloads.iter().filter_map(Workload::of).collect();
    }

    /// All pods, by name.
    pub(super) fn pods(&self) -> &[Arc<Resource<Pod>>] {
        &self.pods
    }

    /// The WorkloadEntries that are used, oldest first.
    pub(super) fn workloads(&self) -> &[Workload] {
        &self.used
    }

    /// A pod by its name.
    pub(super) fn pod(&self, name: &str) -> Option<&Arc<Resource<Pod>>> {
        let at = self.pods.binary_search_by(|pod| pod.key.name.as_str().cmp(name)).ok()?;
        self.pods.get(at)
    }

    /// A pod by one of its addresses.
    pub(super) fn pod_at(&self, ip: &str) -> Option<&Arc<Resource<Pod>>> {
        self.pods.get(*self.by_ip.get(ip)?)
    }
}
