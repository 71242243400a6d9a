//! Every metric and label name.
//!
//! Invariant: `istio_*` names and their labels are Istio's, verbatim, so that its dashboards and Kiali work; what is
//! ours begins with `limen_`.

/// Requests served, counter.
pub const REQUESTS: &str = "istio_requests_total";
/// From the first byte of the request to the last of the response, milliseconds, histogram.
pub const REQUEST_DURATION: &str = "istio_request_duration_milliseconds";
/// Request sizes as the client sent them, bytes, histogram.
pub const REQUEST_BYTES: &str = "istio_request_bytes";
/// Response sizes as sent to the client, bytes, histogram.
pub const RESPONSE_BYTES: &str = "istio_response_bytes";
/// Connections that are not HTTP, opened, counter.
pub const TCP_OPENED: &str = "istio_tcp_connections_opened_total";
/// Connections that are not HTTP, closed, counter.
pub const TCP_CLOSED: &str = "istio_tcp_connections_closed_total";
/// Bytes sent to clients on connections that are not HTTP, counter.
pub const TCP_SENT: &str = "istio_tcp_sent_bytes_total";
/// Bytes received from clients on connections that are not HTTP, counter.
pub const TCP_RECEIVED: &str = "istio_tcp_received_bytes_total";
/// Messages of gRPC that clients sent, counter.
pub const REQUEST_MESSAGES: &str = "istio_request_messages_total";
/// Messages of gRPC that clients got, counter.
pub const RESPONSE_MESSAGES: &str = "istio_response_messages_total";
/// Version of the proxy, gauge of value 1.
pub const BUILD: &str = "istio_build";

/// Generation of the configuration in force, gauge.
pub const CONFIG_GENERATION: &str = "limen_config_generation";
/// 1 while the configuration in force is what its source says, gauge.
pub const CONFIG_SYNCHRONIZED: &str = "limen_config_synchronized";
/// Resources of the latest configuration that are not served as written, gauge.
pub const CONFIG_REJECTED: &str = "limen_config_rejected_resources";
/// Resources read from the source, gauge.
pub const CONFIG_RESOURCES: &str = "limen_config_resources";
/// Documents of the source that cannot be read, gauge.
pub const CONFIG_UNPARSABLE: &str = "limen_config_unparsable_documents";
/// What is wrong with the configuration, gauge by severity.
pub const CONFIG_FINDINGS: &str = "limen_config_findings";
/// States taken from the source, counter by what they led to.
pub const CONFIG_UPDATES: &str = "limen_config_updates_total";
/// From a changed state to the configuration in force, seconds, histogram.
pub const CONFIG_DURATION: &str = "limen_config_update_duration_seconds";
/// To validate and compile a state, seconds, histogram.
pub const CONFIG_COMPILE: &str = "limen_config_compile_duration_seconds";
/// To put in force what was compiled, seconds, histogram.
pub const CONFIG_SWAP: &str = "limen_config_swap_duration_seconds";
/// Listeners, gauge by whether they are bound.
pub const LISTENERS: &str = "limen_listeners";
/// Client connections ever accepted, counter.
pub const CONNECTIONS: &str = "limen_connections_total";
/// Of them those that were closed at once because there were too many, counter.
pub const CONNECTIONS_REFUSED: &str = "limen_connections_refused_total";
/// Client connections with TLS that is ended here, counter by what became of the handshake.
pub const HANDSHAKES: &str = "limen_tls_handshakes_total";
/// When a certificate that is served ends, seconds since 1970, gauge by where it comes from.
pub const CERTIFICATE_EXPIRY: &str = "limen_certificate_expiration_timestamp_seconds";
/// 0 while serving, 1 during a drain, 2 when the process is about to end, gauge.
pub const DRAINING: &str = "limen_draining";
/// Questions for addresses of names, counter by what came of them.
pub const DNS: &str = "limen_dns_lookups_total";
/// Connections made to endpoints of a cluster, counter.
pub const UPSTREAM_CONNECTIONS: &str = "limen_upstream_connections_total";
/// Retries of requests to a cluster, counter.
pub const RETRIES: &str = "limen_upstream_retries_total";
/// Client connections open now, gauge.
pub const ACTIVE_CONNECTIONS: &str = "limen_active_connections";
/// What is asked of clients for want of memory or file descriptors, 0 (nothing) to 3 (not to come), gauge.
pub const OVERLOAD_LEVEL: &str = "limen_overload_level";
/// Memory in bytes, and file descriptors, in use, gauge by resource.
pub const RESOURCE_USED: &str = "limen_resource_used";
/// Memory in bytes, and file descriptors, that there are, gauge by resource.
pub const RESOURCE_LIMIT: &str = "limen_resource_limit";
/// Tasks that ended in a panic, counter.
pub const PANICS: &str = "limen_panics_total";
/// Access log lines lost because their reader was too slow, counter.
pub const ACCESS_LOG_DROPPED: &str = "limen_access_log_dropped_total";
/// Spans and log records that collectors took, counter by signal.
pub const EXPORTED: &str = "limen_telemetry_exported_total";
/// Those that did not reach one, counter by signal and reason.
pub const EXPORT_DROPPED: &str = "limen_telemetry_export_dropped_total";
/// Copies for mirrors that were not made, or given up, for want of room, counter.
pub const MIRROR_DROPPED: &str = "limen_mirror_dropped_total";

/// Endpoints of a cluster that outlier detection leaves alone now, gauge.
pub const EJECTED: &str = "limen_upstream_ejected_endpoints";
/// Ejections of endpoints that a cluster has, counter; begins anew for an address that leaves it.
pub const EJECTIONS: &str = "limen_upstream_ejections_total";
/// Requests and retries that a limit of a cluster refused, counter.
pub const OVERFLOWS: &str = "limen_upstream_overflows_total";
/// What counts towards a limit of a cluster now, gauge.
pub const LIMITED: &str = "limen_upstream_limited";

/// 1 while this process writes what it finds into the cluster, gauge.
pub const STATUS_LEADER: &str = "limen_status_leader";
/// Statuses of resources that were to be written, by what came of it, counter.
pub const STATUS_WRITES: &str = "limen_status_writes_total";
/// Events about resources that were to be written, by what came of it, counter.
pub const STATUS_EVENTS: &str = "limen_status_events_total";
/// Attempts at the Lease of who writes, by what came of it, counter.
pub const STATUS_LEASES: &str = "limen_status_lease_requests_total";
/// Istio's metrics of traffic, and what each says.
pub const ISTIO: [(&str, &str); 10] = [
    (REQUESTS, "Requests served."),
    (REQUEST_DURATION, "Duration of requests in milliseconds."),
    (REQUEST_BYTES, "Size of requests in bytes."),
    (RESPONSE_BYTES, "Size of responses in bytes."),
    (REQUEST_MESSAGES, "Messages of gRPC sent by clients."),
    (RESPONSE_MESSAGES, "Messages of gRPC sent to clients."),
    (TCP_OPENED, "Connections opened that are not HTTP."),
    (TCP_CLOSED, "Connections closed that are not HTTP."),
    (TCP_SENT, "Bytes sent to clients on connections that are not HTTP."),
    (TCP_RECEIVED, "Bytes received from clients on connections that are not HTTP."),
];

/// Labels of the HTTP metrics, in the order in which values are given.
pub const HTTP_LABELS: [&str; 25] = [
    "reporter",
    "source_workload",
    "source_canonical_service",
    "source_canonical_revision",
    "source_workload_namespace",
    "source_principal",
    "source_app",
    "source_version",
    "source_cluster",
    "destination_workload",
    "destination_workload_namespace",
    "destination_principal",
    "destination_app",
    "destination_version",
    "destination_service",
    "destination_canonical_service",
    "destination_canonical_revision",
    "destination_service_name",
    "destination_service_namespace",
    "destination_cluster",
    "request_protocol",
    "response_code",
    "grpc_response_status",
    "response_flags",
    "connection_security_policy",
];

/// Labels of one of Istio's metrics.
#[must_use]
pub fn istio_labels(metric: &str) -> Vec<&'static str> {
    let all = HTTP_LABELS.into_iter();
    match metric {
        REQUEST_MESSAGES | RESPONSE_MESSAGES => all.take(20).collect(),
        TCP_OPENED | TCP_CLOSED | TCP_SENT | TCP_RECEIVED => {
            all.filter(|label| !matches!(*label, "response_code" | "grpc_response_status")).collect()
        }
        _ => all.collect(),
    }
}

/// Envoy's default buckets, for milliseconds and bytes alike.
pub const BUCKETS: [f64; 19] = [
    0.5,
    1.0,
    5.0,
    10.0,
    25.0,
    50.0,
    100.0,
    250.0,
    500.0,
    1000.0,
    2500.0,
    5000.0,
    10_000.0,
    30_000.0,
    60_000.0,
    300_000.0,
    600_000.0,
    1_800_000.0,
    3_600_000.0,
];

/// Requests and connections that a security policy decided.
pub const POLICY_DECISIONS: &str = "limen_policy_decisions_total";
/// Requests that were refused because a policy failed or panicked, by policy.
pub const POLICY_FAILURES: &str = "limen_policy_failures_total";
/// Requests that a rule of the action AUDIT matched, by policy.
pub const POLICY_AUDITED: &str = "limen_policy_audited_total";
/// What policies on trial would have done, by policy.
pub const POLICY_DRY_RUN: &str = "limen_policy_dry_run_total";
