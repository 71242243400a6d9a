//! `WorkloadEntry`: one endpoint outside the cluster; also the form of a ServiceEntry's endpoints.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::scalar::{PortNumber, lenient};

/// A WorkloadEntry's spec.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct WorkloadEntry {
    /// IP address, DNS name, or `unix:///path`.
    pub address: String,
    /// Port by the service port's name.
    pub ports: BTreeMap<String, PortNumber>,
    /// Labels of the endpoint.
    pub labels: BTreeMap<String, String>,
    /// Network identifier.
    pub network: String,
    /// `region/zone/subzone`.
    pub locality: String,
    /// Weight of the endpoint; 0 is 1.
    #[serde(deserialize_with = "lenient::int")]
    pub weight: u32,
    /// Service account of the workload.
    pub service_account: String,
}
