//! What a `credentialName` names (Istio: credentials/resource.go `ParseResourceName`), and what a server's certificates are.
//!
//! Invariant: reading only. Whether the gateway may use what is named, and whether it is there, is for the caller to judge.

use super::gateway::ServerTlsSettings;
use crate::meta::{Kind, ResourceKey};

/// Where a credential is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Credential<'a> {
    /// A Secret: `name`, `namespace/name`, or either behind `kubernetes://`, `kubernetes-gateway://` or `sds://`.
    Secret {
        /// Its namespace.
        namespace: &'a str,
        /// Its name.
        name: &'a str,
    },
    /// A ConfigMap with certificate authorities: `configmap://namespace/name`.
    ConfigMap {
        /// Its namespace.
        namespace: &'a str,
        /// Its name.
        name: &'a str,
    },
    /// The workload's own certificate: `builtin://`.
    Workload,
    /// Something of another scheme, which is none that a gateway without a control plane can fetch.
    Unknown {
        /// The scheme.
        scheme: &'a str,
    },
}

impl<'a> Credential<'a> {
    /// Reads a reference; one without a namespace is in `home`.
    pub fn parse(reference: &'a str, home: &'a str) -> Credential<'a> {
        // Istio: without an SDS server beside the proxy or in the mesh, what follows is a reference like any other.
        let reference = reference.strip_prefix("sds://").unwrap_or(reference);
        let (scheme, rest) = reference.split_once("://").unwrap_or(("kubernetes", reference));
        let (namespace, name) = rest.split_once('/').unwrap_or((home, rest));
        match scheme {
            "kubernetes" | "kubernetes-gateway" => Credential::Secret { namespace, name },
            "configmap" => Credential::ConfigMap { namespace, name },
            "builtin" => Credential::Workload,
            scheme => Credential::Unknown { scheme },
        }
    }
}

/// Why a DestinationRule's credential is none that a gateway fetches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Misplaced<'a> {
    /// It is in another namespace than such a one has to be in.
    Elsewhere {
        /// The namespace it has to be in.
        home: &'a str,
    },
    /// Its scheme is none that a gateway without a control plane can fetch.
    OfUnknownKind,
}

impl<'a> Credential<'a> {
    /// Reads the `credentialName` of a DestinationRule; `None` when it is empty. A Secret is in the namespace of the gateway's pods,
    /// a ConfigMap in that of the rule.
    ///
    /// # Errors
    /// Why no gateway fetches what is named.
    pub fn of_client(
        written: &'a str,
        pods: &'a str,
        rule: &'a str,
    ) -> Option<Result<Credential<'a>, Misplaced<'a>>> {
        if written.is_empty() {
            return None;
        }
        let home = if written.starts_with("configmap://") { rule } else { pods };
        let credential = Credential::parse(written, home);
        Some(match credential {
            Credential::Workload | Credential::Unknown { .. } => Err(Misplaced::OfUnknownKind),
            Credential::Secret { namespace, .. } | Credential::ConfigMap { namespace, .. }
                if namespace != home =>
            {
                Err(Misplaced::Elsewhere { home })
            }
            Credential::Secret { .. } | Credential::ConfigMap { .. } => Ok(credential),
        })
    }

    /// The resource that it names, if it names one.
    pub fn key(&self) -> Option<ResourceKey> {
        match *self {
            Credential::Secret { namespace, name } => Some(ResourceKey::new(Kind::Secret, namespace, name)),
            Credential::ConfigMap { namespace, name } => {
                Some(ResourceKey::new(Kind::ConfigMap, namespace, name))
            }
            Credential::Workload | Credential::Unknown { .. } => None,
        }
    }
}

/// A certificate that a server names, with the path of the field below `tls`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServerCertificate<'a> {
    /// By reference.
    Reference {
        /// The field, e.g. `credentialNames[1]`.
        field: String,
        /// The reference as written.
        reference: &'a str,
    },
    /// By files; validation sees to it that both are named.
    Files {
        /// The field, e.g. `serverCertificate`.
        field: String,
        /// PEM file with the certificate chain.
        certificate: &'a str,
        /// PEM file with the private key.
        key: &'a str,
    },
}

impl ServerTlsSettings {
    /// The certificates of a server that ends TLS. References beat files, and the one reference beats several, as in Istio.
    pub fn certificates(&self) -> Vec<ServerCertificate<'_>> {
        if !self.credential_name.is_empty() {
            let field = "credentialName".to_owned();
            return vec![ServerCertificate::Reference { field, reference: &self.credential_name }];
        }
        if !self.credential_names.is_empty() {
            let references = self.credential_names.iter().enumerate();
            return references
                .map(|(index, reference)| ServerCertificate::Reference {
                    field: format!("credentialNames[{index}]"),
                    reference,
                })
                .collect();
        }
        let several = self.tls_certificates.iter().enumerate().map(|(index, pair)| {
            (format!("tlsCertificates[{index}]"), pair.server_certificate.as_str(), pair.private_key.as_str())
        });
        let own =
            ("serverCertificate".to_owned(), self.server_certificate.as_str(), self.private_key.as_str());
        several
            .chain(std::iter::once(own))
            .filter(|(_, certificate, key)| !certificate.is_empty() && !key.is_empty())
            .map(|(field, certificate, key)| ServerCertificate::Files { field, certificate, key })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references() {
        let secret = |namespace, name| Credential::Secret { namespace, name };
        for (reference, means) in [
            ("cert", secret("home", "cert")),
            ("ns/cert", secret("ns", "cert")),
            ("kubernetes://cert", secret("home", "cert")),
            ("kubernetes-gateway://ns/cert", secret("ns", "cert")),
            ("configmap://ns/ca", Credential::ConfigMap { namespace: "ns", name: "ca" }),
            ("builtin://", Credential::Workload),
            ("sds://cert", secret("home", "cert")),
            ("sds://configmap://ns/ca", Credential::ConfigMap { namespace: "ns", name: "ca" }),
            ("invalid://", Credential::Unknown { scheme: "invalid" }),
        ] {
            assert_eq!(Credential::parse(reference, "home"), means, "{reference}");
        }
    }

    #[test]
    fn credentials_of_rules_have_a_home() {
        let of = |written| Credential::of_client(written, "pods", "rule");
        let elsewhere = |home| Some(Err(Misplaced::Elsewhere { home }));
        assert_eq!(of(""), None);
        assert_eq!(of("c"), Some(Ok(Credential::Secret { namespace: "pods", name: "c" })));
        assert_eq!(of("kubernetes://pods/c"), Some(Ok(Credential::Secret { namespace: "pods", name: "c" })));
        assert_eq!(of("rule/c"), elsewhere("pods"));
        assert_eq!(of("configmap://c"), Some(Ok(Credential::ConfigMap { namespace: "rule", name: "c" })));
        assert_eq!(of("configmap://pods/c"), elsewhere("rule"));
        assert_eq!(of("builtin://"), Some(Err(Misplaced::OfUnknownKind)));
        assert_eq!(of("sds://c"), Some(Ok(Credential::Secret { namespace: "pods", name: "c" })));
        assert_eq!(of("invalid://c"), Some(Err(Misplaced::OfUnknownKind)));
    }

    #[test]
    fn references_beat_files() {
        let mut tls = ServerTlsSettings {
            server_certificate: "c".into(),
            private_key: "k".into(),
            credential_names: vec!["a".into(), "b".into()],
            ..ServerTlsSettings::default()
        };
        let fields = |tls: &ServerTlsSettings| -> Vec<String> {
            tls.certificates()
                .into_iter()
                .map(|certificate| match certificate {
                    ServerCertificate::Reference { field, .. } | ServerCertificate::Files { field, .. } => {
                        field
                    }
                })
                .collect()
        };
        assert_eq!(fields(&tls), ["credentialNames[0]", "credentialNames[1]"]);
        tls.credential_names.clear();
        assert_eq!(fields(&tls), ["serverCertificate"]);
        tls.private_key.clear();
        assert!(fields(&tls).is_empty());
    }
}
