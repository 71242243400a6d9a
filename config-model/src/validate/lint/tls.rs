//! TLS that protects less than it seems to: old versions, ciphers without forward secrecy or authentication, no verification.

use crate::{
    diagnostic::{Code, Diagnostic, Diagnostics},
    istio::{
        DestinationRule, Gateway,
        destination_rule::{ClientTlsMode, ClientTlsSettings},
        gateway::{ServerTlsMode, ServerTlsSettings, TlsProtocol},
    },
    meta::Resource,
};

pub(super) fn check_gateway(resource: &Resource<Gateway>, out: &mut Diagnostics) {
    for (index, server) in resource.spec.servers.iter().enumerate() {
        let Some(tls) = server.tls.as_ref().filter(|tls| tls.mode.terminates()) else { continue };
        let path = format!("spec.servers[{index}].tls");
        let findings = if tls.mode == ServerTlsMode::IstioMutual {
            vec![bounds(tls, &path)]
        } else {
            vec![version(tls, &path), ciphers(tls, &path), clients(tls, &path)]
        };
        for finding in findings.into_iter().flatten() {
            out.push(finding.about(&resource.key, &resource.origin));
        }
    }
}

/// Istio: listener.go `BuildListenerTLSContext`: bounds are for servers with certificates of the user's own.
fn bounds(tls: &ServerTlsSettings, path: &str) -> Option<Diagnostic> {
    let written = [
        ("minProtocolVersion", tls.min_protocol_version != TlsProtocol::Auto),
        ("maxProtocolVersion", tls.max_protocol_version != TlsProtocol::Auto),
        ("cipherSuites", !tls.cipher_suites.is_empty()),
        ("ecdhCurves", !tls.ecdh_curves.is_empty()),
    ];
    let (field, _) = written.into_iter().find(|(_, written)| *written)?;
    let message = format!("{field} has no effect with ISTIO_MUTUAL: the mesh's own bounds hold");
    Some(Diagnostic::new(Code::NO_EFFECT, message).at(format!("{path}.{field}")).hint("remove it"))
}

fn version(tls: &ServerTlsSettings, path: &str) -> Option<Diagnostic> {
    let name = match tls.min_protocol_version {
        TlsProtocol::V1_0 => "TLS 1.0",
        TlsProtocol::V1_1 => "TLS 1.1",
        TlsProtocol::Auto | TlsProtocol::V1_2 | TlsProtocol::V1_3 => return None,
    };
    let message = format!("{name} is allowed, which RFC 8996 forbids");
    Some(
        weak(message, format!("{path}.minProtocolVersion"))
            .hint("leave minProtocolVersion out: it is TLS 1.2 then"),
    )
}

/// Static RSA has no forward secrecy; 3DES has blocks of 64 bits.
fn ciphers(tls: &ServerTlsSettings, path: &str) -> Option<Diagnostic> {
    let weak_cipher = |name: &&String| {
        matches!(
            name.as_str(),
            "AES128-GCM-SHA256" | "AES256-GCM-SHA384" | "AES128-SHA" | "AES256-SHA" | "DES-CBC3-SHA" | "ALL"
        )
    };
    let index = tls.cipher_suites.iter().position(|name| weak_cipher(&name))?;
    let name = tls.cipher_suites.get(index)?;
    let message = match name.as_str() {
        "DES-CBC3-SHA" => format!("cipher {name} encrypts blocks of 64 bits (RFC 9325 §4.2.1)"),
        "ALL" => "cipher list ALL takes ciphers without forward secrecy too (RFC 9325 §4.1)".to_owned(),
        name => format!("cipher {name} has no forward secrecy (RFC 9325 §4.1)"),
    };
    Some(
        weak(message, format!("{path}.cipherSuites[{index}]"))
            .hint("leave it out, or name those that begin with ECDHE"),
    )
}

fn clients(tls: &ServerTlsSettings, path: &str) -> Option<Diagnostic> {
    let asks = matches!(tls.mode, ServerTlsMode::Mutual | ServerTlsMode::OptionalMutual);
    (asks && tls.insecure_skip_verify).then(|| {
        let message = "client certificates of any issuer are accepted, so that they prove nothing";
        weak(message.to_owned(), format!("{path}.insecureSkipVerify")).hint("remove insecureSkipVerify")
    })
}

pub(super) fn check_rule(resource: &Resource<DestinationRule>, out: &mut Diagnostics) {
    let spec = &resource.spec;
    let subsets = spec.subsets.iter().enumerate();
    let subsets = subsets
        .map(|(index, subset)| (format!("spec.subsets[{index}].trafficPolicy"), &subset.traffic_policy));
    let policies = std::iter::once(("spec.trafficPolicy".to_owned(), &spec.traffic_policy)).chain(subsets);
    for (path, policy) in policies.filter_map(|(path, policy)| Some((path, policy.as_ref()?))) {
        let ports = policy.port_level_settings.iter().enumerate();
        let ports = ports.map(|(index, port)| (format!("{path}.portLevelSettings[{index}].tls"), &port.tls));
        for (path, tls) in std::iter::once((format!("{path}.tls"), &policy.tls)).chain(ports) {
            if let Some(finding) = tls.as_ref().and_then(|tls| unverified(tls, &path)) {
                out.push(finding.about(&resource.key, &resource.origin));
            }
        }
    }
}

fn unverified(tls: &ClientTlsSettings, path: &str) -> Option<Diagnostic> {
    let encrypts = matches!(tls.mode, ClientTlsMode::Simple | ClientTlsMode::Mutual);
    (encrypts && tls.insecure_skip_verify == Some(true)).then(|| {
        let message =
            "the endpoint's certificate is not verified: anybody on the way may answer in its place";
        weak(message.to_owned(), format!("{path}.insecureSkipVerify"))
            .hint("name the CA in caCertificates or credentialName instead")
    })
}

fn weak(message: String, path: String) -> Diagnostic {
    Diagnostic::new(Code::WEAK_TLS, message).at(path)
}

#[cfg(test)]
mod tests {
    use crate::validate::tests::{DR, run};

    fn own(text: &str) -> Vec<String> {
        let (_, found) = run(text);
        let own = found.into_iter().filter(|d| d.code.as_str() == "LIM0021");
        own.map(|d| d.path.rsplit("tls.").next().unwrap_or_default().to_owned()).collect()
    }

    #[test]
    fn servers() {
        let gateway = |rest: &str| {
            own(&format!(
                "apiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {{name: g}}\nspec: {{servers: [{{port: {{number: 443, name: a, protocol: HTTPS}}, hosts: ['*'], tls: {{serverCertificate: a, privateKey: b, caCertificates: c, {rest}}}}}]}}\n"
            ))
        };
        for (rest, finds) in [
            ("mode: SIMPLE", vec![]),
            (
                "mode: SIMPLE, minProtocolVersion: TLSV1_2, cipherSuites: [ECDHE-RSA-AES128-GCM-SHA256]",
                vec![],
            ),
            ("mode: SIMPLE, minProtocolVersion: TLSV1_0", vec!["minProtocolVersion"]),
            (
                "mode: SIMPLE, cipherSuites: [ECDHE-RSA-AES128-GCM-SHA256, DES-CBC3-SHA]",
                vec!["cipherSuites[1]"],
            ),
            ("mode: MUTUAL, insecureSkipVerify: true", vec!["insecureSkipVerify"]),
        ] {
            assert_eq!(gateway(rest), finds, "{rest}");
        }
    }

    #[test]
    fn endpoints() {
        let rule = |tls: &str| own(&format!("{DR}  host: a\n  trafficPolicy: {{tls: {tls}}}\n"));
        assert_eq!(rule("{mode: SIMPLE, insecureSkipVerify: true}"), ["insecureSkipVerify"]);
        assert_eq!(rule("{mode: SIMPLE, insecureSkipVerify: false}"), Vec::<String>::new());
        assert_eq!(rule("{mode: DISABLE, insecureSkipVerify: true}"), Vec::<String>::new());
    }
}
