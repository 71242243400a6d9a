//! Certificates that cannot be used, as findings about the Gateways that name them.
//!
//! Invariant: `limen check` and a running gateway say the same, at the same field. What validation has said already is not repeated.

use std::collections::BTreeSet;

use config_model::{
    diagnostic::{Code, Diagnostics},
    istio,
    meta::{Kind, Resource, ResourceKey},
    parse::locate,
    validate::Validated,
};
use routing::listener::{CertificateSource, Listeners};

use super::{CertificateProblem, Certificates};

/// The findings of these problems, one for each Gateway that uses the certificate.
#[must_use]
pub fn findings(problems: &[CertificateProblem], validated: &Validated, said: &Diagnostics) -> Diagnostics {
    let said: BTreeSet<(&ResourceKey, &str)> = said
        .iter()
        .filter(|before| matches!(before.code, Code::REFERENCE_NOT_FOUND | Code::INVALID_CREDENTIAL))
        .filter_map(|before| Some((before.resource.as_ref()?, before.path.as_str())))
        .collect();
    let mut found = Diagnostics::new();
    for problem in problems {
        for name in &problem.gateways {
            let Some((namespace, name)) = name.split_once('/') else { continue };
            let key = ResourceKey::new(Kind::Gateway, namespace, name);
            let Some(gateway) = validated.set().gateways().get(&key) else { continue };
            let path = field(problem, gateway);
            if !said.contains(&(&key, path.as_str())) {
                found.push(problem.diagnostic().about(&key, &gateway.origin).at(path));
            }
        }
    }
    locate::place(&mut found);
    found
}

/// The findings about the Secrets among the files. Certificates that are files themselves are on the machine that serves, so
/// only that machine can judge them.
#[must_use]
pub fn of_secrets(listeners: &Listeners, validated: &Validated, said: &Diagnostics) -> Diagnostics {
    let (_, mut problems) = Certificates::build(listeners, validated.set(), &Certificates::default());
    problems.retain(|problem| matches!(problem.source, Some(CertificateSource::Secret { .. })));
    findings(&problems, validated, said)
}

/// The field that names the certificate.
fn field(problem: &CertificateProblem, gateway: &Resource<istio::Gateway>) -> String {
    let named = |reference: &str, name: &str| reference.rsplit('/').next() == Some(name);
    for (index, server) in gateway.spec.servers.iter().enumerate() {
        let Some(tls) = &server.tls else { continue };
        let path = format!("spec.servers[{index}].tls");
        match &problem.source {
            Some(CertificateSource::Secret { name, .. }) => {
                if named(&tls.credential_name, name) {
                    return format!("{path}.credentialName");
                }
                if let Some(at) = tls.credential_names.iter().position(|reference| named(reference, name)) {
                    return format!("{path}.credentialNames[{at}]");
                }
            }
            Some(CertificateSource::Files { certificate, .. }) => {
                if tls.server_certificate.as_str() == &**certificate {
                    return format!("{path}.serverCertificate");
                }
            }
            None => return path,
        }
    }
    "spec.servers".to_owned()
}
