//! Who is behind an endpoint, in the words of Istio's metrics.
//!
//! Invariant: names are derived from metadata as istiod derives them, and an empty text is what is not known. Endpoints of one
//! workload share one value.

use config_model::meta::Metadata;
use std::{
    collections::BTreeMap,
    sync::{Arc, LazyLock},
};

/// A workload: the pods of a Deployment, or a WorkloadEntry.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Workload {
    /// Name of the Deployment, or of what else owns the pods.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// Service that it is a part of, by its labels.
    pub canonical_service: String,
    /// Revision of that service; `latest` where none is told.
    pub canonical_revision: String,
    /// Label `app`.
    pub app: String,
    /// Label `version`.
    pub version: String,
}

/// Label that names the workload in place of its owner.
const NAME_LABEL: &str = "service.istio.io/workload-name";
/// Annotation with the WorkloadGroup that made a WorkloadEntry.
const GROUP_ANNOTATION: &str = "istio.io/autoRegistrationGroup";

impl Workload {
    /// Nobody that is known.
    #[must_use]
    pub fn unknown() -> Arc<Self> {
        static UNKNOWN: LazyLock<Arc<Workload>> =
            LazyLock::new(|| Arc::new(Workload::of("", "", &BTreeMap::new())));
        Arc::clone(&UNKNOWN)
    }

    /// A workload of that name, with what its labels tell (Istio: kubelabels.CanonicalService).
    #[must_use]
    pub fn of(name: &str, namespace: &str, labels: &BTreeMap<String, String>) -> Self {
        let first = |keys: [&str; 3]| keys.iter().find_map(|key| labels.get(*key));
        let label = |key: &str| labels.get(key).cloned().unwrap_or_default();
        let service = first(["service.istio.io/canonical-name", "app.kubernetes.io/name", "app"]);
        let revision = first(["service.istio.io/canonical-revision", "app.kubernetes.io/version", "version"]);
        Self {
            name: name.to_owned(),
            namespace: namespace.to_owned(),
            canonical_service: service.map_or(name, String::as_str).to_owned(),
            canonical_revision: revision.map_or("latest", String::as_str).to_owned(),
            app: label("app"),
            version: label("version"),
        }
    }

    /// The workload of a pod (Istio: GetWorkloadMetaFromPod).
    #[must_use]
    pub fn of_pod(pod: &Metadata) -> Self {
        let name = pod.labels.get(NAME_LABEL).cloned().unwrap_or_else(|| owner(pod));
        Self::of(&name, &pod.namespace, &pod.labels)
    }

    /// The workload of a WorkloadEntry: its group, its label, or itself (Istio: WorkloadNameFromWorkloadEntry). Labels of the
    /// service are those of its spec.
    #[must_use]
    pub fn of_entry(entry: &Metadata, labels: &BTreeMap<String, String>) -> Self {
        let told = entry.annotations.get(GROUP_ANNOTATION).or_else(|| entry.labels.get(NAME_LABEL));
        Self::of(told.unwrap_or(&entry.name), &entry.namespace, labels)
    }
}

/// What a pod belongs to: its owner, or where that was made by another, the other (Istio: GetDeployMetaFromPod).
fn owner(pod: &Metadata) -> String {
    let Some(owner) = pod.owner_references.iter().find(|owner| owner.controller) else {
        return pod.name.clone();
    };
    if pod.generate_name.is_empty() {
        return pod.name.clone();
    }
    let without_hash = |label: &str| {
        let hash = pod.labels.get(label).filter(|hash| !hash.is_empty())?;
        owner.name.ends_with(hash.as_str()).then(|| {
            let stem = owner.name.strip_suffix(hash.as_str()).unwrap_or(&owner.name);
            stem.strip_suffix('-').map_or_else(|| owner.name.clone(), str::to_owned)
        })
    };
    let made_by_another = match owner.kind.as_str() {
        "ReplicaSet" => {
            without_hash("pod-template-hash").or_else(|| without_hash("rollouts-pod-template-hash"))
        }
        "ReplicationController" => {
            pod.labels.get("deploymentconfig").filter(|name| !name.is_empty()).cloned()
        }
        "Job" => cron_job(&owner.name),
        _ => None,
    };
    let name = made_by_another.unwrap_or_else(|| owner.name.clone());
    if name.is_empty() { pod.name.clone() } else { name }
}

/// The CronJob that made a Job: its name without `-` and a time of 8 to 10 digits.
fn cron_job(job: &str) -> Option<String> {
    let (name, time) = job.rsplit_once('-')?;
    ((8..=10).contains(&time.len()) && time.bytes().all(|b| b.is_ascii_digit())).then(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use config_model::meta::OwnerReference;

    fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    fn pod(kind: &str, owner: &str, pairs: &[(&str, &str)]) -> Metadata {
        Metadata {
            name: "reviews-v1-5f6b7c9d8-x2x4z".to_owned(),
            generate_name: "reviews-v1-5f6b7c9d8-".to_owned(),
            namespace: "shop".to_owned(),
            labels: labels(pairs),
            owner_references: vec![OwnerReference {
                kind: kind.to_owned(),
                name: owner.to_owned(),
                controller: true,
            }],
            ..Metadata::default()
        }
    }

    #[test]
    fn a_pod_belongs_to_what_people_wrote() {
        let hash = ("pod-template-hash", "5f6b7c9d8");
        for (kind, owner, pairs, name) in [
            ("ReplicaSet", "reviews-v1-5f6b7c9d8", vec![hash], "reviews-v1"),
            ("ReplicaSet", "reviews-v1-5f6b7c9d8", vec![], "reviews-v1-5f6b7c9d8"),
            ("ReplicaSet", "web-1234", vec![("rollouts-pod-template-hash", "1234")], "web"),
            ("StatefulSet", "db", vec![], "db"),
            ("DaemonSet", "agent", vec![hash], "agent"),
            ("Job", "report-28912345", vec![], "report"),
            ("Job", "report-12", vec![], "report-12"),
            ("ReplicationController", "old-3", vec![("deploymentconfig", "old")], "old"),
            ("ReplicaSet", "a-5f6b7c9d8", vec![hash, (NAME_LABEL, "mine")], "mine"),
        ] {
            assert_eq!(Workload::of_pod(&pod(kind, owner, &pairs)).name, name, "{kind} {owner}");
        }
        let mut bare = pod("ReplicaSet", "reviews-v1-5f6b7c9d8", &[hash]);
        bare.generate_name.clear();
        assert_eq!(Workload::of_pod(&bare).name, bare.name);
        bare.owner_references.clear();
        assert_eq!(Workload::of_pod(&bare).name, bare.name);
    }

    #[test]
    fn the_service_is_told_by_labels_or_is_the_workload() {
        let all = labels(&[("app", "a"), ("app.kubernetes.io/name", "b"), ("version", "v1")]);
        let workload = Workload::of("w", "shop", &all);
        assert_eq!((&*workload.canonical_service, &*workload.canonical_revision), ("b", "v1"));
        assert_eq!((&*workload.app, &*workload.version), ("a", "v1"));
        let none = Workload::of("w", "shop", &BTreeMap::new());
        assert_eq!((&*none.canonical_service, &*none.canonical_revision), ("w", "latest"));
        assert_eq!(Workload::unknown().canonical_service, "");
    }

    #[test]
    fn an_entry_is_its_group() {
        let mut entry =
            Metadata { name: "vm-1".to_owned(), namespace: "shop".to_owned(), ..Metadata::default() };
        assert_eq!(Workload::of_entry(&entry, &BTreeMap::new()).name, "vm-1");
        entry.annotations.insert(GROUP_ANNOTATION.to_owned(), "vms".to_owned());
        let workload = Workload::of_entry(&entry, &labels(&[("app", "db")]));
        assert_eq!((&*workload.name, &*workload.canonical_service), ("vms", "db"));
    }
}
