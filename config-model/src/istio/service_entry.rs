//! `ServiceEntry`: a service that the registry does not know by itself.

use serde::Deserialize;

use super::{WorkloadEntry, WorkloadSelector};
use crate::scalar::{HostPattern, PortNumber, list};

/// A ServiceEntry's spec.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ServiceEntry {
    /// Each becomes one service.
    #[serde(deserialize_with = "list::exact")]
    pub hosts: Vec<HostPattern>,
    /// Virtual addresses, by which a sidecar knows it; without meaning on a gateway.
    #[serde(deserialize_with = "list::exact")]
    pub addresses: Vec<String>,
    /// Service ports.
    #[serde(deserialize_with = "list::exact")]
    pub ports: Vec<ServicePort>,
    /// Inside or outside the mesh.
    pub location: Location,
    /// How endpoints are found.
    pub resolution: Resolution,
    /// Endpoints given in place.
    #[serde(deserialize_with = "list::exact")]
    pub endpoints: Vec<WorkloadEntry>,
    /// Endpoints by labels of WorkloadEntries and Pods; not together with `endpoints`.
    pub workload_selector: Option<WorkloadSelector>,
    /// Namespaces that may see this: `*`, `.`, `~`, or names.
    #[serde(deserialize_with = "list::exact")]
    pub export_to: Vec<String>,
    /// Names for the server certificate when the DestinationRule gives none.
    #[serde(deserialize_with = "list::exact")]
    pub subject_alt_names: Vec<String>,
}

/// A service port.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServicePort {
    /// The port that destinations name.
    pub number: PortNumber,
    /// Protocol name; empty is detected.
    #[serde(default)]
    pub protocol: String,
    /// Name; endpoints override the port by it.
    #[serde(default)]
    pub name: String,
    /// Port of the endpoints; absent is `number`.
    #[serde(default, deserialize_with = "PortNumber::or_zero")]
    pub target_port: Option<PortNumber>,
}

/// Inside or outside the mesh.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[allow(missing_docs, reason = "each arm is the API's own value")]
pub enum Location {
    #[default]
    MeshExternal,
    MeshInternal,
}

/// How endpoints are found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[allow(missing_docs, reason = "each arm is the API's own value")]
pub enum Resolution {
    #[default]
    None,
    Static,
    Dns,
    DnsRoundRobin,
    DynamicDns,
}
