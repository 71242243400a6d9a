//! What the server serves, and how a client finds that out.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

/// A resource type that is served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Type {
    pub(crate) group: &'static str,
    pub(crate) version: &'static str,
    pub(crate) kind: &'static str,
    pub(crate) plural: &'static str,
    pub(crate) namespaced: bool,
}

/// A kind of Kubernetes' own core.
const fn core(kind: &'static str, plural: &'static str) -> Type {
    Type { group: "", version: "v1", kind, plural, namespaced: true }
}

/// A kind of Istio's networking API in a version.
pub(crate) const fn istio(version: &'static str, kind: &'static str, plural: &'static str) -> Type {
    Type { group: "networking.istio.io", version, kind, plural, namespaced: true }
}

const fn security(kind: &'static str, plural: &'static str) -> Type {
    Type { group: "security.istio.io", ..istio("v1", kind, plural) }
}

/// What a cluster with Istio's CRDs serves.
pub(crate) const ALL: [Type; 19] = [
    core("Service", "services"),
    core("Secret", "secrets"),
    core("ConfigMap", "configmaps"),
    core("Pod", "pods"),
    Type { namespaced: false, ..core("Namespace", "namespaces") },
    Type { group: "discovery.k8s.io", ..core("EndpointSlice", "endpointslices") },
    Type { group: "coordination.k8s.io", ..core("Lease", "leases") },
    Type { group: "events.k8s.io", ..core("Event", "events") },
    istio("v1", "Gateway", "gateways"),
    istio("v1", "VirtualService", "virtualservices"),
    istio("v1", "DestinationRule", "destinationrules"),
    istio("v1", "ServiceEntry", "serviceentries"),
    istio("v1", "WorkloadEntry", "workloadentries"),
    istio("v1", "Sidecar", "sidecars"),
    istio("v1", "WorkloadGroup", "workloadgroups"),
    security("AuthorizationPolicy", "authorizationpolicies"),
    security("PeerAuthentication", "peerauthentications"),
    security("RequestAuthentication", "requestauthentications"),
    Type { group: "telemetry.istio.io", ..istio("v1", "Telemetry", "telemetries") },
];

/// The groups, as `/apis` tells them.
pub(super) fn groups(types: &[Type]) -> Value {
    let mut groups: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for of in types.iter().filter(|of| !of.group.is_empty()) {
        groups.entry(of.group).or_default().insert(of.version);
    }
    let groups: Vec<Value> = groups
        .into_iter()
        .map(|(group, versions)| {
            let versions: Vec<Value> = versions
                .into_iter()
                .map(|version| json!({"groupVersion": format!("{group}/{version}"), "version": version}))
                .collect();
            json!({"name": group, "versions": versions, "preferredVersion": versions[0]})
        })
        .collect();
    json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
}

/// The types of a version of a group.
pub(super) fn resources(group: &str, version: &str, types: &[Type]) -> Value {
    let resources: Vec<Value> = types
        .iter()
        .flat_map(|of| {
            let verbs = json!(["get", "list", "watch", "create", "update", "patch", "delete"]);
            [
                json!({"name": format!("{}/status", of.plural), "singularName": "", "namespaced": of.namespaced,
                    "kind": of.kind, "verbs": ["get", "patch", "update"]}),
                json!({"name": of.plural, "singularName": "", "namespaced": of.namespaced, "kind": of.kind, "verbs": verbs}),
            ]
        })
        .collect();
    let group_version = if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
    json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version, "resources": resources})
}
