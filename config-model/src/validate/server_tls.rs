//! What admission demands of a server's `tls` block, which Gateways and Sidecars share (Istio: validateTLSOptions).

use std::collections::BTreeSet;

use super::check::Check;
use crate::istio::gateway::{CIPHER_SUITES, ServerTlsMode, ServerTlsSettings, TlsProtocol};

pub(super) fn check<T>(check: &mut Check<'_, T>, path: &str, tls: &ServerTlsSettings) {
    versions(check, path, tls);
    ciphers(check, path, tls);
    for (field, count) in
        [("credentialNames", tls.credential_names.len()), ("tlsCertificates", tls.tls_certificates.len())]
    {
        check.at_most(format_args!("{path}.{field}"), count, 2);
    }
    match tls.mode {
        ServerTlsMode::IstioMutual => return istio_mutual(check, path, tls),
        ServerTlsMode::Passthrough | ServerTlsMode::AutoPassthrough => {
            if uses(tls).iter().any(|(_, used)| *used) || !tls.ca_crl.is_empty() {
                let message =
                    format!("{} mode does not use certificates, they will be ignored", tls.mode.as_str());
                check.warn(path, message);
            }
        }
        ServerTlsMode::Simple | ServerTlsMode::Mutual | ServerTlsMode::OptionalMutual => {}
    }
    let secret = !tls.credential_name.is_empty() || !tls.credential_names.is_empty();
    let sources = [
        !tls.server_certificate.is_empty() && !tls.private_key.is_empty(),
        !tls.credential_name.is_empty(),
        !tls.credential_names.is_empty(),
        !tls.tls_certificates.is_empty(),
    ];
    if sources.iter().filter(|used| **used).count() > 1 {
        check.error(
            path,
            "only one of credential_name, credential_names, server_certificate/private_key, tls_certificates should be specified",
        );
    }
    if tls.mode.terminates() && !secret {
        files(check, path, tls);
    }
    if !tls.ca_crl.is_empty() {
        let at = format!("{path}.caCrl");
        let message = "CRL is not supported with credentialName. CRL has to be specified in the credential";
        match (secret, tls.mode.terminates()) {
            // Admission looks no further when a Secret is named, so that the field is let through without effect.
            (true, true) => check.warn(at, message),
            (true, false) => check.error(at, message),
            (false, _) if tls.mode == ServerTlsMode::Simple => {
                check.error(at, "CRL is not supported with SIMPLE TLS");
            }
            (false, _) => {}
        }
    }
}

/// The fields that name certificates, and whether they do.
fn uses(tls: &ServerTlsSettings) -> [(&'static str, bool); 6] {
    [
        ("serverCertificate", !tls.server_certificate.is_empty()),
        ("privateKey", !tls.private_key.is_empty()),
        ("caCertificates", !tls.ca_certificates.is_empty()),
        ("tlsCertificates", !tls.tls_certificates.is_empty()),
        ("credentialName", !tls.credential_name.is_empty()),
        ("credentialNames", !tls.credential_names.is_empty()),
    ]
}

/// The workload's own certificate is used, so none may be named.
fn istio_mutual<T>(check: &mut Check<'_, T>, path: &str, tls: &ServerTlsSettings) {
    for (field, used) in uses(tls) {
        if used {
            check
                .error(format!("{path}.{field}"), format!("ISTIO_MUTUAL TLS cannot have associated {field}"));
        }
    }
}

/// A certificate and its key, and for client authentication a CA, all from files.
fn files<T>(check: &mut Check<'_, T>, path: &str, tls: &ServerTlsSettings) {
    let mutual = tls.mode != ServerTlsMode::Simple;
    let what = if mutual { "MUTUAL TLS" } else { "SIMPLE TLS" };
    if mutual && tls.ca_certificates.is_empty() {
        check.refuse(
            path,
            format!("{what} requires a client CA bundle"),
            "set caCertificates, or use credentialName and put the CA into the Secret NAME-cacert",
        );
    }
    let own = (path.to_owned(), &tls.server_certificate, &tls.private_key);
    let pairs: Vec<_> = match tls.tls_certificates.as_slice() {
        [] => vec![own],
        several => several
            .iter()
            .enumerate()
            .map(|(index, pair)| {
                let at = format!("{path}.tlsCertificates[{index}]");
                (at, &pair.server_certificate, &pair.private_key)
            })
            .collect(),
    };
    for (at, certificate, key) in pairs {
        let hint = "name a Secret in credentialName, or files in serverCertificate and privateKey";
        if certificate.is_empty() {
            check.refuse(at.as_str(), format!("{what} requires a server certificate"), hint);
        }
        if key.is_empty() {
            check.refuse(at.as_str(), format!("{what} requires a private key"), hint);
        }
    }
}

fn ciphers<T>(check: &mut Check<'_, T>, path: &str, tls: &ServerTlsSettings) {
    let mut seen = BTreeSet::new();
    for (index, cipher) in tls.cipher_suites.iter().enumerate() {
        let at = format!("{path}.cipherSuites[{index}]");
        if !is_cipher_suite(cipher) {
            check.warn(at, format!("ignoring invalid cipher suites: {cipher:?}"));
        } else if !seen.insert(cipher) {
            check.warn(at, format!("ignoring duplicate cipher suites: {cipher:?}"));
        }
    }
}

/// A known name, `ALL`, or an expression, which begins with an operator (Istio: IsValidCipherSuite).
fn is_cipher_suite(name: &str) -> bool {
    name.is_empty()
        || name == "ALL"
        || !name.starts_with(char::is_alphanumeric)
        || CIPHER_SUITES.contains(&name)
}

fn versions<T>(check: &mut Check<'_, T>, path: &str, tls: &ServerTlsSettings) {
    let at = format!("{path}.minProtocolVersion");
    let old = matches!(tls.min_protocol_version, TlsProtocol::V1_0 | TlsProtocol::V1_1);
    if old && tls.cipher_suites.is_empty() {
        check.warn(
            at.as_str(),
            "TLS version below TLSV1_2 require setting compatible ciphers as by default they no longer include compatible ciphers",
        );
    }
    // Admission lets it pass; no client can ever shake hands with it.
    if tls.max_protocol_version != TlsProtocol::Auto && tls.min_protocol_version > tls.max_protocol_version {
        check.warn(at, "minProtocolVersion is above maxProtocolVersion, so that no handshake succeeds");
    }
}

#[cfg(test)]
mod tests {
    use crate::validate::tests::findings;

    fn tls(tls: &str) -> Vec<String> {
        let head =
            "apiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {name: gw}\nspec:\n  servers:\n";
        let server = "  - port: {number: 443, name: https, protocol: HTTPS}\n    hosts: ['*']\n    tls: ";
        let mut found = findings(&format!("{head}{server}{tls}\n"));
        found.retain(|line| !line.starts_with("IST0101") && !line.starts_with("LIM"));
        found.into_iter().map(|line| line.replace("spec.servers[0].tls", "tls")).collect()
    }

    #[test]
    fn sources_and_modes() {
        for (block, finds) in [
            ("{mode: SIMPLE}", vec!["!IST0106 tls", "!IST0106 tls"]),
            ("{mode: SIMPLE, credentialName: x}", vec![]),
            ("{mode: SIMPLE, credentialNames: [x, y]}", vec![]),
            ("{mode: SIMPLE, credentialNames: [x, y, z]}", vec!["!IST0106 tls.credentialNames"]),
            ("{mode: SIMPLE, serverCertificate: a, privateKey: b}", vec![]),
            ("{mode: SIMPLE, serverCertificate: a}", vec!["!IST0106 tls"]),
            ("{mode: SIMPLE, serverCertificate: a, privateKey: b, credentialName: x}", vec!["!IST0106 tls"]),
            (
                "{mode: SIMPLE, tlsCertificates: [{serverCertificate: a}]}",
                vec!["!IST0106 tls.tlsCertificates[0]"],
            ),
            ("{mode: MUTUAL, serverCertificate: a, privateKey: b}", vec!["!IST0106 tls"]),
            ("{mode: OPTIONAL_MUTUAL, serverCertificate: a, privateKey: b, caCertificates: c}", vec![]),
            ("{mode: MUTUAL, credentialName: x}", vec![]),
            ("{mode: ISTIO_MUTUAL}", vec![]),
            ("{mode: ISTIO_MUTUAL, credentialName: x}", vec!["!IST0106 tls.credentialName"]),
            ("{mode: ISTIO_MUTUAL, caCertificates: x}", vec!["!IST0106 tls.caCertificates"]),
            ("{credentialName: x}", vec!["IST0133 tls"]),
            ("{caCrl: x}", vec!["IST0133 tls"]),
            ("{mode: AUTO_PASSTHROUGH}", vec![]),
            ("{mode: SIMPLE, serverCertificate: a, privateKey: b, caCrl: c}", vec!["!IST0106 tls.caCrl"]),
            ("{mode: MUTUAL, credentialName: x, caCrl: c}", vec!["IST0133 tls.caCrl"]),
            ("{credentialName: x, caCrl: c}", vec!["IST0133 tls", "!IST0106 tls.caCrl"]),
            ("{mode: MUTUAL, serverCertificate: a, privateKey: b, caCertificates: d, caCrl: c}", vec![]),
        ] {
            assert_eq!(tls(block), finds, "{block}");
        }
    }

    #[test]
    fn versions_and_ciphers() {
        let with = |rest: &str| tls(&format!("{{mode: SIMPLE, credentialName: x, {rest}}}"));
        for (rest, finds) in [
            ("cipherSuites: [ECDHE-RSA-AES128-GCM-SHA256, ALL, '-x']", vec![]),
            ("cipherSuites: [FOO]", vec!["IST0133 tls.cipherSuites[0]"]),
            ("cipherSuites: [AES128-SHA, AES128-SHA]", vec!["IST0133 tls.cipherSuites[1]"]),
            ("minProtocolVersion: TLSV1_0", vec!["IST0133 tls.minProtocolVersion"]),
            ("minProtocolVersion: TLSV1_1, cipherSuites: [AES128-SHA]", vec![]),
            (
                "minProtocolVersion: TLSV1_3, maxProtocolVersion: TLSV1_2",
                vec!["IST0133 tls.minProtocolVersion"],
            ),
        ] {
            assert_eq!(with(rest), finds, "{rest}");
        }
    }
}
