//! What admission demands of a VirtualService: its hosts and gateways, and what its rules share (Istio: ValidateVirtualService).
//!
//! HTTP rules are in [`http`], TLS and TCP rules in [`l4`], the order of rules in [`order`].

mod action;
mod cors;
mod fault;
mod headers;
mod http;
mod l4;
pub(super) mod matching;
mod order;
mod retry;

use std::collections::BTreeSet;

use super::{
    check::{At, Check},
    names,
};
use crate::{
    annotation,
    diagnostic::{Code, Diagnostic, Diagnostics, Severity},
    istio::{VirtualService, virtual_service::Destination},
    meta::Resource,
    scalar::{HostPattern, Weight},
};

/// Where a VirtualService applies, which decides what it may say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scope {
    /// Sidecars, alone or beside gateways.
    Mesh,
    /// Gateways only.
    Gateways,
}

pub(super) fn check(resource: &Resource<VirtualService>, out: &mut Diagnostics) {
    let mut check = Check::new(resource, out);
    let spec = &resource.spec;
    let on_mesh = spec.gateways.is_empty() || spec.gateways.iter().any(|gateway| gateway == "mesh");
    let scope = if on_mesh { Scope::Mesh } else { Scope::Gateways };
    // Without hosts it is a delegate, which another VirtualService takes its rules from.
    let is_delegate = spec.hosts.is_empty();
    if is_delegate {
        delegate(&mut check, spec);
    }
    hosts(&mut check, spec, scope);
    if spec.http.is_empty() && spec.tls.is_empty() && spec.tcp.is_empty() {
        check.error("spec", "http, tcp or tls must be provided in virtual service");
    }
    gateway_names(&mut check, format_args!("spec.gateways"), &spec.gateways);
    for (index, route) in spec.http.iter().enumerate() {
        http::check(&mut check, format_args!("spec.http[{index}]"), route, is_delegate, scope);
    }
    l4::check(&mut check, spec);
    check.export_to(&spec.export_to, false);
    if !check.is_rejected() {
        order::check(&mut check, spec);
    }
}

fn delegate(check: &mut Check<'_, VirtualService>, spec: &VirtualService) {
    let unused = [
        ("gateways", spec.gateways.is_empty(), "gateways"),
        ("tls", spec.tls.is_empty(), "tls route"),
        ("tcp", spec.tcp.is_empty(), "tcp route"),
    ];
    for (field, absent, what) in unused {
        if !absent {
            check.refuse(
                format!("spec.{field}"),
                format!("delegate virtual service must have no {what} specified"),
                "a VirtualService without hosts is a delegate; add hosts if it is not meant as one",
            );
        }
    }
    let own = check.resource.meta.annotations.keys().filter(|name| name.starts_with(annotation::PREFIX));
    for name in own {
        let message = format!("{name} of a delegate would have no effect");
        let finding = Diagnostic::new(Code::ANNOTATION, message)
            .at(format!("metadata.annotations.{name}"))
            .hint("give it to the VirtualService that delegates: its annotations are for all of its rules");
        check.push(finding.rejected());
    }
}

fn hosts(check: &mut Check<'_, VirtualService>, spec: &VirtualService, scope: Scope) {
    let sni = spec.tls.iter().any(|route| route.matches.iter().any(|entry| !entry.sni_hosts.is_empty()));
    let mut all_valid = true;
    for (index, host) in spec.hosts.iter().enumerate() {
        let path = format_args!("spec.hosts[{index}]");
        if host.is_any() && scope == Scope::Mesh {
            check.refuse(
                path,
                "wildcard host * is not allowed for virtual services bound to the mesh gateway",
                "name the gateways that it is for, without mesh",
            );
            all_valid = false;
        } else if !is_host(host, scope, sni) && !names::is_ip(host.as_str()) {
            check.error(path, format!("domain name {:?} invalid", host.as_str()));
            all_valid = false;
        }
    }
    if all_valid {
        duplicate_hosts(check, &spec.hosts);
    }
}

/// A name with an optional star; for gateways also the server names that AUTO_PASSTHROUGH makes.
fn is_host(host: &HostPattern, scope: Scope, sni: bool) -> bool {
    let text = host.as_str();
    if scope == Scope::Gateways && sni && text.starts_with("outbound_") {
        return text.len() <= 255 && names::is_outbound_server_name(text);
    }
    names::is_wildcard_domain(text)
}

/// No host may equal or be covered by another one.
fn duplicate_hosts(check: &mut Check<'_, VirtualService>, hosts: &[HostPattern]) {
    let mut seen = BTreeSet::new();
    let wildcards: BTreeSet<&str> = hosts.iter().filter_map(HostPattern::suffix).collect();
    for (index, host) in hosts.iter().enumerate() {
        let path = format_args!("spec.hosts[{index}]");
        let message =
            |other: &str| format!("duplicate hosts in virtual service: {other} & {}", host.as_str());
        if !seen.insert(host.as_str()) {
            check.error(path, message(host.as_str()));
            continue;
        }
        // Every suffix of the name that is a wildcard of the list covers it, but for its own.
        let name = host.suffix().unwrap_or(host.as_str());
        let first = usize::from(host.is_wildcard());
        let mut suffixes = (first..=name.len()).filter_map(|at| name.get(at..));
        if let Some(suffix) = suffixes.find(|suffix| wildcards.contains(suffix)) {
            check.error(path, message(&format!("*{suffix}")));
        }
    }
}

/// What istiod calls the Gateways that it makes of Kubernetes Gateways (Istio: gateway/kube `IsInternalGatewayReference`).
fn is_generated(gateway: &str) -> bool {
    gateway.contains("~istio-autogenerated-k8s-gateway~")
}

/// Istio warns of it when it analyses, and refuses it as a name that is none: here it is said once.
fn generated(resource: &Resource<VirtualService>, entry: &str) -> Diagnostic {
    let message = format!(
        "Gateway reference in VirtualService {}/{} is to an implementation-generated internal Gateway: {entry}.",
        resource.key.namespace, resource.key.name
    );
    let hint = "name a Gateway of networking.istio.io; to the others an HTTPRoute is attached";
    Diagnostic::new(Code::INTERNAL_GATEWAY, message).severity(Severity::Error).hint(hint).rejected()
}

/// Names of Gateways: `name`, `namespace/name`, `mesh`, or the old `name.namespace.svc.domain` (Istio: validateGatewayNames).
fn gateway_names(check: &mut Check<'_, VirtualService>, path: At<'_>, gateways: &[String]) {
    for (index, entry) in gateways.iter().enumerate() {
        let path = format_args!("{path}[{index}]");
        if is_generated(entry) {
            check.push(generated(check.resource, entry).at(path.to_string()));
            continue;
        }
        match entry.split_once('/') {
            Some((namespace, name)) => {
                let hint = "write name, namespace/name or mesh";
                if namespace.is_empty() || name.is_empty() {
                    let message = "config namespace and gateway name cannot be empty";
                    check.refuse(path, message, hint);
                } else if !names::is_label(namespace) {
                    check.refuse(path, format!("invalid value for namespace: {namespace:?}"), hint);
                } else if !names::is_label(name) {
                    check.refuse(path, format!("invalid value for gateway name: {name:?}"), hint);
                }
            }
            None if !names::is_dns_name(entry) => {
                check.error(path, format!("domain name {entry:?} invalid"));
            }
            None => {
                let mut parts = entry.split('.');
                if let (Some(name), Some(namespace)) = (parts.next(), parts.next()) {
                    let message = format!(
                        "using legacy gatewayName format {entry:?}; prefer the <namespace>/<name> format: \
                         \"{namespace}/{name}\""
                    );
                    check.warn(path, message);
                }
            }
        }
    }
}

/// With several destinations the weights must add up to something.
fn weights(
    check: &mut Check<'_, VirtualService>,
    path: At<'_>,
    weights: impl ExactSizeIterator<Item = Weight>,
) {
    let several = weights.len() > 1;
    let total: u64 = weights.map(|weight| u64::from(weight.get())).sum();
    if several && total == 0 {
        check.refuse(path, "total destination weight = 0", "give each destination its share in weight");
    }
}

fn destination(check: &mut Check<'_, VirtualService>, path: At<'_>, destination: &Destination) {
    let host = destination.host.as_str();
    if destination.host.is_unset() {
        check.error(path, "missing field `host`");
    } else if destination.host.is_any() {
        check.error(format!("{path}.host"), format!("invalid destination host {host}"));
    } else if !names::is_wildcard_domain(host) {
        let message = format!("domain name {host:?} invalid");
        let path = format_args!("{path}.host");
        if names::is_ip(host) {
            check.refuse(path, message, "an address needs a ServiceEntry with endpoints; name its host here");
        } else {
            check.error(path, message);
        }
    }
    if !destination.subset.is_empty() && !names::is_label(&destination.subset) {
        check.error(format!("{path}.subset"), format!("subset name is invalid: {}", destination.subset));
    }
    if destination.port.is_some() && destination.port_number().is_none() {
        check.error(format!("{path}.port"), "port number 0 must be in the range 1..65535");
    }
}

#[cfg(test)]
mod tests {
    use crate::validate::tests::{VS, findings};

    fn head(head: &str) -> Vec<String> {
        let mut found = findings(&format!("{VS}{head}  http:\n  - directResponse: {{status: 200}}\n"));
        found.retain(|line| !line.starts_with("IST0101") && !line.starts_with("IST0132"));
        found
    }

    #[test]
    fn hosts() {
        for (spec, finds) in [
            ("  hosts: [a.com, b.com, 10.0.0.1, short]\n", vec![]),
            ("  hosts: [a.com, a.com]\n", vec!["!IST0106 spec.hosts[1]"]),
            ("  hosts: ['*.a.com', b.a.com]\n", vec!["!IST0106 spec.hosts[1]"]),
            ("  hosts: [b.a.com, '*.a.com']\n", vec!["!IST0106 spec.hosts[0]"]),
            ("  hosts: ['*.a.com', '*.b.a.com']\n", vec!["!IST0106 spec.hosts[1]"]),
            ("  hosts: ['*.a.com', a.com]\n", vec![]),
            ("  hosts: ['*']\n", vec!["!IST0106 spec.hosts[0]"]),
            ("  hosts: ['*']\n  gateways: [gw, mesh]\n", vec!["!IST0106 spec.hosts[0]"]),
            ("  hosts: ['*']\n  gateways: [gw]\n", vec![]),
            ("  hosts: ['*-a.com']\n", vec![]),
            ("  hosts: [a_b.com]\n", vec!["!IST0106 spec.hosts[0]"]),
            ("  hosts: [a.com]\n  exportTo: ['*', '.']\n", vec!["!IST0106 spec.exportTo[0]"]),
            ("  hosts: [a.com]\n  exportTo: [default, '.']\n", vec!["!IST0106 spec.exportTo[1]"]),
            ("  hosts: [a.com]\n  exportTo: ['~']\n", vec!["!IST0106 spec.exportTo[0]"]),
            ("  hosts: [a.com]\n  exportTo: [a_b]\n", vec!["!IST0106 spec.exportTo[0]"]),
        ] {
            assert_eq!(head(spec), finds, "{spec}");
        }
        assert_eq!(findings(&format!("{VS}  hosts: [a.com]\n")), ["!IST0106 spec"]);
    }

    #[test]
    fn gateways_and_delegates() {
        for (spec, finds) in [
            ("  hosts: [a.com]\n  gateways: [a/b]\n", vec![]),
            ("  hosts: [a.com]\n  gateways: ['a/b/c']\n", vec!["!IST0106 spec.gateways[0]"]),
            ("  hosts: [a.com]\n  gateways: ['./b']\n", vec!["!IST0106 spec.gateways[0]"]),
            ("  hosts: [a.com]\n  gateways: ['/b']\n", vec!["!IST0106 spec.gateways[0]"]),
            ("  hosts: [a.com]\n  gateways: [a_b]\n", vec!["!IST0106 spec.gateways[0]"]),
            (
                "  hosts: [a.com]\n  gateways: [a/b~istio-autogenerated-k8s-gateway~c]\n",
                vec!["!IST0165 spec.gateways[0]"],
            ),
            (
                "  hosts: [a.com]\n  gateways: [b~istio-autogenerated-k8s-gateway~c]\n",
                vec!["!IST0165 spec.gateways[0]"],
            ),
            ("  hosts: [a.com]\n  gateways: [b.a.svc.cluster.local]\n", vec!["IST0133 spec.gateways[0]"]),
            ("  gateways: [gw]\n", vec!["!IST0106 spec.gateways"]),
        ] {
            assert_eq!(head(spec), finds, "{spec}");
        }
    }
}
