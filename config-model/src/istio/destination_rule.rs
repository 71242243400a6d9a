//! `DestinationRule`: subsets of a host, and how to connect to it.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::{WorkloadSelector, virtual_service::PortSelector};
use crate::scalar::{Duration, HeaderName, HostPattern, PortNumber, lenient, list};

/// A DestinationRule's spec.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DestinationRule {
    /// Host in the registry; a name without a dot is in the rule's namespace.
    pub host: HostPattern,
    /// Policy for the whole host.
    #[serde(default)]
    pub traffic_policy: Option<TrafficPolicy>,
    /// Named sets of endpoints.
    #[serde(default, deserialize_with = "list::exact")]
    pub subsets: Vec<Subset>,
    /// Namespaces that may see this: `*`, `.`, or names.
    #[serde(default, deserialize_with = "list::exact")]
    pub export_to: Vec<String>,
    /// Client pods (of the rule's namespace) that this is for.
    #[serde(default)]
    pub workload_selector: Option<WorkloadSelector>,
}

/// A named set of endpoints.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Subset {
    /// The name that destinations use.
    pub name: String,
    /// Labels that its endpoints carry; empty is all.
    pub labels: BTreeMap<String, String>,
    /// Policy that overlays the host's, field by field.
    pub traffic_policy: Option<TrafficPolicy>,
}

/// How to connect and choose.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct TrafficPolicy {
    /// How an endpoint is chosen.
    pub load_balancer: Option<LoadBalancerSettings>,
    /// Limits and time-outs of connections.
    pub connection_pool: Option<ConnectionPoolSettings>,
    /// When an endpoint is ejected.
    pub outlier_detection: Option<OutlierDetection>,
    /// TLS towards the endpoints.
    pub tls: Option<ClientTlsSettings>,
    /// Policies for single ports; they replace, not overlay.
    #[serde(deserialize_with = "list::exact")]
    pub port_level_settings: Vec<PortTrafficPolicy>,
    /// Wrap TCP in an HTTP CONNECT.
    pub tunnel: Option<TunnelSettings>,
    /// Send a PROXY header.
    pub proxy_protocol: Option<ProxyProtocol>,
    /// Limit of concurrent retries.
    pub retry_budget: Option<RetryBudget>,
}

/// Policy of one service port.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct PortTrafficPolicy {
    /// The service port.
    pub port: Option<PortSelector>,
    /// How an endpoint is chosen.
    pub load_balancer: Option<LoadBalancerSettings>,
    /// Limits and time-outs of connections.
    pub connection_pool: Option<ConnectionPoolSettings>,
    /// When an endpoint is ejected.
    pub outlier_detection: Option<OutlierDetection>,
    /// TLS towards the endpoints.
    pub tls: Option<ClientTlsSettings>,
}

/// How an endpoint is chosen.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct LoadBalancerSettings {
    /// One of the simple algorithms; not together with `consistent_hash`.
    pub simple: Option<SimpleLb>,
    /// Sticky choice by a hash.
    pub consistent_hash: Option<ConsistentHashLb>,
    /// Deprecated: `warmup.duration`.
    pub warmup_duration_secs: Option<Duration>,
    /// Locality weights and failover.
    pub locality_lb_setting: Option<LocalityLbSetting>,
    /// Zone-aware choice; not together with locality.
    pub zone_aware_lb_setting: Option<ZoneAwareLbSetting>,
    /// Slow start.
    pub warmup: Option<WarmupConfiguration>,
}

/// The simple algorithms.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[allow(missing_docs, reason = "each arm is the API's own value")]
pub enum SimpleLb {
    #[default]
    Unspecified,
    LeastConn,
    Random,
    Passthrough,
    RoundRobin,
    LeastRequest,
}

/// Sticky choice: one key, one algorithm.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ConsistentHashLb {
    /// Key: a request header.
    pub http_header_name: Option<HeaderName>,
    /// Key: a cookie.
    pub http_cookie: Option<HttpCookie>,
    /// Key: the client's address.
    pub use_source_ip: Option<bool>,
    /// Key: a query parameter.
    pub http_query_parameter_name: Option<String>,
    /// Algorithm: ring.
    pub ring_hash: Option<RingHash>,
    /// Algorithm: Maglev.
    pub maglev: Option<Maglev>,
    /// Deprecated: `ringHash.minimumRingSize`.
    #[serde(deserialize_with = "lenient::option_int")]
    pub minimum_ring_size: Option<u64>,
}

/// A cookie that carries the hash key.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct HttpCookie {
    /// Cookie name.
    pub name: String,
    /// Cookie path.
    pub path: String,
    /// Lifetime; absent never creates one, zero makes a session cookie.
    pub ttl: Option<Duration>,
    /// Further attributes.
    #[serde(deserialize_with = "list::exact")]
    pub attributes: Vec<CookieAttribute>,
}

/// A cookie attribute.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct CookieAttribute {
    /// Attribute name.
    pub name: String,
    /// Attribute value.
    pub value: String,
}

/// Ring hashing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct RingHash {
    /// Least number of points on the ring; absent is 1024.
    #[serde(deserialize_with = "lenient::option_int")]
    pub minimum_ring_size: Option<u64>,
}

/// Maglev hashing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Maglev {
    /// Size of the table, a prime; absent is 65537.
    #[serde(deserialize_with = "lenient::option_int")]
    pub table_size: Option<u64>,
}

/// Locality load balancing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct LocalityLbSetting {
    /// Explicit shares.
    #[serde(deserialize_with = "list::exact")]
    pub distribute: Vec<LocalityDistribute>,
    /// Explicit failover between regions.
    #[serde(deserialize_with = "list::exact")]
    pub failover: Vec<LocalityFailover>,
    /// Labels whose equality gives priority.
    #[serde(deserialize_with = "list::exact")]
    pub failover_priority: Vec<String>,
    /// Absent inherits the mesh's setting.
    pub enabled: Option<bool>,
}

/// Where the traffic of one locality goes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct LocalityDistribute {
    /// Origin locality, `/`-separated, `*` at the end.
    pub from: String,
    /// Locality → per cent.
    #[serde(deserialize_with = "lenient::int_map")]
    pub to: BTreeMap<String, u32>,
}

/// Which region takes over.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct LocalityFailover {
    /// Region that fails.
    pub from: String,
    /// Region that takes over.
    pub to: String,
}

/// Zone-aware load balancing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ZoneAwareLbSetting {
    /// Absent inherits the mesh's setting.
    pub enabled: Option<bool>,
    /// Explicit failover between regions.
    #[serde(deserialize_with = "list::exact")]
    pub failover: Vec<LocalityFailover>,
    /// Labels whose equality gives priority.
    #[serde(deserialize_with = "list::exact")]
    pub failover_priority: Vec<String>,
    /// Least number of endpoints.
    #[serde(deserialize_with = "lenient::option_int")]
    pub min_cluster_size: Option<u64>,
}

/// Slow start.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct WarmupConfiguration {
    /// How long; required.
    pub duration: Option<Duration>,
    /// Least share at the start; absent is 10.
    pub minimum_percent: Option<f64>,
    /// Curve; absent is 1.
    pub aggression: Option<f64>,
}

/// Limits and time-outs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ConnectionPoolSettings {
    /// For all connections.
    pub tcp: Option<TcpSettings>,
    /// For HTTP.
    pub http: Option<HttpSettings>,
}

/// Settings of TCP connections.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct TcpSettings {
    /// Most connections; 0 is unlimited.
    #[serde(deserialize_with = "lenient::int")]
    pub max_connections: i32,
    /// Time to connect.
    pub connect_timeout: Option<Duration>,
    /// Keep-alive probes.
    pub tcp_keepalive: Option<TcpKeepalive>,
    /// Longest life of a connection.
    pub max_connection_duration: Option<Duration>,
    /// Longest idle time; zero disables.
    pub idle_timeout: Option<Duration>,
}

/// TCP keep-alive.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct TcpKeepalive {
    /// Probes before the connection is dead; 0 is the system's.
    #[serde(deserialize_with = "lenient::int")]
    pub probes: u32,
    /// Idle time before the first probe.
    pub time: Option<Duration>,
    /// Time between probes.
    pub interval: Option<Duration>,
}

/// Settings of HTTP.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct HttpSettings {
    /// Requests that may wait for a connection; 0 is unlimited.
    #[serde(rename = "http1MaxPendingRequests", deserialize_with = "lenient::int")]
    pub http1_max_pending_requests: i32,
    /// Active requests; 0 is unlimited.
    #[serde(rename = "http2MaxRequests", deserialize_with = "lenient::int")]
    pub http2_max_requests: i32,
    /// Requests on one connection; 0 is unlimited.
    #[serde(deserialize_with = "lenient::int")]
    pub max_requests_per_connection: i32,
    /// Concurrent retries; 0 is unlimited.
    #[serde(deserialize_with = "lenient::int")]
    pub max_retries: i32,
    /// Longest idle time of an upstream connection.
    pub idle_timeout: Option<Duration>,
    /// Whether HTTP/1 is upgraded to HTTP/2 upstream.
    pub h2_upgrade_policy: H2UpgradePolicy,
    /// Use the client's protocol.
    pub use_client_protocol: bool,
    /// Streams on one HTTP/2 connection; 0 is unlimited.
    #[serde(deserialize_with = "lenient::int")]
    pub max_concurrent_streams: i32,
    /// HTTP/2 PINGs.
    #[serde(rename = "http2KeepAlive")]
    pub http2_keep_alive: Option<Http2KeepAlive>,
}

/// Whether HTTP/1 is upgraded to HTTP/2 upstream.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[allow(missing_docs, reason = "each arm is the API's own value")]
pub enum H2UpgradePolicy {
    #[default]
    Default,
    DoNotUpgrade,
    Upgrade,
}

/// HTTP/2 PINGs; both fields are required.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Http2KeepAlive {
    /// Time between PINGs.
    pub interval: Option<Duration>,
    /// Time to answer one.
    pub timeout: Option<Duration>,
}

/// When an endpoint is ejected.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct OutlierDetection {
    /// Deprecated and without effect.
    #[serde(deserialize_with = "lenient::int")]
    pub consecutive_errors: i32,
    /// Count local failures apart.
    pub split_external_local_origin_errors: bool,
    /// Local failures in a row; absent is 5 when split.
    #[serde(deserialize_with = "lenient::option_int")]
    pub consecutive_local_origin_failures: Option<u32>,
    /// 502, 503, 504 in a row; absent or 0 is off.
    #[serde(deserialize_with = "lenient::option_int")]
    pub consecutive_gateway_errors: Option<u32>,
    /// 5xx in a row; absent is 5, 0 is off.
    #[serde(rename = "consecutive5xxErrors", deserialize_with = "lenient::option_int")]
    pub consecutive_5xx_errors: Option<u32>,
    /// Time between sweeps; absent is 10 s.
    pub interval: Option<Duration>,
    /// Least ejection; absent is 30 s.
    pub base_ejection_time: Option<Duration>,
    /// Most endpoints ejected, per cent; 0 is 10.
    #[serde(deserialize_with = "lenient::int")]
    pub max_ejection_percent: i32,
    /// Share of healthy endpoints below which all are used.
    #[serde(deserialize_with = "lenient::int")]
    pub min_health_percent: i32,
    /// Status codes that count as errors in place of 5xx.
    #[serde(deserialize_with = "lenient::ints")]
    pub outlier_detection_http_error_codes: Vec<u32>,
}

/// TLS towards endpoints.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ClientTlsSettings {
    /// Whether and how.
    pub mode: ClientTlsMode,
    /// PEM file with the client certificate.
    pub client_certificate: String,
    /// PEM file with its key.
    pub private_key: String,
    /// PEM file with CAs; empty is the system's.
    pub ca_certificates: String,
    /// A Secret in the gateway pod's namespace.
    pub credential_name: String,
    /// One of these must be in the server's certificate.
    #[serde(deserialize_with = "list::exact")]
    pub subject_alt_names: Vec<String>,
    /// Server name to send.
    pub sni: String,
    /// Trust any certificate; absent is false.
    pub insecure_skip_verify: Option<bool>,
    /// PEM file with a revocation list.
    pub ca_crl: String,
}

/// TLS mode towards endpoints.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[allow(missing_docs, reason = "each arm is the API's own value")]
pub enum ClientTlsMode {
    #[default]
    Disable,
    Simple,
    Mutual,
    IstioMutual,
}

/// Wrap TCP in HTTP CONNECT.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct TunnelSettings {
    /// `CONNECT` (empty too) or `POST`.
    pub protocol: String,
    /// Host of the request.
    pub target_host: String,
    /// Port of the request.
    #[serde(deserialize_with = "PortNumber::or_zero")]
    pub target_port: Option<PortNumber>,
}

/// The PROXY header.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ProxyProtocol {
    /// Version of the header.
    pub version: ProxyProtocolVersion,
}

/// Version of the PROXY header.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[allow(missing_docs, reason = "each arm is the API's own value")]
pub enum ProxyProtocolVersion {
    #[default]
    V1,
    V2,
}

/// Limit of concurrent retries.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct RetryBudget {
    /// Share of active requests, 0 to 100; absent is 20.
    pub percent: Option<f64>,
    /// Retries that are always allowed; 0 is 3.
    #[serde(rename = "minRetryConcurrency", deserialize_with = "lenient::option_int")]
    pub min_retry_concurrency: Option<u32>,
    /// Window; absent is none.
    pub budget_interval: Option<Duration>,
}
