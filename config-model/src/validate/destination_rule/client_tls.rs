//! TLS towards endpoints (Istio: ValidateTLS).

use super::Check;
use crate::istio::{
    DestinationRule,
    destination_rule::{ClientTlsMode, ClientTlsSettings},
};

pub(super) fn check(check: &mut Check<'_, DestinationRule>, path: &str, tls: &ClientTlsSettings) {
    config_map(check, path, &tls.credential_name);
    unverified(check, path, tls);
    let files = [&tls.client_certificate, &tls.private_key, &tls.ca_certificates, &tls.ca_crl];
    let any_file = files.iter().any(|file| !file.is_empty());
    let secret = !tls.credential_name.is_empty();
    match tls.mode {
        ClientTlsMode::Simple | ClientTlsMode::Mutual if secret && any_file => {
            check.error(
                path,
                "cannot specify client certificates or CA certificate or CA CRL If credentialName is set",
            );
        }
        ClientTlsMode::Mutual if !secret => {
            let hint = "name a Secret in credentialName, or files in clientCertificate and privateKey";
            if tls.client_certificate.is_empty() {
                check.refuse(path, "client certificate required for mutual tls", hint);
            }
            if tls.private_key.is_empty() {
                check.refuse(path, "private key required for mutual tls", hint);
            }
        }
        ClientTlsMode::IstioMutual if any_file || secret => {
            check.warn(path, "ISTIO_MUTUAL uses the workload's own certificate; the ones named are not used");
        }
        _ => {}
    }
}

/// `configmap://namespace/name` must be in the rule's own namespace.
fn config_map(check: &mut Check<'_, DestinationRule>, path: &str, reference: &str) {
    let Some(rest) = reference.strip_prefix("configmap://") else { return };
    let own = &check.resource.key.namespace;
    let mut parts = rest.split('/');
    let message = match (parts.next(), parts.next()) {
        (Some(namespace), Some(name)) if !namespace.is_empty() && !name.is_empty() => {
            if namespace == own {
                return;
            }
            format!(
                "invalid configmap:// credentialName: namespace must match the configuration namespace {own:?}"
            )
        }
        _ => "invalid configmap:// credentialName: expected namespace and name".to_owned(),
    };
    check.error(format!("{path}.credentialName"), message);
}

/// Verification is off, or something is named to verify with; not both.
fn unverified(check: &mut Check<'_, DestinationRule>, path: &str, tls: &ClientTlsSettings) {
    if tls.insecure_skip_verify != Some(true) {
        return;
    }
    let verifies = !tls.ca_certificates.is_empty() || !tls.subject_alt_names.is_empty();
    let message = match tls.mode {
        ClientTlsMode::Simple if verifies || !tls.credential_name.is_empty() => {
            "cannot specify CaCertificates or CredentialName or SubjectAltNames when InsecureSkipVerify is set true"
        }
        ClientTlsMode::Mutual if verifies => {
            "cannot specify CaCertificates or SubjectAltNames when InsecureSkipVerify is set true"
        }
        _ => return,
    };
    check.error(format!("{path}.insecureSkipVerify"), message);
}

#[cfg(test)]
mod tests {
    use crate::validate::destination_rule::tests::policy;

    #[test]
    fn settings() {
        for (text, finds) in [
            ("{mode: SIMPLE}", vec![]),
            ("{mode: SIMPLE, caCertificates: a, sni: b, subjectAltNames: [c]}", vec![]),
            ("{mode: SIMPLE, credentialName: configmap://default/ca}", vec![]),
            ("{mode: SIMPLE, credentialName: configmap://other/ca}", vec!["!IST0106 tls.credentialName"]),
            ("{mode: SIMPLE, credentialName: configmap://ca}", vec!["!IST0106 tls.credentialName"]),
            (
                "{mode: SIMPLE, credentialName: configmap://default/ca, caCertificates: a}",
                vec!["!IST0106 tls"],
            ),
            ("{mode: MUTUAL}", vec!["!IST0106 tls", "!IST0106 tls"]),
            ("{mode: MUTUAL, clientCertificate: a}", vec!["!IST0106 tls"]),
            ("{mode: MUTUAL, clientCertificate: a, privateKey: b}", vec![]),
            ("{mode: SIMPLE, insecureSkipVerify: true}", vec![]),
            (
                "{mode: SIMPLE, insecureSkipVerify: true, subjectAltNames: [a]}",
                vec!["!IST0106 tls.insecureSkipVerify"],
            ),
            (
                "{mode: SIMPLE, insecureSkipVerify: true, credentialName: configmap://default/a}",
                vec!["!IST0106 tls.insecureSkipVerify"],
            ),
            (
                "{mode: MUTUAL, insecureSkipVerify: true, caCertificates: a, clientCertificate: a, privateKey: b}",
                vec!["!IST0106 tls.insecureSkipVerify"],
            ),
            ("{mode: ISTIO_MUTUAL}", vec![]),
            ("{mode: ISTIO_MUTUAL, caCertificates: a}", vec!["IST0133 tls"]),
        ] {
            let mut found = policy(&format!("{{tls: {text}}}"));
            found.retain(|line| !line.starts_with("IST0101"));
            assert_eq!(found, finds, "{text}");
        }
    }
}
