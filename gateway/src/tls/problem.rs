//! What is wrong with a server's certificates, as a finding.
//!
//! Invariant: nothing of a key or a certificate is in it but names.

use std::{collections::BTreeSet, sync::Arc};

use config_model::diagnostic::{Code, Diagnostic, Severity};
use routing::listener::CertificateSource;

/// A server that cannot be served as it was meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateProblem {
    /// The certificate; `None` when it is the server's other settings.
    pub source: Option<CertificateSource>,
    /// `namespace/name` of the Gateways that use it.
    pub gateways: BTreeSet<Arc<str>>,
    /// What is wrong.
    pub reason: String,
    /// Whether there is no such Secret.
    pub missing: bool,
    /// What clients get of the server now.
    pub effect: Effect,
}

/// What clients get of a server that has a problem.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Nothing with this certificate.
    NotServed,
    /// An earlier good certificate in its place.
    LastGoodServed,
    /// The certificate; what is wrong is said of it only.
    Served,
}

impl CertificateProblem {
    /// As a finding.
    pub fn diagnostic(&self) -> Diagnostic {
        let gateways: Vec<&str> = self.gateways.iter().map(AsRef::as_ref).collect();
        let about = match &self.source {
            Some(CertificateSource::Secret { namespace, name }) => format!("credential {namespace}/{name}"),
            Some(CertificateSource::Files { certificate, .. }) => format!("certificate file {certificate}"),
            None => "TLS settings".to_owned(),
        };
        let effect = match self.effect {
            Effect::LastGoodServed => "; the last good one is served",
            Effect::NotServed | Effect::Served => "",
        };
        let code = if self.missing { Code::REFERENCE_NOT_FOUND } else { Code::INVALID_CREDENTIAL };
        let message = format!("{about} of Gateway {}: {}{effect}", gateways.join(", "), self.reason);
        let diagnostic = Diagnostic::new(code, message);
        if self.effect == Effect::Served {
            return diagnostic
                .severity(Severity::Warning)
                .hint("write a new response of the responder into the Secret");
        }
        match &self.source {
            Some(CertificateSource::Secret { namespace, .. }) => diagnostic.hint(format!(
                "put a Secret with tls.crt and tls.key (or cert and key) into namespace {namespace}, where the gateway runs"
            )),
            Some(CertificateSource::Files { .. }) | None => diagnostic,
        }
    }
}
