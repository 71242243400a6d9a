//! Mirrors of the kinds of `networking.istio.io` and `telemetry.istio.io`, one file a kind, with every field of the API; of
//! `security.istio.io` as much as routing asks for.
//!
//! Invariant: names and nesting are the API's, in snake case. Absent lists and maps are empty, absent messages are
//! `None`. Rules that span fields belong to validation.

pub mod credential;
pub mod destination_rule;
pub mod gateway;
pub mod request_authentication;
pub mod service_entry;
pub mod sidecar;
pub mod telemetry;
pub mod virtual_service;
pub mod workload_entry;
pub mod workload_group;

pub use destination_rule::DestinationRule;
pub use gateway::Gateway;
pub use request_authentication::RequestAuthentication;
pub use service_entry::ServiceEntry;
pub use sidecar::Sidecar;
pub use telemetry::Telemetry;
pub use virtual_service::VirtualService;
pub use workload_entry::WorkloadEntry;
pub use workload_group::WorkloadGroup;

use std::collections::BTreeMap;

use serde::Deserialize;

/// Selects workloads by labels: all pairs must be on the pod. Some kinds call the field `matchLabels`, the others `labels`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct WorkloadSelector {
    /// The labels a workload must carry.
    #[serde(alias = "matchLabels")]
    pub labels: BTreeMap<String, String>,
}

/// Names a resource that a policy is for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct PolicyTargetReference {
    /// API group; empty is the core group.
    pub group: String,
    /// Kind; required by validation.
    pub kind: String,
    /// Name; required by validation.
    pub name: String,
    /// Namespace; must be empty, which is the policy's own.
    pub namespace: String,
}
