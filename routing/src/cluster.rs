//! Upstream clusters: one per service port and subset, named as Istio names them.
//!
//! Invariant: a specification is plain comparable data, so that a reload can tell what changed and keep the rest.

use std::{collections::BTreeMap, fmt, net::SocketAddr, sync::Arc, time::Duration};

/// `outbound|PORT|SUBSET|FQDN`, Istio's cluster name, cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ClusterName(Arc<str>);

impl ClusterName {
    /// The outbound cluster of a service port; the subset may be empty.
    #[must_use]
    pub fn outbound(port: u16, subset: &str, host: &str) -> Self {
        Self(format!("outbound|{port}|{subset}|{host}").into())
    }

    /// The name as it stands in logs and metrics.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ClusterName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for ClusterName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// Where one endpoint listens.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Address {
    /// A socket address.
    Ip(SocketAddr),
    /// A name to resolve, and the port.
    Name(Arc<str>, u16),
    /// A unix domain socket.
    Unix(Arc<str>),
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(a) => write!(f, "{a}"),
            Self::Name(n, p) => write!(f, "{n}:{p}"),
            Self::Unix(p) => write!(f, "unix://{p}"),
        }
    }
}

/// Whether an endpoint may be picked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Health {
    /// Ready: may be picked.
    Healthy,
    /// Known but not ready: counted, never picked.
    Unhealthy,
}

/// One endpoint of a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Where it listens.
    pub address: Address,
    /// Relative weight, at least 1.
    pub weight: u32,
    /// Whether it may be picked.
    pub health: Health,
    /// Labels of its pod or workload entry.
    pub labels: BTreeMap<String, String>,
    /// Name of its pod, where known.
    pub workload: Option<Arc<str>>,
}

/// How a cluster's endpoints come to be known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Discovery {
    /// The list is the list.
    Static,
    /// Every address of every name (ServiceEntry `DNS`).
    StrictDns,
    /// One endpoint: the first address of the latest answer (ServiceEntry `DNS_ROUND_ROBIN`).
    LogicalDns,
    /// No endpoint can be known on a gateway (ServiceEntry `NONE`, DestinationRule `PASSTHROUGH`).
    OriginalDestination,
}

/// How one endpoint is chosen among the healthy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum LbPolicy {
    /// The less loaded of two picked at random: Istio's default.
    #[default]
    LeastRequest,
    /// In turn.
    RoundRobin,
    /// At random.
    Random,
}

/// HTTP version spoken upstream; never inferred from the client's (Istio, unless `useClientProtocol`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum UpstreamProtocol {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2 by prior knowledge, or ALPN `h2` over TLS.
    Http2,
}

/// TLS towards the upstream, where the DestinationRule asks for it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct UpstreamTls {
    /// Server name to send; `None`: the authority as sent upstream, when it is a name.
    pub sni: Option<Arc<str>>,
    /// PEM file with the trusted roots; `None`: the system's store.
    pub ca_file: Option<Arc<str>>,
    /// At least one of these must be among the certificate's names; empty: see `verify_name`.
    pub subject_alt_names: Vec<Arc<str>>,
    /// Whether an untrusted chain and a wrong name are accepted.
    pub insecure_skip_verify: bool,
}

/// Everything about a cluster but its endpoints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterSpec {
    /// Istio's name of it.
    pub name: ClusterName,
    /// Fully qualified host of the service.
    pub host: Arc<str>,
    /// Service port.
    pub port: u16,
    /// Subset, or empty.
    pub subset: Arc<str>,
    /// How endpoints come to be known.
    pub discovery: Discovery,
    /// How one is chosen.
    pub lb: LbPolicy,
    /// HTTP version spoken upstream.
    pub protocol: UpstreamProtocol,
    /// TLS towards the upstream; `None`: plain text.
    pub tls: Option<UpstreamTls>,
    /// Limit for the TCP connect (mesh default 10 s).
    pub connect_timeout: Duration,
    /// How long an idle upstream connection is kept (default 1 h); `None`: for ever.
    pub idle_timeout: Option<Duration>,
    /// `namespace/name` of the DestinationRule in force, for people.
    pub destination_rule: Option<Arc<str>>,
}

/// A cluster as compiled: its specification and the endpoints that the configuration names.
///
/// Two parts, so that an endpoint change leaves the specification, and all that hangs on it, alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cluster {
    /// What does not change with the endpoints.
    pub spec: Arc<ClusterSpec>,
    /// Endpoints in a fixed order.
    pub endpoints: Arc<[Endpoint]>,
}
