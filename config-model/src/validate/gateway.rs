//! What admission demands of a Gateway (Istio: ValidateGateway, and the schema of the resource).

use std::collections::BTreeSet;

use super::{check::Check, names};
use crate::{
    diagnostic::Diagnostics,
    istio::{
        Gateway,
        gateway::{Server, ServerTlsMode, ServerTlsSettings, TlsProtocol},
    },
    meta::Resource,
    scalar::Protocol,
};

pub(super) fn check(resource: &Resource<Gateway>, out: &mut Diagnostics) {
    let mut check = Check::new(resource, out);
    if !names::is_label(&resource.key.name) {
        check.error("metadata.name", "the name of a Gateway must be a DNS label, without dots");
    }
    if resource.spec.servers.is_empty() {
        check.error("spec", "a Gateway needs at least one server");
    }
    if let Some(selector) = &resource.spec.selector {
        check.labels("spec.selector", selector);
    }
    let mut port_names = BTreeSet::new();
    for (index, server) in resource.spec.servers.iter().enumerate() {
        let path = format!("spec.servers[{index}]");
        check_server(&mut check, &path, server);
        if !server.port.name.is_empty() && !port_names.insert(server.port.name.as_str()) {
            let message =
                format!("port name {:?} is used by another server of this Gateway", server.port.name);
            check.error(format!("{path}.port.name"), message);
        }
    }
}

fn check_server(check: &mut Check<'_, Gateway>, path: &str, server: &Server) {
    if server.hosts.is_empty() {
        check.error(path, "a server needs at least one host");
    }
    for (index, host) in server.hosts.iter().enumerate() {
        let pattern = host.host();
        let qualified = pattern.is_qualified() && names::is_wildcard_domain(pattern, false);
        if !qualified && !names::is_ip(pattern.as_str()) {
            let message = format!(
                "{pattern:?} is not a fully qualified name, an IP address, \"*.suffix\" or \"*\"",
                pattern = pattern.as_str()
            );
            check.error(format!("{path}.hosts[{index}]"), message);
        }
    }
    let unix = server.bind.starts_with("unix://");
    if !server.bind.is_empty() && !unix && !names::is_ip(&server.bind) {
        check.error(
            format!("{path}.bind"),
            format!("{:?} is neither an IP address nor unix:///path", server.bind),
        );
    }
    if unix && !server.bind.starts_with("unix:///") && !server.bind.starts_with("unix://@") {
        check.error(format!("{path}.bind"), "a unix socket needs an absolute path");
    }
    match (server.port.number, unix) {
        (None, false) => check.error(format!("{path}.port"), "port.number must be from 1 to 65535"),
        (Some(_), true) => {
            check.error(format!("{path}.port.number"), "port.number must be 0 with a unix socket")
        }
        _ => {}
    }
    if server.port.name.is_empty() {
        check.error(format!("{path}.port"), "port.name is required");
    }
    if server.port.target_port.is_some() {
        check.error(format!("{path}.port.targetPort"), "targetPort is not allowed in a Gateway");
    }
    let Some(protocol) = Protocol::parse(&server.port.protocol) else {
        let known = Protocol::ALL.map(Protocol::as_str).join(", ");
        let message = format!("{:?} is not a protocol; known are {known}", server.port.protocol);
        check.error(format!("{path}.port.protocol"), message);
        return;
    };
    match (&server.tls, protocol) {
        (None, protocol) if protocol.is_tls() => {
            check.error(path, format!("a server with protocol {protocol} needs a tls block"));
        }
        (Some(_), protocol) if protocol.is_tcp() => {
            check.error(
                format!("{path}.tls"),
                format!("a server with protocol {protocol} cannot have a tls block"),
            );
        }
        (Some(tls), protocol) if protocol.is_http() => plaintext_tls(check, &format!("{path}.tls"), tls),
        _ => {}
    }
    if let Some(tls) = &server.tls {
        if tls.https_redirect && !protocol.is_http() {
            check.warn(
                format!("{path}.tls.httpsRedirect"),
                "httpsRedirect has an effect on plaintext HTTP servers only",
            );
        }
        if protocol.is_tls() {
            check_tls(check, &format!("{path}.tls"), tls);
        }
    }
}

/// A plaintext HTTP server may only redirect.
fn plaintext_tls(check: &mut Check<'_, Gateway>, path: &str, tls: &ServerTlsSettings) {
    let certificates = !tls.server_certificate.is_empty()
        || !tls.private_key.is_empty()
        || !tls.credential_name.is_empty()
        || !tls.credential_names.is_empty()
        || !tls.tls_certificates.is_empty()
        || !tls.ca_certificates.is_empty();
    if tls.mode != ServerTlsMode::Passthrough || certificates {
        check.error(
            path,
            "a plaintext HTTP server may only use tls.httpsRedirect; use protocol HTTPS to end TLS here",
        );
    }
}

fn check_tls(check: &mut Check<'_, Gateway>, path: &str, tls: &ServerTlsSettings) {
    let files = !tls.server_certificate.is_empty() || !tls.private_key.is_empty();
    let sources = [
        files,
        !tls.credential_name.is_empty(),
        !tls.credential_names.is_empty(),
        !tls.tls_certificates.is_empty(),
    ];
    let secret = !tls.credential_name.is_empty() || !tls.credential_names.is_empty();
    let any_source = sources.contains(&true);
    if sources.iter().filter(|used| **used).count() > 1 {
        check.error(
            path,
            "only one of credentialName, credentialNames, tlsCertificates and serverCertificate may be used",
        );
    }
    for (field, count) in
        [("credentialNames", tls.credential_names.len()), ("tlsCertificates", tls.tls_certificates.len())]
    {
        if count > 2 {
            check.error(format!("{path}.{field}"), "at most two certificates, of different key types");
        }
    }
    match tls.mode {
        ServerTlsMode::IstioMutual => {
            if any_source || !tls.ca_certificates.is_empty() {
                check.error(
                    path,
                    "ISTIO_MUTUAL uses the workload's own certificate; no certificate may be named",
                );
            }
        }
        ServerTlsMode::Passthrough | ServerTlsMode::AutoPassthrough => {
            if any_source || !tls.ca_certificates.is_empty() {
                check.warn(path, "with PASSTHROUGH (the default mode) TLS is not ended here, so the certificate has no effect");
            }
        }
        ServerTlsMode::Simple | ServerTlsMode::Mutual | ServerTlsMode::OptionalMutual => {
            certificates(check, path, tls, secret);
        }
    }
    if !tls.ca_crl.is_empty() && (secret || tls.mode == ServerTlsMode::Simple) {
        check
            .error(format!("{path}.caCrl"), "caCrl is for file certificates with client authentication only");
    }
    ciphers(check, path, tls);
}

fn certificates(check: &mut Check<'_, Gateway>, path: &str, tls: &ServerTlsSettings, secret: bool) {
    let mode = tls.mode.as_str();
    if !secret && tls.tls_certificates.is_empty() {
        if tls.server_certificate.is_empty() {
            check.error(path, format!("{mode} needs credentialName or serverCertificate"));
        }
        if tls.private_key.is_empty() {
            check.error(path, format!("{mode} needs credentialName or privateKey"));
        }
    }
    for (index, certificate) in tls.tls_certificates.iter().enumerate() {
        if certificate.server_certificate.is_empty() || certificate.private_key.is_empty() {
            check.error(
                format!("{path}.tlsCertificates[{index}]"),
                "serverCertificate and privateKey are both required",
            );
        }
    }
    for (index, name) in tls.credential_names.iter().enumerate() {
        if name.is_empty() {
            check.error(format!("{path}.credentialNames[{index}]"), "the name of a Secret cannot be empty");
        }
    }
    let needs_ca = matches!(tls.mode, ServerTlsMode::Mutual | ServerTlsMode::OptionalMutual);
    if needs_ca && !secret && tls.ca_certificates.is_empty() && tls.ca_cert_credential_name.is_empty() {
        check.error(path, format!("{mode} needs caCertificates to check client certificates with"));
    }
}

/// The names that Istio lets through to Envoy (pkg/config/security).
const CIPHERS: [&str; 15] = [
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

fn ciphers(check: &mut Check<'_, Gateway>, path: &str, tls: &ServerTlsSettings) {
    let mut seen = BTreeSet::new();
    for (index, cipher) in tls.cipher_suites.iter().enumerate() {
        let at = format!("{path}.cipherSuites[{index}]");
        let operator = cipher.chars().next().is_some_and(|c| !c.is_ascii_alphanumeric());
        if !operator && cipher != "ALL" && !CIPHERS.contains(&cipher.as_str()) {
            check.warn(at, format!("cipher {cipher:?} is unknown and left out"));
        } else if !seen.insert(cipher) {
            check.warn(at, format!("cipher {cipher:?} is listed twice"));
        }
    }
    let old = |version| matches!(version, TlsProtocol::V1_0 | TlsProtocol::V1_1);
    if old(tls.min_protocol_version) && tls.cipher_suites.is_empty() {
        check.warn(
            format!("{path}.minProtocolVersion"),
            "versions below TLS 1.2 need cipherSuites that they can use",
        );
    }
    if tls.max_protocol_version != TlsProtocol::Auto && tls.min_protocol_version > tls.max_protocol_version {
        check.error(format!("{path}.minProtocolVersion"), "the lowest TLS version is above the highest");
    }
}
