//! What admission demands of a Sidecar (Istio: ValidateSidecar). Its form alone is checked: what it names may come later.

use std::collections::{BTreeMap, BTreeSet};

use super::{check::Check, destination_rule::connection_pool, names, server_tls};
use crate::{
    diagnostic::Diagnostics,
    istio::{
        Sidecar,
        gateway::{ServerTlsMode, ServerTlsSettings},
        sidecar::{
            CaptureMode, IstioEgressListener, IstioIngressListener, OutboundTrafficMode,
            OutboundTrafficPolicy, SidecarPort,
        },
    },
    meta::Resource,
    scalar::{HostPattern, Protocol},
};

type Checks<'a, 'b> = &'a mut Check<'b, Sidecar>;

pub(super) fn check(resource: &Resource<Sidecar>, out: &mut Diagnostics) {
    let mut check = Check::new(resource, out);
    let spec = &resource.spec;
    if let Some(selector) = &spec.workload_selector {
        check.selector("spec.workloadSelector.labels", &selector.labels, 256);
        if selector.labels.is_empty() {
            check.warn(
                "spec.workloadSelector",
                "sidecar: workload selector specified without labels, will be applied to all services in namespace",
            );
        }
    }
    if spec.egress.is_empty()
        && spec.ingress.is_empty()
        && spec.outbound_traffic_policy.is_none()
        && spec.inbound_connection_pool.is_none()
    {
        check.error("spec", "sidecar: empty configuration provided");
    }
    let mut ports = BTreeSet::new();
    for (index, listener) in spec.ingress.iter().enumerate() {
        let path = format!("spec.ingress[{index}]");
        ingress(&mut check, &path, listener);
        if let Some(port) = &listener.port
            && !ports.insert(port.number)
        {
            check.error(format!("{path}.port"), "sidecar: ports on IP bound listeners must be unique");
        }
    }
    if let Some(pool) = &spec.inbound_connection_pool {
        connection_pool::check(&mut check, "spec.inboundConnectionPool", pool);
    }
    egress(&mut check, &spec.egress);
    if let Some(policy) = &spec.outbound_traffic_policy {
        outbound(&mut check, policy);
    }
}

fn ingress(check: Checks<'_, '_>, path: &str, listener: &IstioIngressListener) {
    let Some(port) = &listener.port else {
        check.error(path, "sidecar: port is required for ingress listeners");
        return;
    };
    let at = format!("{path}.port");
    port_form(check, &at, port);
    if port.number.is_none() {
        check.error(at.as_str(), "port number 0 must be in the range 1..65535");
    }
    if !listener.bind.is_empty() && !names::is_ip(&listener.bind) {
        check.error(format!("{path}.bind"), format!("{} is not a valid IP", listener.bind));
    }
    if !listener.default_endpoint.is_empty() {
        default_endpoint(check, &format!("{path}.defaultEndpoint"), &listener.default_endpoint);
    }
    let protocol = Protocol::parse(&port.protocol);
    if let Some(tls) = &listener.tls {
        ingress_tls(check, &format!("{path}.tls"), tls, protocol);
    }
    let Some(pool) = &listener.connection_pool else { return };
    connection_pool::check(check, &format!("{path}.connectionPool"), pool);
    if pool.http.is_some() && !protocol.is_some_and(Protocol::is_http) {
        check.warn(
            format!("{path}.connectionPool.http"),
            format!(
                "sidecar: HTTP connection pool settings are configured for a port but its protocol is not HTTP ({}); \
                 only TCP settings will apply",
                port.protocol
            ),
        );
    }
}

/// Name and protocol of a port, and that it names no target.
fn port_form(check: Checks<'_, '_>, path: &str, port: &SidecarPort) {
    if port.target_port.is_some() {
        check.error(format!("{path}.targetPort"), "targetPort has no impact on Sidecars");
    }
    if !port.name.is_empty() && !names::is_label(&port.name) {
        check.error(format!("{path}.name"), format!("invalid port name: {}", port.name));
    }
    if !port.protocol.is_empty() && Protocol::parse(&port.protocol).is_none() {
        check.error(format!("{path}.protocol"), format!("unsupported protocol: {}", port.protocol));
    }
}

fn default_endpoint(check: Checks<'_, '_>, path: &str, endpoint: &str) {
    if let Some(socket) = endpoint.strip_prefix("unix://") {
        if !names::is_unix_address(socket) {
            check.error(path, format!("{socket} is not an absolute path to a file"));
        }
        return;
    }
    let Some((host, port)) = endpoint.rsplit_once(':') else {
        check.error(path, format!("address {endpoint}: missing port in address"));
        return;
    };
    if !matches!(host, "" | "127.0.0.1" | "0.0.0.0" | "[::1]" | "[::]") {
        check.error(
            path,
            "sidecar: defaultEndpoint must be of form 127.0.0.1:<port>,0.0.0.0:<port>,[::1]:port,[::]:port,unix://filepath or unset",
        );
    }
    match port.parse::<i64>() {
        Ok(1..=65535) => {}
        Ok(port) => check.error(path, format!("port number {port} must be in the range 1..65535")),
        Err(_) => {
            check.error(path, format!("sidecar: defaultEndpoint port ({port}) is not a number"));
        }
    }
}

fn ingress_tls(check: Checks<'_, '_>, path: &str, tls: &ServerTlsSettings, protocol: Option<Protocol>) {
    for (used, message) in [
        (!tls.subject_alt_names.is_empty(), "sidecar: subjectAltNames is not supported in ingress tls"),
        (tls.https_redirect, "sidecar: httpsRedirect is not supported"),
        (!tls.credential_name.is_empty(), "sidecar: credentialName is not currently supported"),
        (!tls.credential_names.is_empty(), "sidecar: credentialNames is not currently supported"),
        (!tls.tls_certificates.is_empty(), "sidecar: tls_certificates is not currently supported"),
        (!protocol.is_some_and(Protocol::is_tls), "server cannot have TLS settings for non HTTPS/TLS ports"),
    ] {
        if used {
            check.error(path, message);
        }
    }
    if matches!(tls.mode, ServerTlsMode::IstioMutual | ServerTlsMode::AutoPassthrough) {
        let mode = tls.mode.as_str();
        check.error(
            format!("{path}.mode"),
            format!("configuration is invalid: cannot set mode to {mode} in sidecar ingress tls"),
        );
    }
    server_tls::check(check, path, tls);
}

fn egress(check: Checks<'_, '_>, listeners: &[IstioEgressListener]) {
    let last = listeners.len().saturating_sub(1);
    let (mut ports, mut sockets) = (BTreeSet::new(), BTreeSet::new());
    for (index, listener) in listeners.iter().enumerate() {
        let path = format!("spec.egress[{index}]");
        match &listener.port {
            None if index != last => check.error(
                path.as_str(),
                "sidecar: the egress listener with empty port should be the last listener in the list",
            ),
            None => {}
            Some(port) => {
                egress_port(check, &path, port, listener);
                let (unique, message) = match port.number {
                    None => (
                        sockets.insert(&listener.bind),
                        "sidecar: unix domain socket values for listeners must be unique",
                    ),
                    Some(number) => {
                        (ports.insert(number), "sidecar: ports on IP bound listeners must be unique")
                    }
                };
                if !unique {
                    check.error(format!("{path}.port"), message);
                }
            }
        }
        imports(check, &path, &listener.hosts);
    }
}

fn egress_port(check: Checks<'_, '_>, path: &str, port: &SidecarPort, listener: &IstioEgressListener) {
    port_form(check, &format!("{path}.port"), port);
    let bind = format!("{path}.bind");
    match (port.number, listener.bind.strip_prefix("unix://")) {
        (None, None) => {
            check.error(path, "sidecar: ports with 0 value must have a unix domain socket bind address")
        }
        (None, Some(socket)) if !names::is_unix_address(socket) => {
            check.error(bind, format!("{socket} is not an absolute path to a file"));
        }
        (Some(_), _) if !listener.bind.is_empty() && !names::is_ip(&listener.bind) => {
            check.error(bind, format!("{} is not a valid IP", listener.bind));
        }
        _ => {}
    }
    if port.number.is_none() && listener.capture_mode == CaptureMode::Iptables {
        check.error(
            format!("{path}.captureMode"),
            "sidecar: captureMode must be DEFAULT/NONE for unix domain socket listeners",
        );
    }
}

/// What a listener imports: `namespace/host` each, none covered by another.
fn imports(check: Checks<'_, '_>, path: &str, hosts: &[String]) {
    if hosts.is_empty() {
        check.error(path, "sidecar: egress listener must contain at least one host");
    }
    let own = check.resource.key.namespace.clone();
    let mut by_namespace: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for (index, import) in hosts.iter().enumerate() {
        let path = format!("{path}.hosts[{index}]");
        let Some((namespace, host)) = import.split_once('/') else {
            check.error(path, format!("host must be of form namespace/dnsName, not {import:?}"));
            continue;
        };
        if let Some(message) = import_problem(namespace, host) {
            check.error(path.as_str(), message);
        }
        if namespace.starts_with('~') {
            continue;
        }
        let of_namespace = by_namespace.entry(if namespace == "." { &own } else { namespace }).or_default();
        let repeated = match host {
            "*" => !of_namespace.is_empty(),
            host => of_namespace.contains(host) || of_namespace.contains("*"),
        };
        if repeated {
            check.warn(path, format!("duplicated egress host: {import}"));
        }
        of_namespace.insert(host);
    }
    let all = by_namespace.get("*").is_some_and(|hosts| hosts.contains("*"));
    if all && by_namespace.len() != 1 {
        check.warn(format!("{path}.hosts"), "`*/*` host select all resources, no other hosts can be added");
    }
}

/// Istio: ValidateNamespaceSlashWildcardHostname. The namespace may be `*`, `.`, or excluded with `~`.
fn import_problem(namespace: &str, host: &str) -> Option<String> {
    let named = namespace.strip_prefix('~').unwrap_or(namespace);
    if namespace.is_empty() || host.is_empty() {
        return Some("config namespace and dnsName in host entry cannot be empty".to_owned());
    }
    if !matches!(named, "" | "*" | ".") && !names::is_label(named) {
        return Some(format!("invalid namespace value {namespace:?} in sidecar"));
    }
    if host != "*" && !host.contains('.') {
        return Some(format!("short names (non FQDN) are not allowed: {host:?}"));
    }
    if !names::is_wildcard_domain(host) {
        return Some(format!("domain name {host:?} invalid"));
    }
    let partial = host.parse::<HostPattern>().is_ok_and(|host| names::is_partial_wildcard(&host));
    partial.then(|| format!("partial wildcard {host:?} not allowed"))
}

fn outbound(check: Checks<'_, '_>, policy: &OutboundTrafficPolicy) {
    let path = "spec.outboundTrafficPolicy";
    if policy.mode == OutboundTrafficMode::AllowAnyDynamicDns {
        let message =
            "sidecar: ALLOW_ANY_DYNAMIC_DNS mode is only supported in MeshConfig, not in Sidecar resource";
        check.error(format!("{path}.mode"), message);
        return;
    }
    let Some(proxy) = &policy.egress_proxy else { return };
    let path = format!("{path}.egressProxy");
    check.deprecated(path.as_str(), "OutboundTrafficPolicy.EgressProxy ignored");
    if policy.mode != OutboundTrafficMode::AllowAny {
        check.error(
            path.as_str(),
            "sidecar: egress_proxy must be set only with ALLOW_ANY outbound_traffic_policy mode",
        );
        return;
    }
    if !names::is_dns_name(proxy.host.as_str()) {
        check.error(format!("{path}.host"), format!("domain name {:?} invalid", proxy.host.as_str()));
    }
    if proxy.port.is_none() {
        check.error(path.as_str(), "sidecar: egress_proxy port must be non-nil");
    } else if proxy.port_number().is_none() {
        check.error(format!("{path}.port"), "port number 0 must be in the range 1..65535");
    }
    if !proxy.subset.is_empty() && !names::is_label(&proxy.subset) {
        check.error(format!("{path}.subset"), format!("subset name is invalid: {}", proxy.subset));
    }
}

#[cfg(test)]
mod tests {
    use crate::validate::tests::findings;

    fn sidecar(spec: &str) -> Vec<String> {
        let head = "apiVersion: networking.istio.io/v1\nkind: Sidecar\nmetadata: {name: a}\nspec: ";
        let mut found = findings(&format!("{head}{spec}\n"));
        found.retain(|line| !line.starts_with("LIM"));
        found
    }

    #[test]
    fn egress() {
        let all = "{hosts: ['*/*']}";
        for (listeners, finds) in [
            (all.to_owned(), vec![]),
            ("{hosts: [./a.com, ns/*.b.com, '~ns/c.com', '~/*']}".into(), vec![]),
            ("{hosts: []}".into(), vec!["!IST0106 spec.egress[0]"]),
            ("{hosts: [a.com]}".into(), vec!["!IST0106 spec.egress[0].hosts[0]"]),
            ("{hosts: [ns/short]}".into(), vec!["!IST0106 spec.egress[0].hosts[0]"]),
            ("{hosts: [a_b/a.com]}".into(), vec!["!IST0106 spec.egress[0].hosts[0]"]),
            ("{hosts: ['ns/*-a.com']}".into(), vec!["!IST0106 spec.egress[0].hosts[0]"]),
            ("{hosts: [ns/a.com, ns/a.com]}".into(), vec!["IST0133 spec.egress[0].hosts[1]"]),
            ("{hosts: [ns/*, ns/a.com]}".into(), vec!["IST0133 spec.egress[0].hosts[1]"]),
            ("{hosts: [./a.com, default/a.com]}".into(), vec!["IST0133 spec.egress[0].hosts[1]"]),
            ("{hosts: ['*/*', ns/a.com]}".into(), vec!["IST0133 spec.egress[0].hosts"]),
            (format!("{all}, {all}"), vec!["!IST0106 spec.egress[0]"]),
            (format!("{{port: {{number: 80, protocol: HTTP}}, hosts: [ns/a.com]}}, {all}"), vec![]),
            (
                "{port: {number: 80}, hosts: ['*/*']}, {port: {number: 80}, hosts: ['*/*']}".into(),
                vec!["!IST0106 spec.egress[1].port"],
            ),
            ("{port: {protocol: HTTP}, hosts: ['*/*']}".into(), vec!["!IST0106 spec.egress[0]"]),
            ("{port: {protocol: HTTP}, bind: 'unix:///a', hosts: ['*/*']}".into(), vec![]),
            (
                "{port: {protocol: HTTP}, bind: 'unix:///a', captureMode: IPTABLES, hosts: ['*/*']}".into(),
                vec!["!IST0106 spec.egress[0].captureMode"],
            ),
            (
                "{port: {number: 80}, bind: nowhere, hosts: ['*/*']}".into(),
                vec!["!IST0106 spec.egress[0].bind"],
            ),
            (
                "{port: {number: 80, protocol: X}, hosts: ['*/*']}".into(),
                vec!["!IST0106 spec.egress[0].port.protocol"],
            ),
        ] {
            assert_eq!(sidecar(&format!("{{egress: [{listeners}]}}")), finds, "{listeners}");
        }
    }

    #[test]
    fn ingress() {
        for (listener, finds) in [
            ("{port: {number: 80, protocol: HTTP, name: a}, defaultEndpoint: '127.0.0.1:80'}", vec![]),
            ("{port: {number: 80}, defaultEndpoint: 'unix:///a'}", vec![]),
            ("{port: {number: 80}, defaultEndpoint: '[::1]:80'}", vec![]),
            ("{}", vec!["!IST0106 spec.ingress[0]"]),
            ("{port: {number: 0}}", vec!["!IST0106 spec.ingress[0].port"]),
            ("{port: {number: 80, targetPort: 1}}", vec!["!IST0106 spec.ingress[0].port.targetPort"]),
            (
                "{port: {number: 80}, defaultEndpoint: '10.0.0.1:80'}",
                vec!["!IST0106 spec.ingress[0].defaultEndpoint"],
            ),
            (
                "{port: {number: 80}, defaultEndpoint: '127.0.0.1:http'}",
                vec!["!IST0106 spec.ingress[0].defaultEndpoint"],
            ),
            (
                "{port: {number: 80}, defaultEndpoint: '127.0.0.1'}",
                vec!["!IST0106 spec.ingress[0].defaultEndpoint"],
            ),
            ("{port: {number: 80}, bind: unix:///a}", vec!["!IST0106 spec.ingress[0].bind"]),
            (
                "{port: {number: 443, protocol: HTTPS}, tls: {mode: SIMPLE, serverCertificate: a, privateKey: b}}",
                vec![],
            ),
            (
                "{port: {number: 80, protocol: HTTP}, tls: {mode: SIMPLE, serverCertificate: a, privateKey: b}}",
                vec!["!IST0106 spec.ingress[0].tls"],
            ),
            (
                "{port: {number: 443, protocol: HTTPS}, tls: {mode: SIMPLE, credentialName: a}}",
                vec!["!IST0106 spec.ingress[0].tls"],
            ),
            (
                "{port: {number: 443, protocol: TLS}, tls: {mode: ISTIO_MUTUAL}}",
                vec!["!IST0106 spec.ingress[0].tls.mode"],
            ),
            (
                "{port: {number: 80, protocol: HTTP}, connectionPool: {}}",
                vec!["!IST0106 spec.ingress[0].connectionPool"],
            ),
            (
                "{port: {number: 80, protocol: TCP}, connectionPool: {http: {maxRetries: 1}}}",
                vec!["IST0133 spec.ingress[0].connectionPool.http"],
            ),
        ] {
            assert_eq!(sidecar(&format!("{{ingress: [{listener}]}}")), finds, "{listener}");
        }
    }

    #[test]
    fn the_rest() {
        for (spec, finds) in [
            ("{}", vec!["!IST0106 spec"]),
            ("{workloadSelector: {labels: {a: b}}}", vec!["!IST0106 spec"]),
            ("{outboundTrafficPolicy: {mode: ALLOW_ANY}}", vec![]),
            (
                "{outboundTrafficPolicy: {mode: ALLOW_ANY_DYNAMIC_DNS}}",
                vec!["!IST0106 spec.outboundTrafficPolicy.mode"],
            ),
            (
                "{outboundTrafficPolicy: {mode: ALLOW_ANY, egressProxy: {host: a.b, port: {number: 1}}}}",
                vec!["IST0002 spec.outboundTrafficPolicy.egressProxy"],
            ),
            (
                "{outboundTrafficPolicy: {mode: REGISTRY_ONLY, egressProxy: {host: a.b, port: {number: 1}}}}",
                vec![
                    "IST0002 spec.outboundTrafficPolicy.egressProxy",
                    "!IST0106 spec.outboundTrafficPolicy.egressProxy",
                ],
            ),
            (
                "{outboundTrafficPolicy: {mode: ALLOW_ANY, egressProxy: {host: a.b}}}",
                vec![
                    "IST0002 spec.outboundTrafficPolicy.egressProxy",
                    "!IST0106 spec.outboundTrafficPolicy.egressProxy",
                ],
            ),
            ("{inboundConnectionPool: {}}", vec!["!IST0106 spec.inboundConnectionPool"]),
        ] {
            let mut found = sidecar(spec);
            found.sort_by_key(|line| line.trim_start_matches('!').to_owned());
            assert_eq!(found, finds, "{spec}");
        }
    }
}
