//! Compiled listeners: an address, and the filter chains that share it.
//!
//! Invariant: a key never has two listeners; merging and its conflicts were settled by `compile`.

mod matched;
mod original;

pub use matched::{ChainMatch, Matched, PLAIN_HTTP, Sniffed, Transport, Wants};
pub use original::of_original_destination;

use crate::annotated::Annotated;
use crate::cluster::ClusterName;
use crate::host::HostIndex;
use crate::table::RouteTable;
use config_model::istio::gateway::ServerTlsMode;
use std::{collections::BTreeMap, fmt, net::IpAddr, sync::Arc};

/// Where a listener is bound, before any port map of the process.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Bind {
    /// Every address of the pod.
    Any,
    /// One address.
    Ip(IpAddr),
    /// A unix domain socket path.
    Unix(Arc<str>),
}

/// Identity of a listener.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ListenerKey {
    /// Address.
    pub bind: Bind,
    /// Port after the Service's targetPort translation; 0 for a unix socket.
    pub port: u16,
}

impl fmt::Display for ListenerKey {
    /// Istio's listener name, `0.0.0.0_80`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.bind {
            Bind::Any => write!(f, "0.0.0.0_{}", self.port),
            Bind::Ip(ip) => write!(f, "{ip}_{}", self.port),
            Bind::Unix(p) => write!(f, "{p}"),
        }
    }
}

/// Versions of TLS that a server may be held to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum TlsVersion {
    /// TLS 1.0.
    V1_0,
    /// TLS 1.1.
    V1_1,
    /// TLS 1.2.
    V1_2,
    /// TLS 1.3.
    V1_3,
}

/// Where a server's certificate comes from.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum CertificateSource {
    /// Secret in the gateway's own namespace.
    Secret {
        /// Namespace of the gateway workload.
        namespace: Arc<str>,
        /// Name of the Secret.
        name: Arc<str>,
    },
    /// PEM files.
    Files {
        /// Path of the certificate chain.
        certificate: Arc<str>,
        /// Path of the private key.
        key: Arc<str>,
    },
}

/// Where the authorities come from that a client's certificate must be of.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ClientRoots {
    /// Secret `NAME-cacert` in the gateway's own namespace, or `NAME` where that does not exist.
    Secret {
        /// Namespace of the gateway workload.
        namespace: Arc<str>,
        /// Name without `-cacert`.
        name: Arc<str>,
    },
    /// ConfigMap.
    ConfigMap {
        /// Namespace.
        namespace: Arc<str>,
        /// Name.
        name: Arc<str>,
    },
    /// PEM file.
    File(Arc<str>),
    /// Nothing is named: nobody is let in.
    Nowhere,
}

/// What is asked of a client's certificate.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ClientAuth {
    /// Without one there is no handshake; otherwise one that is shown must be good.
    pub required: bool,
    /// Who may have issued it.
    pub roots: ClientRoots,
    /// PEM file with revoked certificates, besides those of the Secret.
    pub crl: Option<Arc<str>>,
    /// It must bear one of these names, or one of `trust_domains`; both empty: any.
    pub names: Vec<String>,
    /// SPIFFE trust domains that a name of it may be of.
    pub trust_domains: Vec<String>,
    /// Base64 SHA-256 of public keys; it must have one of these or of `hashes`, when any are given.
    pub spki: Vec<String>,
    /// Hexadecimal SHA-256 of certificates, lower case without colons.
    pub hashes: Vec<String>,
    /// Whoever issued it will do.
    pub any_issuer: bool,
}

impl ClientAuth {
    /// Whether a URI of a certificate is of one of the trust domains.
    #[must_use]
    pub fn is_of_mesh(&self, uri: &str) -> bool {
        self.trust_domains.iter().any(|domain| {
            let rest = uri.strip_prefix("spiffe://").and_then(|rest| rest.strip_prefix(domain.as_str()));
            rest.is_some_and(|rest| rest.starts_with('/'))
        })
    }
}

/// TLS termination of one server.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ServerTls {
    /// One, or one per key type (RSA and ECDSA).
    pub certificates: Vec<CertificateSource>,
    /// Lowest version accepted (Istio's default: 1.2).
    pub min_version: TlsVersion,
    /// Highest version offered (default: 1.3).
    pub max_version: TlsVersion,
    /// OpenSSL names in order; empty: the library's default.
    pub cipher_suites: Vec<String>,
    /// Key exchange groups in order; empty: the library's default.
    pub groups: Vec<String>,
    /// What is asked of clients; `None`: nothing (SIMPLE).
    pub client: Option<ClientAuth>,
}

/// Where a connection goes whose bytes are not looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TcpRoute {
    virtual_service: Option<Arc<str>>,
    destinations: Box<[TcpDestination]>,
    total_weight: u64,
}

/// One of the clusters of a [`TcpRoute`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TcpDestination {
    /// Cluster to connect to.
    pub cluster: ClusterName,
    /// Share, relative to the sum of all.
    pub weight: u32,
}

impl TcpRoute {
    /// A route of the VirtualService `namespace/name`.
    #[must_use]
    pub fn new(virtual_service: Arc<str>, destinations: Vec<TcpDestination>) -> TcpRoute {
        let total_weight = destinations.iter().map(|d| u64::from(d.weight)).sum();
        TcpRoute { virtual_service: Some(virtual_service), destinations: destinations.into(), total_weight }
    }

    /// To one cluster, as `AUTO_PASSTHROUGH` has it: no VirtualService says so.
    #[must_use]
    pub fn automatic(cluster: ClusterName) -> TcpRoute {
        let destinations = Box::new([TcpDestination { cluster, weight: 1 }]);
        TcpRoute { virtual_service: None, destinations, total_weight: 1 }
    }

    /// `namespace/name` of the VirtualService.
    #[must_use]
    pub fn virtual_service(&self) -> Option<&str> {
        self.virtual_service.as_deref()
    }

    /// All destinations, in order.
    #[must_use]
    pub fn destinations(&self) -> &[TcpDestination] {
        &self.destinations
    }

    /// The cluster of one connection, by a random number; `None` when all weights were 0.
    #[must_use]
    pub fn pick(&self, entropy: u64) -> Option<&ClusterName> {
        let mut at = entropy.checked_rem(self.total_weight)?;
        let chosen = self.destinations.iter().find(|destination| {
            let weight = u64::from(destination.weight);
            let here = at < weight;
            at = at.saturating_sub(weight);
            here
        });
        chosen.map(|destination| &destination.cluster)
    }
}

/// The part of a listener that one server block makes: what is done with a connection that chose it.
#[derive(Clone, Debug)]
pub struct FilterChain {
    /// `namespace/name` of the Gateway.
    pub gateway: Arc<str>,
    /// Name of the server, or of its port where it has none.
    pub server: Arc<str>,
    /// Server port number as written, before translation.
    pub server_port: u16,
    /// What the server does with TLS; `None` on plain text.
    pub mode: Option<ServerTlsMode>,
    /// TLS termination; `None` on plain text, and where TLS is passed through.
    pub tls: Option<Arc<ServerTls>>,
    /// Where connections go that are not HTTP; `None`: the table says where requests go.
    pub tcp: Option<Arc<TcpRoute>>,
    /// Routes of this chain; empty where it is not HTTP.
    pub table: Arc<RouteTable>,
    /// The policies that annotations of the Gateway ask for; `None`: none.
    pub policies: Option<Arc<Annotated>>,
}

/// ALPN names by which the mesh's own proxies know one another (Istio: gateway.go `allIstioMtlsALPNs`).
pub(crate) const MESH_PROTOCOLS: [&str; 5] =
    ["istio-peer-exchange", "istio", "istio-http/1.0", "istio-http/1.1", "istio-h2"];

/// Whether a chain that a server name chose is for a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Fit {
    /// It is.
    Fits,
    /// It is for the mesh's own proxies, and the client offers none of their protocols.
    NotOfMesh,
}

impl FilterChain {
    /// Judges a client by the protocols that it offers in its ClientHello. `AUTO_PASSTHROUGH` takes none but the mesh's, so that
    /// nobody outside reaches by a guessed name what has no other door.
    pub fn fit<'o>(&self, offered: impl IntoIterator<Item = &'o [u8]>) -> Fit {
        let of_mesh = |name: &[u8]| MESH_PROTOCOLS.iter().any(|known| known.as_bytes() == name);
        if self.mode != Some(ServerTlsMode::AutoPassthrough) || offered.into_iter().any(of_mesh) {
            Fit::Fits
        } else {
            Fit::NotOfMesh
        }
    }
}

/// How a listener finds the chain of a connection.
#[derive(Clone, Debug)]
pub enum Chains {
    /// Plain text, HTTP or not: one chain for all.
    Http(Arc<FilterChain>),
    /// TLS: by server name; exact, then longest wildcard, then any (which also takes clients without a name).
    Tls(HostIndex<Arc<FilterChain>>),
    /// A sidecar's: by where a connection was going and by what it carries.
    Matched(Arc<Matched>),
}

impl Chains {
    /// Every chain, with what leads to it for people; one that several names lead to comes as often.
    pub fn each(&self) -> Box<dyn Iterator<Item = (Option<String>, &Arc<FilterChain>)> + '_> {
        match self {
            Self::Http(chain) => Box::new(std::iter::once((None, chain))),
            Self::Tls(index) => Box::new(index.iter().map(|(name, chain)| (Some(name.to_owned()), chain))),
            Self::Matched(matched) => {
                let shown = |condition: Option<&ChainMatch>| condition.map(ToString::to_string);
                Box::new(matched.each().map(move |(condition, chain)| (shown(condition), chain)))
            }
        }
    }
}

/// Whose connections a listener takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Direction {
    /// Those of whoever comes to a gateway.
    #[default]
    Gateway,
    /// Those that the workload beside a sidecar opens.
    Outbound,
    /// Those that are for the workload.
    Inbound,
}

/// How a listener comes by its connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Reached {
    /// It has a socket of its own, and serves what that accepts.
    #[default]
    Bound,
    /// It has a socket of its own, to which connections are redirected, and each goes to the listener that it was for:
    /// [`of_original_destination`]. It serves those for which there is none.
    Redirected,
    /// It has no socket: it serves what a redirected one hands it.
    HandedOver,
}

/// One listener.
#[derive(Clone, Debug)]
pub struct Listener {
    /// Identity.
    pub key: ListenerKey,
    /// Whose connections it takes.
    pub direction: Direction,
    /// How it comes by them.
    pub reached: Reached,
    /// Its chains.
    pub chains: Chains,
}

impl Listener {
    /// A gateway's.
    #[must_use]
    pub fn of_gateway(key: ListenerKey, chains: Chains) -> Self {
        Self { key, direction: Direction::Gateway, reached: Reached::Bound, chains }
    }

    /// Whether a socket is to be opened for it.
    #[must_use]
    pub fn is_bound(&self) -> bool {
        self.reached != Reached::HandedOver
    }

    /// Istio's name of it.
    #[must_use]
    pub fn name(&self) -> String {
        match (self.direction, self.reached) {
            (Direction::Outbound, Reached::Redirected) => "virtualOutbound".to_owned(),
            (Direction::Inbound, Reached::Redirected) => "virtualInbound".to_owned(),
            _ => self.key.to_string(),
        }
    }
}

/// All listeners by key.
pub type Listeners = BTreeMap<ListenerKey, Arc<Listener>>;
