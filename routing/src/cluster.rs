//! Upstream clusters: one per service port and subset, named as Istio names them.
//!
//! Invariant: a specification is plain comparable data, so that a reload can tell what changed and keep the rest.

mod hash_key;
mod limits;
mod tls;
mod workload;

pub(crate) use hash_key::hash_key_text;
pub use hash_key::{HashCookie, HashKey, combined_hash};
pub use limits::{KeepAlive, Outlier, Pool, ProxyVersion, RetryLimit, Tunnel, TunnelMethod, Warmup};
pub use tls::{ClientIdentity, Roots, UpstreamTls};
pub use workload::Workload;

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

    /// The same endpoints for TLS that is passed on as it is (`AUTO_PASSTHROUGH`), under the server name that chooses it.
    #[must_use]
    pub fn passed_on(port: u16, subset: &str, host: &str) -> Self {
        Self(format!("outbound_.{port}_.{subset}_.{host}").into())
    }

    /// Whether it is one of [`passed_on`](Self::passed_on).
    #[must_use]
    pub fn is_passed_on(&self) -> bool {
        self.0.starts_with("outbound_.")
    }

    /// Where a connection was going anyway: of the workload beside a sidecar, to what no service has.
    #[must_use]
    pub fn passthrough() -> Self {
        Self("PassthroughCluster".into())
    }

    /// Whatever name a request to what no service has asks for (`ALLOW_ANY_DYNAMIC_DNS`).
    #[must_use]
    pub fn any_name() -> Self {
        Self("AllowAnyDynamicDNSCluster".into())
    }

    /// The same for a connection to the workload, on a port that no service has.
    #[must_use]
    pub fn inbound_passthrough() -> Self {
        Self("InboundPassthroughCluster".into())
    }

    /// Nowhere: it has no endpoints, and who is sent there is cut off.
    #[must_use]
    pub fn black_hole() -> Self {
        Self("BlackHoleCluster".into())
    }

    /// The workload beside a sidecar, on one of its ports.
    #[must_use]
    pub fn inbound(port: u16) -> Self {
        Self(format!("inbound|{port}||").into())
    }

    /// Whether it is the workload beside a sidecar: on a port of a service, or on any.
    #[must_use]
    pub fn is_inbound(&self) -> bool {
        self.0.starts_with("inbound|") || &*self.0 == "InboundPassthroughCluster"
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

impl Address {
    /// Of what can be reached by way of others only.
    pub(crate) fn nowhere() -> Self {
        Self::Name("".into(), 0)
    }

    pub(crate) fn is_nowhere(&self) -> bool {
        matches!(self, Self::Name(name, _) if name.is_empty())
    }
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

/// Where an endpoint stands among its cluster's: nearer ones are preferred.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Place {
    /// `region/zone/subzone`, as much of it as is known; empty: unknown.
    pub locality: Arc<str>,
    /// 0 is preferred; endpoints of 1 are used as those of 0 fail, and so on.
    pub priority: u32,
    /// What its locality gets of the traffic of its priority.
    pub share: Share,
}

/// What a locality gets of the traffic of its priority.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Share {
    /// As much as the weights of its endpoints make.
    #[default]
    ByWeight,
    /// So much, relative to the others (`distribute`).
    Of(u32),
    /// What falls to it so that traffic stays in the gateway's zone as far as that has room (`zoneAwareLbSetting`).
    Zone(Zone),
}

/// How a locality stands to the gateway's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Zone {
    /// It is the gateway's own.
    pub own: bool,
    /// How many of each 10,000 of the gateway's replicas are there.
    pub replicas: u16,
    /// Endpoints that are fit, in all zones, below which zones are not told apart.
    pub least: u32,
}

/// One endpoint of a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Where it listens.
    pub address: Address,
    /// Where it listens too, in the order to try them in where `address` does not connect (RFC 8305 §5). A name's, as
    /// resolved: empty in what is compiled.
    pub alternates: Arc<[SocketAddr]>,
    /// Relative weight, at least 1.
    pub weight: u32,
    /// Whether it may be picked.
    pub health: Health,
    /// Labels of its pod or workload entry.
    pub labels: BTreeMap<String, String>,
    /// Name of its pod, where known.
    pub workload: Option<Arc<str>>,
    /// Who is behind it.
    pub identity: Arc<Workload>,
    /// Where it stands among the others.
    pub place: Place,
}

impl Endpoint {
    /// Label that says whether an endpoint takes part in the mesh's mutual TLS.
    pub const TLS_MODE_LABEL: &'static str = "security.istio.io/tlsMode";

    /// Whether it takes part in the mesh's mutual TLS.
    #[must_use]
    pub fn is_of_mesh(&self) -> bool {
        self.labels.get(Self::TLS_MODE_LABEL).is_some_and(|mode| mode == "istio")
    }

    /// A healthy endpoint of weight 1 of which nothing else is known.
    #[must_use]
    pub fn at(address: Address) -> Self {
        Self {
            address,
            alternates: Arc::default(),
            weight: 1,
            health: Health::Healthy,
            labels: BTreeMap::new(),
            workload: None,
            identity: Workload::unknown(),
            place: Place::default(),
        }
    }
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
    /// The name that the request asks for, resolved when it is asked for (ServiceEntry `DYNAMIC_DNS`). Its one endpoint says which: below
    /// `*.a.example`, or any for `*`; on its port, or, where that is 0, on the one that is asked for.
    DynamicDns,
    /// Where the connection was going before it was redirected to a sidecar (ServiceEntry `NONE`, DestinationRule
    /// `PASSTHROUGH`); on a gateway there is no such place.
    OriginalDestination {
        /// There, but on this port (ServiceEntry `NONE` with `targetPort`).
        port: Option<u16>,
    },
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
    /// By a hash, on a ring of at least so many points.
    RingHash {
        /// Least number of points.
        minimum: u64,
    },
    /// By a hash, in a table of that size.
    Maglev {
        /// Number of entries, a prime.
        size: u64,
    },
}

/// HTTP version spoken upstream; never inferred from the client's (Istio, unless `useClientProtocol`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum UpstreamProtocol {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2 by prior knowledge, or ALPN `h2` over TLS.
    Http2,
    /// What the client speaks (`useClientProtocol`).
    Client,
}

/// Everything about a cluster but its endpoints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterSpec {
    /// Istio's name of it.
    pub name: ClusterName,
    /// Fully qualified host of the service.
    pub host: Arc<str>,
    /// Name of the Service; of a ServiceEntry it is the host.
    pub service: Arc<str>,
    /// Namespace of the Service or ServiceEntry; empty: not known.
    pub namespace: Arc<str>,
    /// Service port.
    pub port: u16,
    /// Subset, or empty.
    pub subset: Arc<str>,
    /// How endpoints come to be known.
    pub discovery: Discovery,
    /// How one is chosen.
    pub lb: LbPolicy,
    /// What is hashed where the choice is by a hash; `None`: nothing, so that the choice is random.
    pub hash_key: Option<HashKey>,
    /// Slow start of endpoints that are new.
    pub warmup: Option<Warmup>,
    /// Below this share of healthy endpoints all are used, per cent; 0: never.
    pub panic_percent: u32,
    /// HTTP version spoken upstream.
    pub protocol: UpstreamProtocol,
    /// TLS towards the upstream; `None`: plain text.
    pub tls: Option<UpstreamTls>,
    /// TLS towards the endpoints that are of the mesh, where no rule says anything (Istio: auto mTLS).
    pub auto_mtls: Option<UpstreamTls>,
    /// Limit for the TCP connect (mesh default 10 s).
    pub connect_timeout: Duration,
    /// How long an idle upstream connection is kept (default 1 h); `None`: for ever.
    pub idle_timeout: Option<Duration>,
    /// Limits of connections and requests.
    pub pool: Pool,
    /// When an endpoint is ejected; `None`: never.
    pub outlier: Option<Outlier>,
    /// The PROXY header that begins each connection.
    pub proxy_protocol: Option<ProxyVersion>,
    /// The way of connections that are not HTTP; `None`: straight to the endpoint.
    pub tunnel: Option<Tunnel>,
    /// `namespace/name` of the DestinationRule in force, for people.
    pub destination_rule: Option<Arc<str>>,
}

impl ClusterSpec {
    /// A cluster of which only name and place are known: Istio's defaults for all else.
    #[must_use]
    pub fn new(host: &str, port: u16, subset: &str) -> Self {
        Self {
            name: ClusterName::outbound(port, subset, host),
            host: host.into(),
            service: host.into(),
            namespace: "".into(),
            port,
            subset: subset.into(),
            discovery: Discovery::Static,
            lb: LbPolicy::LeastRequest,
            hash_key: None,
            warmup: None,
            panic_percent: 0,
            protocol: UpstreamProtocol::Http1,
            tls: None,
            auto_mtls: None,
            connect_timeout: Duration::from_secs(10),
            idle_timeout: Some(Duration::from_secs(3600)),
            pool: Pool::default(),
            outlier: None,
            proxy_protocol: None,
            tunnel: None,
            destination_rule: None,
        }
    }
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
