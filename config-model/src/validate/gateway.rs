//! What admission demands of a Gateway (Istio: ValidateGateway, and the schema of the resource).

use std::collections::BTreeSet;

use super::{check::Check, names, server_tls};
use crate::{
    diagnostic::Diagnostics,
    istio::{
        Gateway,
        gateway::{Server, ServerTlsSettings},
    },
    meta::Resource,
    scalar::{HostPattern, Protocol},
};

pub(super) fn check(resource: &Resource<Gateway>, out: &mut Diagnostics) {
    let mut check = Check::new(resource, out);
    if !names::is_label(&resource.key.name) {
        check.refuse(
            "metadata.name",
            format!("invalid gateway name: {:?}", resource.key.name),
            "the name of a Gateway must be a DNS label: letters, digits and hyphens, no dots",
        );
    }
    if resource.spec.servers.is_empty() {
        check.error("spec", "gateway must have at least one server");
    }
    let mut port_names = BTreeSet::new();
    for (index, server) in resource.spec.servers.iter().enumerate() {
        let path = format!("spec.servers[{index}]");
        check_server(&mut check, &path, server);
        let name = server.port.name.as_str();
        if !name.is_empty() && !port_names.insert(name) {
            check.error(
                format!("{path}.port.name"),
                format!("port names in servers must be unique: duplicate name {name}"),
            );
        }
    }
}

fn check_server(check: &mut Check<'_, Gateway>, path: &str, server: &Server) {
    if server.hosts.is_empty() {
        check.refuse(
            path,
            "server config must contain at least one host",
            "write hosts: [\"*\"] for any host",
        );
    }
    for (index, host) in server.hosts.iter().enumerate() {
        check_host(check, format!("{path}.hosts[{index}]"), host.host());
    }
    bind(check, path, server);
    if server.port.name.is_empty() {
        check.error(format!("{path}.port"), "port name must be set");
    }
    if server.port.target_port.is_some() {
        check.refuse(
            format!("{path}.port.targetPort"),
            "targetPort has no impact on Gateways",
            "remove it; the Service of the gateway says where a port leads",
        );
    }
    let protocol = Protocol::parse(&server.port.protocol);
    if protocol.is_none() {
        let known = Protocol::ALL.map(Protocol::as_str).join(", ");
        let message = format!("invalid protocol {:?}, supported protocols are {known}", server.port.protocol);
        check.error(format!("{path}.port.protocol"), message);
    }
    match (&server.tls, protocol) {
        (_, None) => {}
        (None, Some(protocol)) if protocol.is_tls() => {
            check.refuse(
                path,
                "server must have TLS settings for HTTPS/TLS protocols",
                "add a tls block with a mode, and a certificate unless the mode is PASSTHROUGH",
            );
        }
        (Some(tls), Some(protocol)) if protocol.is_http() => plaintext(check, &format!("{path}.tls"), tls),
        (Some(_), Some(protocol)) if !protocol.is_tls() => {
            check.error(format!("{path}.tls"), "server cannot have TLS settings for non HTTPS/TLS ports");
        }
        _ => {}
    }
    let Some(tls) = &server.tls else { return };
    let path = format!("{path}.tls");
    if tls.https_redirect && !protocol.is_some_and(Protocol::is_http) {
        check
            .warn(format!("{path}.httpsRedirect"), "tls.httpsRedirect should only be used with http servers");
    }
    server_tls::check(check, &path, tls);
}

/// The host part of a server's host (Istio: validateSidecarOrGatewayHostnamePart).
fn check_host(check: &mut Check<'_, Gateway>, path: String, host: &HostPattern) {
    let text = host.as_str();
    if !host.is_any() && !text.contains('.') {
        check.refuse(
            path,
            format!("short names (non FQDN) are not allowed: {text:?}"),
            "write the full name, e.g. \"name.namespace.svc.cluster.local\"",
        );
    } else if !names::is_wildcard_domain(text) && !names::is_ip(text) {
        check.error(path, format!("domain name {text:?} invalid"));
    } else if names::is_partial_wildcard(host) {
        check.refuse(
            path,
            format!("partial wildcard {text:?} not allowed"),
            "a star stands for whole labels: \"*.suffix\"",
        );
    }
}

/// The port's number and where it listens: a unix socket has no number, everything else has one.
fn bind(check: &mut Check<'_, Gateway>, path: &str, server: &Server) {
    let number = server.port.number;
    match server.bind.strip_prefix("unix://") {
        Some(socket) => {
            if !names::is_unix_address(socket) {
                let message = format!("{socket:?} is not an absolute path to a file");
                check.error(format!("{path}.bind"), message);
            }
            if number.is_some() {
                check.error(format!("{path}.port.number"), "port number must be 0 for unix domain socket");
            }
        }
        None => {
            if number.is_none() {
                check.error(format!("{path}.port"), "port number must be in the range 1..65535");
            }
            if !server.bind.is_empty() && !names::is_ip(&server.bind) {
                check.error(format!("{path}.bind"), format!("{:?} is not a valid IP", server.bind));
            }
        }
    }
}

/// A plaintext HTTP server may only redirect.
fn plaintext(check: &mut Check<'_, Gateway>, path: &str, tls: &ServerTlsSettings) {
    let files = [&tls.ca_certificates, &tls.private_key, &tls.server_certificate];
    if tls.mode.terminates() || files.iter().any(|file| !file.is_empty()) {
        check.refuse(
            path,
            "server cannot have TLS settings for plain text HTTP ports",
            "only httpsRedirect is allowed here; use protocol HTTPS to end TLS",
        );
    }
}

#[cfg(test)]
mod tests {
    use crate::validate::tests::findings;

    const HEAD: &str = "apiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {name: gw}\nspec:\n";
    const SERVER: &str = "  servers:\n  - port: {number: 80, name: http, protocol: HTTP}\n    hosts: ['*']\n";

    #[test]
    fn servers() {
        let good = format!("{HEAD}{SERVER}");
        assert_eq!(findings(&good), Vec::<String>::new());
        for (from, to, finds) in [
            ("hosts: ['*']", "hosts: [short]", "!IST0106 spec.servers[0].hosts[0]"),
            ("hosts: ['*']", "hosts: ['*-x.com']", "!IST0106 spec.servers[0].hosts[0]"),
            ("hosts: ['*']", "hosts: ['a/*x.com']", "!IST0106 spec.servers[0].hosts[0]"),
            ("hosts: ['*']", "hosts: []", "!IST0106 spec.servers[0]"),
            ("protocol: HTTP", "protocol: HTTP3", "!IST0106 spec.servers[0].port.protocol"),
            ("protocol: HTTP", "protocol: HTTPS", "!IST0106 spec.servers[0]"),
            ("number: 80", "number: 0", "!IST0106 spec.servers[0].port"),
            ("number: 80", "number: 80, targetPort: 1", "!IST0106 spec.servers[0].port.targetPort"),
            ("name: http", "name: ''", "!IST0106 spec.servers[0].port"),
            ("hosts: ['*']", "hosts: ['*']\n    bind: nowhere", "!IST0106 spec.servers[0].bind"),
            ("hosts: ['*']", "hosts: ['*']\n    bind: unix:///s", "!IST0106 spec.servers[0].port.number"),
            (
                "hosts: ['*']",
                "hosts: ['*']\n    tls: {mode: SIMPLE, credentialName: x}",
                "!IST0106 spec.servers[0].tls",
            ),
            (
                "protocol: HTTP",
                "protocol: TCP}\n    tls: {httpsRedirect: false",
                "!IST0106 spec.servers[0].tls",
            ),
            ("name: gw", "name: gw.x", "!IST0106 metadata.name"),
            (
                "name: gw",
                "name: gw, annotations: {istio.io/dry-run: 'true'}",
                "!IST0106 metadata.annotations.istio.io/dry-run",
            ),
            // What protects is not served without it; what does not is; a name that means nothing is a slip.
            (
                "name: gw",
                "name: gw, annotations: {limen.dev/rate-limit: '{requests: 5}'}",
                "!LIM0024 metadata.annotations.limen.dev/rate-limit",
            ),
            (
                "name: gw",
                "name: gw, annotations: {limen.dev/rate_limits: '{requests: 5, per: second}'}",
                "!LIM0024 metadata.annotations.limen.dev/rate_limits",
            ),
            (
                "name: gw",
                "name: gw, annotations: {limen.dev/compression: 'yes'}",
                "LIM0024 metadata.annotations.limen.dev/compression",
            ),
            (
                "name: gw",
                "name: gw, annotations: {limen.dev/owner: shop}",
                "LIM0024 metadata.annotations.limen.dev/owner",
            ),
        ] {
            assert_eq!(findings(&good.replace(from, to)), [finds], "{to}");
        }
        for (from, to) in [
            ("hosts: ['*']", "hosts: [10.0.0.1, './a.b', 'x/*']"),
            ("hosts: ['*']", "hosts: ['*']\n    tls: {httpsRedirect: true}"),
            ("hosts: ['*']", "hosts: ['*']\n    bind: '::1'"),
            (
                "number: 80, name: http, protocol: HTTP}",
                "name: http, protocol: HTTP}\n    bind: 'unix://@abstract'",
            ),
            ("protocol: HTTP", "protocol: grpc-web"),
            ("name: gw", "name: gw, annotations: {limen.dev/compression: 'on', other/owner: shop}"),
        ] {
            assert_eq!(findings(&good.replace(from, to)), Vec::<String>::new(), "{to}");
        }
        assert_eq!(findings(&format!("{HEAD}  servers: []\n")), ["!IST0106 spec"]);
    }

    #[test]
    fn port_names_are_unique() {
        let two = "  - port: {number: 81, name: http, protocol: HTTP}\n    hosts: ['*']\n";
        assert_eq!(findings(&format!("{HEAD}{SERVER}{two}")), ["!IST0106 spec.servers[1].port.name"]);
    }

    #[test]
    fn redirects_are_for_plaintext() {
        let text = format!("{HEAD}{SERVER}    tls: {{httpsRedirect: true, mode: PASSTHROUGH}}\n");
        let text = text.replace("protocol: HTTP", "protocol: TLS");
        assert_eq!(findings(&text), ["IST0133 spec.servers[0].tls.httpsRedirect"]);
    }
}
