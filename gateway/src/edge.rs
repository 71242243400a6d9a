//! What clients may do: MeshConfig's `connectionSettings`, `gatewayTopology` and `pathNormalization` with the flags of the
//! process on top.
//!
//! Invariant: a flag wins over what is written in MeshConfig, that over the profile, that over Istio's default. The
//! profile `EDGE` turns on what a good client could notice; what no good client meets is on without it. Made once per
//! configuration and shared by all connections.

use std::{net::IpAddr, time::Duration};

use clap::{Args, ValueEnum};
use config_model::mesh::{
    ConnectionProfile, EscapedSlashesAction, ForwardClientCertDetails, MeshConfig, NormalizationType,
    UnderscoresAction,
};

use crate::listener::{EdgeLimits, Leniency, Underscores};

/// Everything about clients, for one configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EdgeConfig {
    /// Before there is a request.
    pub limits: EdgeLimits,
    /// HTTP/2 connections.
    pub http2: Http2Limits,
    /// How many connections there may be.
    pub connections: ConnectionLimits,
    /// What is believed of what stands in front.
    pub topology: Topology,
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
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ConnectionLimits {
    /// Of all listeners together.
    pub total: Option<usize>,
    /// Of one listener.
    pub per_listener: Option<usize>,
    /// Of one client address.
    pub per_client: Option<usize>,
}

/// What is believed of what stands in front of the gateway.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Topology {
    /// Proxies in front that append to X-Forwarded-For.
    pub trusted_proxies: usize,
    /// What becomes of X-Forwarded-Client-Cert.
    pub client_certificate: ForwardClientCertDetails,
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

/// Addresses that share a prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    bits: u8,
}

impl Network {
    /// Whether the address is one of them.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        fn same(a: &[u8], b: &[u8], bits: u8) -> bool {
            let (whole, rest) = (usize::from(bits / 8), bits % 8);
            let mask = !(0xff_u8.checked_shr(rest.into()).unwrap_or(0));
            a.get(..whole) == b.get(..whole)
                && (rest == 0
                    || matches!((a.get(whole), b.get(whole)), (Some(a), Some(b)) if (a ^ b) & mask == 0))
        }
        match (self.address, address) {
            (IpAddr::V4(a), IpAddr::V4(b)) => same(&a.octets(), &b.octets(), self.bits),
            (IpAddr::V6(a), IpAddr::V6(b)) => same(&a.octets(), &b.octets(), self.bits),
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
        }
    }
}

impl std::str::FromStr for Network {
    type Err = String;

    fn from_str(text: &str) -> Result<Network, String> {
        let bad = || format!("{text:?} is not an address or a network such as 10.0.0.0/8");
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| bad())?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let bits = bits.map_or(Ok(most), str::parse).map_err(|_| bad())?;
        if bits > most { Err(bad()) } else { Ok(Network { address, bits }) }
    }
}

/// How paths are brought into one form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PathPolicy {
    /// Resolve dot segments and decode what needs no escape; `false`: the path stays as it is.
    pub normalize: bool,
    /// Several slashes in a row become one.
    pub merge_slashes: bool,
    /// `%2F` and `%5C`.
    pub escaped_slashes: EscapedSlashes,
}

/// What becomes of `%2F` and `%5C` in a path.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EscapedSlashes {
    /// They stay.
    #[default]
    Keep,
    /// 400.
    Refuse,
    /// They are decoded and the client is sent there with 307.
    Redirect,
    /// They are decoded.
    Decode,
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

/// A switch on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Allow {
    /// Served.
    Allow,
    /// Refused.
    Refuse,
}

/// What becomes of field names with an underscore, on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum UnderscoresFlag {
    /// They pass.
    Allow,
    /// The request is refused with 400.
    Refuse,
    /// The field is left out.
    Drop,
}

/// The flags. What is not given is MeshConfig's.
#[derive(Args, Clone, Debug, Default, PartialEq, Eq)]
#[command(next_help_heading = "Limits on clients (what is not given is MeshConfig's)")]
pub struct EdgeFlags {
    /// Time for a TLS handshake, or for the bytes that tell one protocol from another
    #[arg(long, value_name = "DURATION", env = "LIMEN_HANDSHAKE_TIMEOUT", value_parser = crate::cli::duration)]
    pub handshake_timeout: Option<Duration>,
    /// Time to the first byte of a connection's first request
    #[arg(long, value_name = "DURATION", env = "LIMEN_FIRST_BYTE_TIMEOUT", value_parser = crate::cli::duration)]
    pub first_byte_timeout: Option<Duration>,
    /// Time for a request's head, from its first byte
    #[arg(long, value_name = "DURATION", env = "LIMEN_REQUEST_HEADERS_TIMEOUT", value_parser = crate::cli::duration)]
    pub request_headers_timeout: Option<Duration>,
    /// Time for a whole request; 0s: no limit
    #[arg(long, value_name = "DURATION", env = "LIMEN_REQUEST_TIMEOUT", value_parser = crate::cli::duration)]
    pub request_timeout: Option<Duration>,
    /// Time without progress of a request; 0s: no limit
    #[arg(long, value_name = "DURATION", env = "LIMEN_STREAM_IDLE_TIMEOUT", value_parser = crate::cli::duration)]
    pub stream_idle_timeout: Option<Duration>,
    /// Time without a request on a connection
    #[arg(long, value_name = "DURATION", env = "LIMEN_IDLE_TIMEOUT", value_parser = crate::cli::duration)]
    pub idle_timeout: Option<Duration>,
    /// Bytes of a request's head
    #[arg(long, value_name = "N", env = "LIMEN_MAX_HEADER_BYTES", value_parser = clap::value_parser!(u32).range(1024..=1_000_000))]
    pub max_header_bytes: Option<u32>,
    /// Fields of a request's head
    #[arg(long, value_name = "N", env = "LIMEN_MAX_HEADERS", value_parser = clap::value_parser!(u32).range(1..=250))]
    pub max_headers: Option<u32>,
    /// Streams open on one HTTP/2 connection
    #[arg(long, value_name = "N", env = "LIMEN_MAX_CONCURRENT_STREAMS")]
    pub max_concurrent_streams: Option<u32>,
    /// Bytes of an HTTP/2 stream's window
    #[arg(long, value_name = "BYTES", env = "LIMEN_H2_STREAM_WINDOW", value_parser = clap::value_parser!(u32).range(65_535..=0x7fff_ffff))]
    pub h2_stream_window: Option<u32>,
    /// Bytes of an HTTP/2 connection's window
    #[arg(long, value_name = "BYTES", env = "LIMEN_H2_CONNECTION_WINDOW", value_parser = clap::value_parser!(u32).range(65_535..=0x7fff_ffff))]
    pub h2_connection_window: Option<u32>,
    /// Connections of all listeners; 0: no limit
    #[arg(long, value_name = "N", env = "LIMEN_MAX_CONNECTIONS")]
    pub max_connections: Option<usize>,
    /// Connections of one listener; 0: no limit
    #[arg(long, value_name = "N", env = "LIMEN_MAX_CONNECTIONS_PER_LISTENER")]
    pub max_connections_per_listener: Option<usize>,
    /// Connections of one client address; 0: no limit
    #[arg(long, value_name = "N", env = "LIMEN_MAX_CONNECTIONS_PER_CLIENT")]
    pub max_connections_per_client: Option<usize>,
    /// Field names with an underscore
    #[arg(long, value_enum, env = "LIMEN_UNDERSCORES")]
    pub underscores: Option<UnderscoresFlag>,
    /// HTTP/1.0
    #[arg(long, value_enum, env = "LIMEN_HTTP10")]
    pub http10: Option<Allow>,
    /// The method TRACE
    #[arg(long, value_enum, env = "LIMEN_TRACE")]
    pub trace: Option<Allow>,
    /// Lines that end with LF alone
    #[arg(long, value_enum, env = "LIMEN_BARE_LF")]
    pub bare_lf: Option<Allow>,
    /// Proxies in front that append to X-Forwarded-For
    #[arg(long, value_name = "N", env = "LIMEN_NUM_TRUSTED_PROXIES")]
    pub num_trusted_proxies: Option<usize>,
    /// Networks whose connections begin with a PROXY header (`0.0.0.0/0,::/0` for all)
    #[arg(long, value_name = "CIDR,…", env = "LIMEN_PROXY_PROTOCOL_FROM", value_delimiter = ',')]
    pub proxy_protocol_from: Vec<Network>,
    /// A request for another server of the same port on one TLS connection
    #[arg(long, value_enum, env = "LIMEN_MISDIRECTED")]
    pub misdirected: Option<Misdirected>,
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
        EdgeConfig {
            limits: EdgeLimits {
                handshake: flags.handshake_timeout.unwrap_or(defaults.handshake),
                first_byte: flags.first_byte_timeout.unwrap_or(defaults.first_byte),
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
            },
            topology: Topology {
                trusted_proxies: flags.num_trusted_proxies.unwrap_or(topology.num_trusted_proxies as usize),
                client_certificate: topology.forward_client_cert_details,
                proxy_protocol: match (&flags.proxy_protocol_from[..], &topology.proxy_protocol) {
                    ([], None) => ProxyProtocol::Off,
                    ([], Some(_)) => ProxyProtocol::From(Vec::new()),
                    (networks, _) => ProxyProtocol::From(networks.to_vec()),
                },
            },
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
    fn a_network_is_its_prefix() {
        for (network, address, inside) in [
            ("10.0.0.0/8", "10.9.8.7", true),
            ("10.0.0.0/8", "11.0.0.0", false),
            ("10.1.2.3", "10.1.2.3", true),
            ("10.1.2.3", "10.1.2.2", false),
            ("192.168.4.0/22", "192.168.7.255", true),
            ("192.168.4.0/22", "192.168.8.0", false),
            ("0.0.0.0/0", "1.2.3.4", true),
            ("0.0.0.0/0", "::1", false),
            ("2001:db8::/33", "2001:db8:7fff::1", true),
            ("2001:db8::/33", "2001:db8:8000::1", false),
        ] {
            let network: Network = network.parse().unwrap();
            assert_eq!(network.contains(address.parse().unwrap()), inside, "{network:?} {address}");
        }
        for bad in ["", "10.0.0.0/33", "10.0.0/8", "x", "::/129"] {
            assert!(bad.parse::<Network>().is_err(), "{bad}");
        }
    }
}
