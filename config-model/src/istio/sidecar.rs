//! `Sidecar`: reach and listeners of sidecar proxies. It has no effect on a gateway.

use serde::Deserialize;

use super::{
    WorkloadSelector, destination_rule::ConnectionPoolSettings, gateway::ServerTlsSettings,
    virtual_service::Destination,
};
use crate::scalar::PortNumber;

/// A Sidecar's spec.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Sidecar {
    /// The pods this is for; absent is the namespace's default.
    pub workload_selector: Option<WorkloadSelector>,
    /// Inbound listeners.
    pub ingress: Vec<IstioIngressListener>,
    /// Outbound listeners and imports.
    pub egress: Vec<IstioEgressListener>,
    /// Limits of inbound connections.
    pub inbound_connection_pool: Option<ConnectionPoolSettings>,
    /// What happens to unknown destinations.
    pub outbound_traffic_policy: Option<OutboundTrafficPolicy>,
}

/// An inbound listener.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct IstioIngressListener {
    /// The port.
    pub port: Option<SidecarPort>,
    /// Address to listen on.
    pub bind: String,
    /// How traffic gets here.
    pub capture_mode: CaptureMode,
    /// Where the application listens.
    pub default_endpoint: String,
    /// TLS of the listener.
    pub tls: Option<ServerTlsSettings>,
    /// Limits of connections.
    pub connection_pool: Option<ConnectionPoolSettings>,
}

/// An outbound listener.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct IstioEgressListener {
    /// The port; absent is the catch-all.
    pub port: Option<SidecarPort>,
    /// Address to listen on.
    pub bind: String,
    /// How traffic gets here.
    pub capture_mode: CaptureMode,
    /// Imports as `namespace/host`.
    pub hosts: Vec<String>,
}

/// A listener port.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct SidecarPort {
    /// The number; `None` is 0, legal only with a unix socket.
    #[serde(deserialize_with = "PortNumber::or_zero")]
    pub number: Option<PortNumber>,
    /// Protocol name.
    pub protocol: String,
    /// Name.
    pub name: String,
    /// Deprecated and without effect.
    #[serde(deserialize_with = "PortNumber::or_zero")]
    pub target_port: Option<PortNumber>,
}

/// How traffic gets to a sidecar's listener.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[allow(missing_docs, reason = "each arm is the API's own value")]
pub enum CaptureMode {
    #[default]
    Default,
    Iptables,
    None,
}

/// What happens to unknown destinations.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct OutboundTrafficPolicy {
    /// The zero value is REGISTRY_ONLY.
    pub mode: OutboundTrafficMode,
    /// A proxy for them; only with ALLOW_ANY.
    pub egress_proxy: Option<Destination>,
}

/// What happens to unknown destinations.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[allow(missing_docs, reason = "each arm is the API's own value")]
pub enum OutboundTrafficMode {
    #[default]
    RegistryOnly,
    AllowAny,
    AllowAnyDynamicDns,
}
