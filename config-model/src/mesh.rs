//! The fields of MeshConfig and its default ProxyConfig that matter to a gateway, with Istio's defaults.
//!
//! Invariant: [`MeshConfig::default`] is what Istio uses when nothing is written. The text of the ConfigMap is read by
//! the parser, which alone knows YAML.

mod ext_authz;
pub mod provider;
mod proxy_headers;
mod tracing;

use std::collections::BTreeMap;

use serde::{Deserialize, de::IgnoredAny};

pub use ext_authz::{ExtAuthzBody, ExtAuthzGrpc, ExtAuthzHttp};
pub use provider::{DefaultProviders, ExtensionProvider};
pub use proxy_headers::{
    CurrentClientCertDetails, Disabled, Enabled, MetadataExchange, MetadataExchangeMode, ProxyHeaders,
    ServerHeader,
};
pub use tracing::{MeshTracing, ZipkinAddress};

use crate::{
    istio::{
        destination_rule::{
            ClientTlsSettings, H2UpgradePolicy, LocalityLbSetting, TcpKeepalive, TrafficPolicy,
            ZoneAwareLbSetting,
        },
        gateway::TlsProtocol,
        sidecar::OutboundTrafficMode,
        virtual_service::HttpRetry,
    },
    scalar::{Duration, lenient},
};

/// Mesh-wide settings.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct MeshConfig {
    /// Namespace of mesh-wide configuration and the last place a DestinationRule is looked for.
    pub root_namespace: String,
    /// Trust domain of workload identities.
    pub trust_domain: String,
    /// Trust domains whose identities count as this one's.
    pub trust_domain_aliases: Vec<String>,
    /// Time to connect to an endpoint.
    pub connect_timeout: Duration,
    /// Use mutual TLS where both ends can.
    pub enable_auto_mtls: bool,
    /// Visibility of Services and ServiceEntries that do not say.
    pub default_service_export_to: Vec<String>,
    /// Visibility of VirtualServices that do not say.
    pub default_virtual_service_export_to: Vec<String>,
    /// Visibility of DestinationRules that do not say.
    pub default_destination_rule_export_to: Vec<String>,
    /// Locality load balancing; on by default.
    pub locality_lb_setting: LocalityLbSetting,
    /// Zone-aware load balancing, before it; absent is off.
    pub zone_aware_lb_setting: Option<ZoneAwareLbSetting>,
    /// Retries of rules that do not say; absent is the built-in default.
    pub default_http_retry_policy: Option<HttpRetry>,
    /// Traffic policy blocks for rules that do not give them.
    pub default_traffic_policy: Option<TrafficPolicy>,
    /// Upgrade of HTTP/1 to HTTP/2 upstream.
    pub h2_upgrade_policy: H2UpgradePolicy,
    /// How paths are normalised before matching.
    pub path_normalization: PathNormalization,
    /// Time between look-ups after a failure.
    pub dns_refresh_rate: Duration,
    /// TCP keep-alive of upstream connections.
    pub tcp_keepalive: Option<TcpKeepalive>,
    /// TLS bounds of servers that do not say.
    pub tls_defaults: Option<MeshTlsConfig>,
    /// Bounds of mutual TLS within the mesh, as sidecars end it.
    #[serde(rename = "meshMTLS")]
    pub mesh_mtls: Option<MeshTlsConfig>,
    /// How long a sidecar waits for the first bytes where they tell what a connection carries; 0 is for ever.
    pub protocol_detection_timeout: Duration,
    /// What becomes of traffic of sidecars to what no service has.
    pub outbound_traffic_policy: MeshOutboundTrafficPolicy,
    /// Settings of the proxies themselves.
    pub default_config: ProxyConfig,
    /// The networks of the mesh by name, which the ConfigMap has under a key of their own.
    #[serde(skip)]
    pub networks: BTreeMap<String, Network>,
    /// Where the access log goes; empty is off.
    pub access_log_file: String,
    /// Format of the access log; empty is Istio's.
    pub access_log_format: String,
    /// TEXT or JSON.
    pub access_log_encoding: AccessLogEncoding,
    /// Whether connections that no listener has a use for are left out of the access log.
    pub disable_envoy_listener_log: bool,
    /// Whether requests are traced where no Telemetry says so.
    pub enable_tracing: bool,
    /// Providers of telemetry where nothing else is said.
    pub default_providers: DefaultProviders,
    /// All providers, Istio's own first.
    #[serde(deserialize_with = "provider::merged")]
    pub extension_providers: Vec<ExtensionProvider>,
}

impl Default for MeshConfig {
    fn default() -> MeshConfig {
        let everyone = || vec!["*".to_owned()];
        MeshConfig {
            root_namespace: "istio-system".to_owned(),
            trust_domain: "cluster.local".to_owned(),
            trust_domain_aliases: Vec::new(),
            connect_timeout: Duration::from_secs(10),
            enable_auto_mtls: true,
            default_service_export_to: everyone(),
            default_virtual_service_export_to: everyone(),
            default_destination_rule_export_to: everyone(),
            locality_lb_setting: LocalityLbSetting { enabled: Some(true), ..LocalityLbSetting::default() },
            zone_aware_lb_setting: None,
            default_http_retry_policy: None,
            default_traffic_policy: None,
            h2_upgrade_policy: H2UpgradePolicy::DoNotUpgrade,
            path_normalization: PathNormalization::default(),
            dns_refresh_rate: Duration::from_secs(60),
            tcp_keepalive: None,
            tls_defaults: None,
            mesh_mtls: None,
            protocol_detection_timeout: Duration::ZERO,
            outbound_traffic_policy: MeshOutboundTrafficPolicy {
                mode: OutboundTrafficMode::AllowAny,
                tls: None,
            },
            default_config: ProxyConfig::default(),
            networks: BTreeMap::new(),
            access_log_file: String::new(),
            access_log_format: String::new(),
            access_log_encoding: AccessLogEncoding::default(),
            disable_envoy_listener_log: false,
            enable_tracing: true,
            default_providers: DefaultProviders::default(),
            extension_providers: provider::built_in(),
        }
    }
}

impl MeshConfig {
    /// Name of the ConfigMap that holds it, in the root namespace.
    pub const CONFIG_MAP: &'static str = "istio";
    /// Key of that ConfigMap.
    pub const KEY: &'static str = "mesh";
    /// Key of its networks.
    pub const NETWORKS_KEY: &'static str = "meshNetworks";

    /// The provider of a name, in any case (Istio: fetchProvider).
    pub fn provider(&self, name: &str) -> Option<&ExtensionProvider> {
        self.extension_providers.iter().find(|provider| provider.name.eq_ignore_ascii_case(name))
    }

    /// What the proxies' cluster is called, where their environment is written here.
    pub fn cluster_id(&self) -> Option<&str> {
        let named = self.default_config.proxy_metadata.get("ISTIO_META_CLUSTER_ID").map(String::as_str);
        named.filter(|name| !name.is_empty())
    }

    /// Whether sidecars give an address of their own to ServiceEntries without one (Istio: ProtocolAddressesAnalyzer).
    pub fn allocates_addresses(&self) -> bool {
        let is_on = |name| self.has_metadata(name);
        self.captures_dns()
            && (is_on("ISTIO_META_DNS_AUTO_ALLOCATE") || is_on("PILOT_ENABLE_IP_AUTOALLOCATE"))
    }

    /// Whether workloads' resolvers tell them what istiod has allocated to ServiceEntries (Istio: `nodeUsesAutoallocatedIPs`).
    pub fn captures_dns(&self) -> bool {
        self.has_metadata("ISTIO_META_DNS_CAPTURE")
    }

    fn has_metadata(&self, name: &str) -> bool {
        self.default_config.proxy_metadata.get(name).is_some_and(|value| value == "true")
    }

    /// The cluster's DNS domain. Istio takes it from the installation, not from MeshConfig; its default is used.
    pub fn domain(&self) -> &'static str {
        "cluster.local"
    }
}

/// What becomes of traffic of sidecars to what no service has, where no Sidecar says.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct MeshOutboundTrafficPolicy {
    /// The zero value is REGISTRY_ONLY; without the whole block it is ALLOW_ANY.
    pub mode: OutboundTrafficMode,
    /// TLS towards the names that `ALLOW_ANY_DYNAMIC_DNS` sends requests to.
    pub tls: Option<ClientTlsSettings>,
}

/// How a line of the access log is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[allow(missing_docs, reason = "each arm is the API's own value")]
pub enum AccessLogEncoding {
    #[default]
    Text,
    Json,
}

/// All networks of a mesh.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct MeshNetworks {
    /// By name.
    pub networks: BTreeMap<String, Network>,
}

/// A network whose endpoints are reached by way of its gateways.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Network {
    /// What is in it.
    pub endpoints: Vec<NetworkEndpoints>,
    /// Its east-west gateways.
    pub gateways: Vec<NetworkGateway>,
}

/// Endpoints of a network.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct NetworkEndpoints {
    /// Those with an address of this range.
    pub from_cidr: String,
    /// Those of a cluster, by its name.
    pub from_registry: String,
}

/// A gateway of a network.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct NetworkGateway {
    /// IP address or name.
    pub address: String,
    /// The Service that it is, of a cluster whose endpoints are of the network (`fromRegistry`), by its full name.
    pub registry_service_name: String,
    /// Port for mutual TLS that is passed on.
    #[serde(deserialize_with = "lenient::int")]
    pub port: u32,
}

/// How paths are normalised before matching.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct PathNormalization {
    /// The kind of normalisation.
    pub normalization: NormalizationType,
}

/// The kinds of path normalisation.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[allow(missing_docs, reason = "each arm is the API's own value")]
pub enum NormalizationType {
    #[default]
    Default,
    None,
    Base,
    MergeSlashes,
    DecodeAndMergeSlashes,
}

impl NormalizationType {
    /// `DEFAULT` stands for `BASE`.
    pub fn effective(self) -> NormalizationType {
        if self == NormalizationType::Default { NormalizationType::Base } else { self }
    }
}

/// TLS bounds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct MeshTlsConfig {
    /// Lowest version.
    #[serde(deserialize_with = "mesh_tls_version")]
    pub min_protocol_version: TlsProtocol,
    /// Ciphers for TLS 1.2 and below.
    pub cipher_suites: Vec<String>,
    /// Key exchange groups.
    pub ecdh_curves: Vec<String>,
}

/// MeshConfig writes `TLSV1_2` and `TLSV1_3` as a Gateway does.
fn mesh_tls_version<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<TlsProtocol, D::Error> {
    TlsProtocol::deserialize(deserializer)
}

/// Settings of the proxies.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ProxyConfig {
    /// What stands in front of the gateway.
    pub gateway_topology: GatewayTopology,
    /// Worker threads; absent or 0 is the number of cores.
    #[serde(deserialize_with = "lenient::option_int")]
    pub concurrency: Option<u32>,
    /// How long to drain.
    pub drain_duration: Option<Duration>,
    /// How long to wait before ending after a drain.
    pub termination_drain_duration: Option<Duration>,
    /// Limits on clients.
    pub connection_settings: ConnectionSettings,
    /// What the proxies say of themselves in heads.
    pub proxy_headers: ProxyHeaders,
    /// Environment of the proxies.
    pub proxy_metadata: BTreeMap<String, String>,
    /// How requests are traced where no Telemetry says otherwise.
    pub tracing: Option<MeshTracing>,
    /// Name of the proxies in traces; absent is made of their labels.
    pub service_cluster: Option<String>,
    /// How that is made.
    pub tracing_service_name: TracingServiceName,
    /// Envoy's own statistics that are kept; there are none here.
    pub proxy_stats_matcher: Option<IgnoredAny>,
    /// Labels that Envoy reads out of names of statistics.
    pub extra_stat_tags: Vec<String>,
}

/// How the name of the proxies in traces is made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[allow(missing_docs, reason = "each arm is the API's own value")]
pub enum TracingServiceName {
    #[default]
    AppLabelAndNamespace,
    CanonicalNameOnly,
    CanonicalNameAndNamespace,
}

/// Limits on clients. What is absent is the profile's.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ConnectionSettings {
    /// Which defaults hold.
    pub profile: ConnectionProfile,
    /// Time without a request after which a connection is closed.
    pub http_idle_timeout: Option<Duration>,
    /// Time without progress after which a request is ended; zero is none.
    pub http_stream_idle_timeout: Option<Duration>,
    /// Time for a whole request to come; zero is none.
    pub http_request_timeout: Option<Duration>,
    /// Time for a request's head to come.
    pub http_request_headers_timeout: Option<Duration>,
    /// Life of a connection; zero is none.
    pub http_max_connection_duration: Option<Duration>,
    /// Streams that a client may have open on one HTTP/2 connection.
    #[serde(deserialize_with = "lenient::option_int")]
    pub http_max_concurrent_streams: Option<u32>,
    /// Flow-control window of an HTTP/2 stream, in bytes.
    #[serde(deserialize_with = "lenient::option_int")]
    pub http2_initial_stream_window_size: Option<u32>,
    /// Flow-control window of an HTTP/2 connection, in bytes.
    #[serde(deserialize_with = "lenient::option_int")]
    pub http2_initial_connection_window_size: Option<u32>,
    /// What becomes of field names with an underscore.
    pub http_headers_with_underscores_action: UnderscoresAction,
    /// Whether several slashes in a row become one.
    pub http_merge_slashes: Option<bool>,
    /// What becomes of escaped slashes in a path.
    pub http_path_with_escaped_slashes_action: EscapedSlashesAction,
    /// Connections of all listeners together.
    #[serde(deserialize_with = "lenient::option_int")]
    pub global_downstream_connection_limit: Option<u32>,
}

/// Which defaults hold for clients.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[allow(missing_docs, reason = "each arm is the API's own value")]
pub enum ConnectionProfile {
    #[default]
    Sidecar,
    Edge,
}

/// What becomes of field names with an underscore.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[allow(missing_docs, reason = "each arm is the API's own value")]
pub enum UnderscoresAction {
    #[default]
    #[serde(rename = "HEADERS_WITH_UNDERSCORES_UNSPECIFIED")]
    Unspecified,
    #[serde(rename = "HEADERS_WITH_UNDERSCORES_ALLOW")]
    Allow,
    #[serde(rename = "HEADERS_WITH_UNDERSCORES_REJECT_REQUEST")]
    RejectRequest,
    #[serde(rename = "HEADERS_WITH_UNDERSCORES_DROP_HEADER")]
    DropHeader,
}

/// What becomes of escaped slashes in a path.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[allow(missing_docs, reason = "each arm is the API's own value")]
pub enum EscapedSlashesAction {
    #[default]
    #[serde(rename = "PATH_WITH_ESCAPED_SLASHES_UNSPECIFIED")]
    Unspecified,
    KeepUnchanged,
    RejectRequest,
    UnescapeAndRedirect,
    UnescapeAndForward,
}

/// What stands in front of the gateway.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct GatewayTopology {
    /// Trusted proxies that append to X-Forwarded-For.
    #[serde(deserialize_with = "lenient::int")]
    pub num_trusted_proxies: u32,
    /// What happens to X-Forwarded-Client-Cert.
    pub forward_client_cert_details: ForwardClientCertDetails,
    /// When present, every listener accepts the PROXY protocol.
    pub proxy_protocol: Option<ProxyProtocolConfiguration>,
}

/// Marks that the PROXY protocol is accepted; it has no fields.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct ProxyProtocolConfiguration {}

/// What happens to X-Forwarded-Client-Cert.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[allow(missing_docs, reason = "each arm is the API's own value")]
pub enum ForwardClientCertDetails {
    #[default]
    Undefined,
    Sanitize,
    ForwardOnly,
    AppendForward,
    SanitizeSet,
    AlwaysForwardOnly,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_written_is_istios_default() {
        let mesh: MeshConfig = serde_json::from_str(
            r#"{"rootNamespace":"infra","defaultConfig":{"gatewayTopology":{"numTrustedProxies":2}}}"#,
        )
        .unwrap();
        assert_eq!(mesh.root_namespace, "infra");
        assert_eq!(mesh.default_config.gateway_topology.num_trusted_proxies, 2);
        assert_eq!(mesh.connect_timeout, Duration::from_secs(10));
        assert_eq!(mesh.path_normalization.normalization.effective(), NormalizationType::Base);
        assert_eq!(mesh.default_providers.metrics, ["prometheus"]);
    }

    #[test]
    fn providers_go_on_top_of_istios_own() {
        let mesh: MeshConfig = serde_json::from_str(
            r#"{"defaultProviders":{"metrics":[],"tracing":["otel"]},
                "extensionProviders":[
                  {"name":"otel","opentelemetry":{"service":"otel.shop.svc","port":4317,"maxTagLength":"64"}},
                  {"name":"envoy","envoyFileAccessLog":{"path":"/dev/stderr","logFormat":{"labels":{"a":"%PROTOCOL%","b":{"c":1}}}}}]}"#,
        )
        .unwrap();
        assert!(mesh.default_providers.metrics.is_empty());
        let otel = mesh.provider("OTel").unwrap().opentelemetry.as_ref().unwrap();
        assert_eq!((otel.port.unwrap().get(), otel.max_tag_length), (4317, 64));
        assert_eq!(
            mesh.provider("envoy").unwrap().envoy_file_access_log.as_ref().unwrap().path,
            "/dev/stderr"
        );
        assert!(mesh.provider("prometheus").unwrap().prometheus.is_some());
        assert_eq!(mesh.extension_providers.len(), 4);
        assert!(mesh.provider("missing").is_none());
    }
}
