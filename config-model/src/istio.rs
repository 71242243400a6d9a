//! Mirrors of the kinds of `networking.istio.io`, `security.istio.io` and `telemetry.istio.io`, one file a kind, with every field of
//! the API.
//!
//! Invariant: names and nesting are the API's, in snake case. Absent lists and maps are empty, absent messages are
//! `None`. Rules that span fields belong to validation.

pub mod authorization_policy;
pub mod credential;
pub mod destination_rule;
pub mod gateway;
pub mod peer_authentication;
pub mod request_authentication;
pub mod service_entry;
pub mod sidecar;
pub mod target_ref;
pub mod telemetry;
pub mod virtual_service;
pub mod workload_entry;
pub mod workload_group;

pub use authorization_policy::AuthorizationPolicy;
pub use destination_rule::DestinationRule;
pub use gateway::Gateway;
pub use peer_authentication::PeerAuthentication;
pub use request_authentication::RequestAuthentication;
pub use service_entry::ServiceEntry;
pub use sidecar::Sidecar;
pub use target_ref::PolicyTargetReference;
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

/// The resources that a policy is for: the old single field counts where the list is empty.
fn attachment<'a>(
    one: Option<&'a PolicyTargetReference>,
    list: &'a [PolicyTargetReference],
) -> &'a [PolicyTargetReference] {
    if list.is_empty() { one.map(std::slice::from_ref).unwrap_or_default() } else { list }
}
