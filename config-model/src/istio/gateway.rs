//! `Gateway`: the servers that gateway pods open.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::scalar::{PortNumber, ServerHost};

/// A Gateway's spec.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Gateway {
    /// The servers, each independent.
    pub servers: Vec<Server>,
    /// Labels of the pods that serve this; absent or empty selects every gateway pod.
    pub selector: Option<BTreeMap<String, String>>,
}

/// One server: a port, its hosts, its TLS.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Server {
    /// The port and its protocol; required by validation.
    pub port: Port,
    /// IP address or `unix:///path` to listen on; empty means all addresses.
    pub bind: String,
    /// Hosts, each with an optional namespace filter.
    pub hosts: Vec<ServerHost>,
    /// TLS settings; required for HTTPS and TLS.
    pub tls: Option<ServerTlsSettings>,
    /// Unused by Istio's gateways.
    pub default_endpoint: String,
    /// Name for statistics.
    pub name: String,
}

/// A server port.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Port {
    /// The Service port; `None` is 0, legal only with a unix socket.
    #[serde(deserialize_with = "PortNumber::or_zero")]
    pub number: Option<PortNumber>,
    /// Protocol name; see [`crate::scalar::Protocol::parse`].
    pub protocol: String,
    /// Name, unique within the Gateway.
    pub name: String,
    /// Deprecated; admission refuses it.
    #[serde(deserialize_with = "PortNumber::or_zero")]
    pub target_port: Option<PortNumber>,
}

/// TLS settings of a server.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ServerTlsSettings {
    /// Redirect every plaintext request to https with 301.
    pub https_redirect: bool,
    /// How TLS is handled; the zero value is PASSTHROUGH.
    pub mode: ServerTlsMode,
    /// PEM file with the certificate chain.
    pub server_certificate: String,
    /// PEM file with the private key.
    pub private_key: String,
    /// PEM file with the client CAs.
    pub ca_certificates: String,
    /// PEM file with a revocation list.
    pub ca_crl: String,
    /// A Secret in the gateway pod's namespace.
    pub credential_name: String,
    /// One or two Secrets, of different key types.
    pub credential_names: Vec<String>,
    /// Overrides where the client CA comes from.
    pub ca_cert_credential_name: String,
    /// One or two certificates from files.
    pub tls_certificates: Vec<TlsCertificate>,
    /// A client certificate must carry one of these.
    pub subject_alt_names: Vec<String>,
    /// Base64 SHA-256 pins of the client key.
    pub verify_certificate_spki: Vec<String>,
    /// Hex SHA-256 pins of the client certificate.
    pub verify_certificate_hash: Vec<String>,
    /// Lowest TLS version.
    pub min_protocol_version: TlsProtocol,
    /// Highest TLS version.
    pub max_protocol_version: TlsProtocol,
    /// OpenSSL names of ciphers for TLS 1.2 and below.
    pub cipher_suites: Vec<String>,
    /// Key exchange groups.
    pub ecdh_curves: Vec<String>,
    /// Accept client certificates of any issuer.
    pub insecure_skip_verify: bool,
}

/// A certificate from files.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct TlsCertificate {
    /// PEM file with the certificate chain.
    pub server_certificate: String,
    /// PEM file with the private key.
    pub private_key: String,
    /// Unused by Istio; the server's own `caCertificates` counts.
    pub ca_certificates: String,
}

/// How a server handles TLS.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[allow(missing_docs, reason = "each arm is the API's own value")]
pub enum ServerTlsMode {
    #[default]
    Passthrough,
    Simple,
    Mutual,
    AutoPassthrough,
    IstioMutual,
    OptionalMutual,
}

impl ServerTlsMode {
    /// Whether the gateway itself ends TLS.
    pub fn terminates(self) -> bool {
        !matches!(self, ServerTlsMode::Passthrough | ServerTlsMode::AutoPassthrough)
    }

    /// The API's name.
    pub fn as_str(self) -> &'static str {
        match self {
            ServerTlsMode::Passthrough => "PASSTHROUGH",
            ServerTlsMode::Simple => "SIMPLE",
            ServerTlsMode::Mutual => "MUTUAL",
            ServerTlsMode::AutoPassthrough => "AUTO_PASSTHROUGH",
            ServerTlsMode::IstioMutual => "ISTIO_MUTUAL",
            ServerTlsMode::OptionalMutual => "OPTIONAL_MUTUAL",
        }
    }
}

/// The cipher suites that Istio lets through, by OpenSSL's names (Istio: security.go `ValidCipherSuites`).
pub const CIPHER_SUITES: [&str; 15] = [
    "ECDHE-ECDSA-AES128-GCM-SHA256",
    "ECDHE-RSA-AES128-GCM-SHA256",
    "ECDHE-ECDSA-AES256-GCM-SHA384",
    "ECDHE-RSA-AES256-GCM-SHA384",
    "ECDHE-ECDSA-CHACHA20-POLY1305",
    "ECDHE-RSA-CHACHA20-POLY1305",
    "ECDHE-ECDSA-AES128-SHA",
    "ECDHE-RSA-AES128-SHA",
    "ECDHE-ECDSA-AES256-SHA",
    "ECDHE-RSA-AES256-SHA",
    "AES128-GCM-SHA256",
    "AES256-GCM-SHA384",
    "AES128-SHA",
    "AES256-SHA",
    "DES-CBC3-SHA",
];

/// A TLS version bound. Orders from old to new, with "automatic" first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[allow(missing_docs, reason = "each arm is the API's own value")]
pub enum TlsProtocol {
    #[default]
    #[serde(rename = "TLS_AUTO")]
    Auto,
    #[serde(rename = "TLSV1_0")]
    V1_0,
    #[serde(rename = "TLSV1_1")]
    V1_1,
    #[serde(rename = "TLSV1_2")]
    V1_2,
    #[serde(rename = "TLSV1_3")]
    V1_3,
}
