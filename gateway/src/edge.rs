//! What clients may do: MeshConfig's `connectionSettings`, `gatewayTopology`, `proxyHeaders` and `pathNormalization` with the flags of the
//! process on top.
//!
//! Invariant: a flag wins over `proxyMetadata`, that over a field of MeshConfig, that over the profile, that over Istio's default. The
//! profile `EDGE` turns on what a good client could notice; what no good client meets is on without it. Made once per
//! configuration and shared by all connections.

mod flags;
mod headers;
mod network;
mod path;

use std::time::Duration;

use clap::ValueEnum;
use config_model::mesh::{
    ConnectionProfile, EscapedSlashesAction, MeshConfig, NormalizationType, UnderscoresAction,
};

use crate::{
    listener::{EdgeLimits, Leniency, Underscores},
    pressure,
};

pub use flags::{Allow, EdgeFlags, UnderscoresFlag};
pub use headers::{HeaderPolicy, Headers, Hop};
pub use network::Network;
pub use path::{EscapedSlashes, PathPolicy};

/// Everything about clients, for one configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EdgeConfig {
    /// Before there is a request.
    pub limits: EdgeLimits,
    /// HTTP/2 connections.
    pub http2: Http2Limits,
    /// How many connections there may be.
    pub connections: ConnectionLimits,
    /// What the process may use, and when it asks clients to go.
    pub pressure: pressure::Limits,
    /// What is believed of what stands in front.
    pub topology: Topology,
    /// What heads say of the proxy and of who is in front of it.
    pub headers: Headers,
    /// How paths are brought into one form.
    pub path: PathPolicy,
    /// What a request for another server of the same port gets on an HTTP/2 connection.
    pub misdirected: Misdirected,
}

/// Limits of one HTTP/2 connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Http2Limits {
    /// Streams open at one time.
    pub max_streams: u32,
    /// Flow-control window of a stream, in bytes.
    pub stream_window: u32,
    /// Flow-control window of the connection, in bytes.
    pub connection_window: u32,
    /// Decoded header list, in bytes.
    pub max_header_list: u32,
}

/// Limits on the number of connections; `None`: no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectionLimits {
    /// Of all listeners together.
    pub total: Option<usize>,
    /// Of one listener.
    pub per_listener: Option<usize>,
    /// Of one client address.
    pub per_client: Option<usize>,
    /// TLS handshakes that go on at one time; each takes some tens of kilobytes.
    pub handshakes: usize,
}

impl Default for ConnectionLimits {
    /// As many handshakes as a good crowd of clients that comes all at once.
    fn default() -> Self {
        ConnectionLimits { total: None, per_listener: None, per_client: None, handshakes: 8192 }
    }
}

/// What is believed of what stands in front of the gateway.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Topology {
    /// Proxies in front that append to X-Forwarded-For.
    pub trusted_proxies: usize,
    /// Whether connections begin with a PROXY header.
    pub proxy_protocol: ProxyProtocol,
}

/// Whether connections begin with a PROXY header.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ProxyProtocol {
    /// They do not, and one is garbage.
    #[default]
    Off,
    /// Those from these networks must; from everywhere when empty (Istio: `gatewayTopology.proxyProtocol`).
    From(Vec<Network>),
}

/// What a request for another server of the same port gets on a TLS connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Misdirected {
    /// 404, as Istio.
    #[default]
    #[value(name = "404")]
    NotFound,
    /// 421, so that the client opens another connection.
    #[value(name = "421")]
    Refuse,
    /// It is routed where certificate and TLS policy are equal, else 421.
    Route,
}

impl Default for EdgeConfig {
    fn default() -> EdgeConfig {
        EdgeConfig::new(&MeshConfig::default(), &EdgeFlags::default())
    }
}

impl EdgeConfig {
    /// What holds under this MeshConfig and these flags.
    #[must_use]
    pub fn new(mesh: &MeshConfig, flags: &EdgeFlags) -> EdgeConfig {
        let (metadata, _) = EdgeFlags::from_metadata(&mesh.default_config.proxy_metadata);
        let flags = &flags.clone().or(metadata);
        let written = &mesh.default_config.connection_settings;
        let edge = written.profile == ConnectionProfile::Edge;
        let topology = &mesh.default_config.gateway_topology;
        let std = |d: Option<config_model::scalar::Duration>| d.map(|d| d.as_std());
        let minutes = |n: u64| Duration::from_secs(60 * n);
        let defaults = EdgeLimits::default();
        let mut head = defaults.head;
        head.max_bytes = flags.max_header_bytes.map_or(head.max_bytes, |n| n as usize);
        head.max_fields = flags.max_headers.map_or(head.max_fields, |n| n as usize);
        head.underscores = match (flags.underscores, written.http_headers_with_underscores_action) {
            (Some(UnderscoresFlag::Allow), _) | (None, UnderscoresAction::Allow) => Underscores::Allow,
            (Some(UnderscoresFlag::Refuse), _) | (None, UnderscoresAction::RejectRequest) => {
                Underscores::Refuse
            }
            (Some(UnderscoresFlag::Drop), _) | (None, UnderscoresAction::DropHeader) => Underscores::Drop,
            (None, UnderscoresAction::Unspecified) if edge => Underscores::Refuse,
            (None, UnderscoresAction::Unspecified) => Underscores::Allow,
        };
        let leniency = |flag: Option<Allow>| match flag {
            Some(Allow::Allow) => Leniency::Serve,
            Some(Allow::Refuse) | None => Leniency::Refuse,
        };
        (head.http10, head.trace, head.bare_lf) =
            (leniency(flags.http10), leniency(flags.trace), leniency(flags.bare_lf));
        let optional = |flag: Option<Duration>, written, profile: Duration| {
            flag.or(std(written)).or(edge.then_some(profile)).filter(|limit| !limit.is_zero())
        };
        let some = |n: usize| (n > 0).then_some(n);
        let marks = pressure::Marks::default();
        EdgeConfig {
            limits: EdgeLimits {
                handshake: flags.handshake_timeout.unwrap_or(defaults.handshake),
                first_byte: flags.first_byte_timeout.unwrap_or(defaults.first_byte),
                detection: Some(mesh.protocol_detection_timeout.as_std()).filter(|limit| !limit.is_zero()),
                request_head: flags
                    .request_headers_timeout
                    .or(std(written.http_request_headers_timeout))
                    .unwrap_or(defaults.request_head),
                idle: flags.idle_timeout.or(std(written.http_idle_timeout)).unwrap_or(defaults.idle),
                request: optional(flags.request_timeout, written.http_request_timeout, minutes(5)),
                stream_idle: optional(
                    flags.stream_idle_timeout,
                    written.http_stream_idle_timeout,
                    minutes(5),
                ),
                life: flags
                    .max_connection_duration
                    .or(std(written.http_max_connection_duration))
                    .filter(|limit| !limit.is_zero()),
                newcomer: defaults.newcomer,
                head,
            },
            http2: Http2Limits {
                max_streams: flags
                    .max_concurrent_streams
                    .or(written.http_max_concurrent_streams)
                    .unwrap_or(100),
                stream_window: window(
                    flags.h2_stream_window.or(written.http2_initial_stream_window_size),
                    64 * 1024,
                ),
                connection_window: window(
                    flags.h2_connection_window.or(written.http2_initial_connection_window_size),
                    1024 * 1024,
                ),
                max_header_list: u32::try_from(head.max_bytes).unwrap_or(u32::MAX),
            },
            connections: ConnectionLimits {
                total: flags
                    .max_connections
                    .or(written.global_downstream_connection_limit.map(|n| n as usize))
                    .and_then(some),
                per_listener: flags.max_connections_per_listener.and_then(some),
                per_client: flags.max_connections_per_client.and_then(some),
                handshakes: flags
                    .max_handshakes
                    .map_or(ConnectionLimits::default().handshakes, |most| most as usize),
            },
            pressure: pressure::Limits {
                memory: flags.memory_limit,
                files: flags.file_limit,
                marks: pressure::Marks {
                    keepalive: flags.shed_keepalive_at.unwrap_or(marks.keepalive),
                    requests: flags.shed_requests_at.unwrap_or(marks.requests),
                    connections: flags.shed_connections_at.unwrap_or(marks.connections),
                },
            },
            topology: Topology {
                trusted_proxies: flags.num_trusted_proxies.unwrap_or(topology.num_trusted_proxies as usize),
                proxy_protocol: match (&flags.proxy_protocol_from[..], &topology.proxy_protocol) {
                    ([], None) => ProxyProtocol::Off,
                    ([], Some(_)) => ProxyProtocol::From(Vec::new()),
                    (networks, _) => ProxyProtocol::From(networks.to_vec()),
                },
            },
            headers: Headers::new(&mesh.default_config),
            path: PathPolicy::of(mesh),
            misdirected: flags.misdirected.unwrap_or_default(),
        }
    }
}

/// RFC 9113 §6.9.2: a window has 31 bits.
fn window(written: Option<u32>, default: u32) -> u32 {
    written.unwrap_or(default).clamp(65_535, 0x7fff_ffff)
}

impl PathPolicy {
    /// What holds under this MeshConfig.
    #[must_use]
    pub fn of(mesh: &MeshConfig) -> PathPolicy {
        let edge = mesh.default_config.connection_settings.profile == ConnectionProfile::Edge;
        let written = &mesh.default_config.connection_settings;
        let kind = mesh.path_normalization.normalization.effective();
        let merges =
            matches!(kind, NormalizationType::MergeSlashes | NormalizationType::DecodeAndMergeSlashes);
        PathPolicy {
            normalize: kind != NormalizationType::None,
            merge_slashes: written.http_merge_slashes.unwrap_or(merges || edge),
            escaped_slashes: match written.http_path_with_escaped_slashes_action {
                EscapedSlashesAction::KeepUnchanged => EscapedSlashes::Keep,
                EscapedSlashesAction::RejectRequest => EscapedSlashes::Refuse,
                EscapedSlashesAction::UnescapeAndRedirect => EscapedSlashes::Redirect,
                EscapedSlashesAction::UnescapeAndForward => EscapedSlashes::Decode,
                EscapedSlashesAction::Unspecified if edge => EscapedSlashes::Redirect,
                EscapedSlashesAction::Unspecified if kind == NormalizationType::DecodeAndMergeSlashes => {
                    EscapedSlashes::Decode
                }
                EscapedSlashesAction::Unspecified => EscapedSlashes::Keep,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mesh(settings: &str) -> MeshConfig {
        serde_json::from_str(&format!("{{\"defaultConfig\":{{\"connectionSettings\":{settings}}}}}")).unwrap()
    }

    #[test]
    fn the_edge_profile_turns_on_what_a_good_client_could_notice() {
        let usual = EdgeConfig::default();
        assert_eq!((usual.limits.stream_idle, usual.limits.request), (None, None));
        assert_eq!(usual.limits.head.underscores, Underscores::Allow);
        assert_eq!(usual.path.escaped_slashes, EscapedSlashes::Keep);
        let edge = EdgeConfig::new(&mesh(r#"{"profile":"EDGE"}"#), &EdgeFlags::default());
        let five = Some(Duration::from_secs(300));
        assert_eq!((edge.limits.stream_idle, edge.limits.request), (five, five));
        assert_eq!(edge.limits.head.underscores, Underscores::Refuse);
        assert_eq!((edge.path.merge_slashes, edge.path.escaped_slashes), (true, EscapedSlashes::Redirect));
        assert_eq!(edge.http2.max_streams, 100);
    }

    #[test]
    fn bytes_that_tell_a_protocol_are_waited_for_for_ever_unless_the_mesh_says_how_long() {
        assert_eq!(EdgeConfig::default().limits.detection, None);
        let mesh: MeshConfig = serde_json::from_str(r#"{"protocolDetectionTimeout":"5s"}"#).unwrap();
        let limits = EdgeConfig::new(&mesh, &EdgeFlags::default()).limits;
        assert_eq!(limits.detection, Some(Duration::from_secs(5)));
    }

    #[test]
    fn a_flag_wins_over_what_is_written_and_that_over_the_profile() {
        let mesh = mesh(
            r#"{"profile":"EDGE","httpStreamIdleTimeout":"0s","httpIdleTimeout":"10s","httpMaxConcurrentStreams":7}"#,
        );
        let flags = EdgeFlags { max_concurrent_streams: Some(9), ..EdgeFlags::default() };
        let config = EdgeConfig::new(&mesh, &flags);
        assert_eq!(config.limits.stream_idle, None);
        assert_eq!(config.limits.idle, Duration::from_secs(10));
        assert_eq!(config.http2.max_streams, 9);
    }

    #[test]
    fn each_limit_is_a_field_of_mesh_config_or_an_entry_of_its_metadata() {
        let mesh: MeshConfig = serde_json::from_value(serde_json::json!({"defaultConfig": {
            "connectionSettings": {
                "httpRequestHeadersTimeout": "1s", "httpRequestTimeout": "2s", "httpStreamIdleTimeout": "3s",
                "httpIdleTimeout": "4s", "httpMaxConnectionDuration": "5s", "httpMaxConcurrentStreams": 6,
                "http2InitialStreamWindowSize": 70_000, "http2InitialConnectionWindowSize": 80_000,
                "globalDownstreamConnectionLimit": 9,
            },
            "proxyMetadata": {
                "LIMEN_HANDSHAKE_TIMEOUT": "11s", "LIMEN_FIRST_BYTE_TIMEOUT": "12s",
                "LIMEN_MAX_HEADER_BYTES": "2048", "LIMEN_MAX_HEADERS": "14",
                "LIMEN_MAX_CONNECTIONS_PER_LISTENER": "15", "LIMEN_MAX_CONNECTIONS_PER_CLIENT": "16",
                "LIMEN_MAX_HANDSHAKES": "22", "LIMEN_MEMORY_LIMIT": "17Mi", "LIMEN_FILE_LIMIT": "18", "LIMEN_SHED_KEEPALIVE_AT": "19",
                "LIMEN_SHED_REQUESTS_AT": "20", "LIMEN_SHED_CONNECTIONS_AT": "21", "LIMEN_HTTP10": "allow",
            },
        }}))
        .unwrap();
        let config = EdgeConfig::new(&mesh, &EdgeFlags::default());
        let secs = Duration::from_secs;
        let limits = config.limits;
        assert_eq!((limits.request_head, limits.request), (secs(1), Some(secs(2))));
        assert_eq!((limits.stream_idle, limits.idle, limits.life), (Some(secs(3)), secs(4), Some(secs(5))));
        assert_eq!((limits.handshake, limits.first_byte), (secs(11), secs(12)));
        assert_eq!((limits.head.max_bytes, limits.head.max_fields), (2048, 14));
        assert_eq!(limits.head.http10, Leniency::Serve);
        let http2 = config.http2;
        assert_eq!((http2.max_streams, http2.stream_window, http2.connection_window), (6, 70_000, 80_000));
        let connections =
            ConnectionLimits { total: Some(9), per_listener: Some(15), per_client: Some(16), handshakes: 22 };
        assert_eq!(config.connections, connections);
        assert_eq!((config.pressure.memory, config.pressure.files), (Some(17 << 20), Some(18)));
        let marks = pressure::Marks { keepalive: 19, requests: 20, connections: 21 };
        assert_eq!(config.pressure.marks, marks);
        let flags = EdgeFlags { max_connections_per_client: Some(99), ..EdgeFlags::default() };
        assert_eq!(EdgeConfig::new(&mesh, &flags).connections.per_client, Some(99), "a flag wins");
    }
}
