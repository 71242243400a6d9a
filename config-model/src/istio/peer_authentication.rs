//! `PeerAuthentication` (`security.istio.io`): whether a sidecar asks for mutual TLS. A gateway's servers say it themselves.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::WorkloadSelector;
use crate::scalar::lenient;

/// A PeerAuthentication's spec.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct PeerAuthentication {
    /// The pods this is for; absent is all of the namespace, and in the root namespace all of the mesh.
    pub selector: Option<WorkloadSelector>,
    /// What is asked for on every port.
    pub mtls: Option<MutualTls>,
    /// What is asked for on single ports.
    #[serde(deserialize_with = "lenient::int_keys")]
    pub port_level_mtls: BTreeMap<i64, MutualTls>,
}

/// What is asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct MutualTls {
    /// How much is asked for.
    pub mode: MutualTlsMode,
}

/// How much is asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[allow(missing_docs, reason = "each arm is the API's own value")]
pub enum MutualTlsMode {
    #[default]
    Unset,
    Disable,
    Permissive,
    Strict,
}
