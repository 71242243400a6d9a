//! TLS towards an upstream, as its DestinationRule asks for it.
//!
//! Invariant: only names of files and Secrets stand here, never their content; what they hold may change while the
//! specification stays.

use std::sync::Arc;

/// TLS towards the upstream.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct UpstreamTls {
    /// Server name to send; `None`: the authority as sent upstream, when it is a name.
    pub sni: Option<Arc<str>>,
    /// What the server's certificate is verified against.
    pub roots: Roots,
    /// What the server is shown.
    pub identity: ClientIdentity,
    /// PEM file with revocation lists; each link of the chain is looked up.
    pub crl_file: Option<Arc<str>>,
    /// At least one of these must be among the certificate's names; empty: see `verify_host`.
    pub subject_alt_names: Vec<Arc<str>>,
    /// Whether the certificate must be for the server name (or the address, where there is no name).
    pub verify_host: bool,
    /// Whether an untrusted chain and a wrong name are accepted.
    pub insecure_skip_verify: bool,
}

impl UpstreamTls {
    /// Whether it is the mesh's own (Istio: `ISTIO_MUTUAL`, auto mTLS), which sidecars know by its protocol names.
    #[must_use]
    pub fn is_of_mesh(&self) -> bool {
        self.identity == ClientIdentity::Workload
    }
}

/// What a server's certificate is verified against.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub enum Roots {
    /// The system's store.
    #[default]
    System,
    /// A PEM file.
    File(Arc<str>),
    /// A Secret: `NAME-cacert` where there is one, else the Secret itself (Istio never falls back to the system's).
    Secret {
        /// Namespace of the gateway's pods.
        namespace: Arc<str>,
        /// Name without `-cacert`.
        name: Arc<str>,
    },
    /// A ConfigMap with `ca.crt` or `cacert`.
    ConfigMap {
        /// Namespace of the DestinationRule.
        namespace: Arc<str>,
        /// Name.
        name: Arc<str>,
    },
    /// The roots that were mounted with the gateway's own workload certificate.
    Workload,
}

/// What the server is shown of us.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub enum ClientIdentity {
    /// Nothing.
    #[default]
    None,
    /// A certificate chain and its key, PEM files.
    Files {
        /// The chain.
        certificate: Arc<str>,
        /// Its key.
        key: Arc<str>,
    },
    /// A Secret with certificate and key.
    Secret {
        /// Namespace of the gateway's pods.
        namespace: Arc<str>,
        /// Name.
        name: Arc<str>,
    },
    /// The gateway's own workload certificate, as mounted.
    Workload,
}
