//! TLS and TCP rules: what a connection is told by, and where it goes.

use super::{At, Scope, destination, gateway_names, is_host, names, weights};
use crate::{
    istio::{
        VirtualService,
        virtual_service::{RouteDestination, TlsMatchAttributes},
    },
    scalar::HostPattern,
    validate::check::Check,
};

pub(super) fn check(check: &mut Check<'_, VirtualService>, spec: &VirtualService) {
    for (index, route) in spec.tls.iter().enumerate() {
        let path = format_args!("spec.tls[{index}]");
        if route.matches.is_empty() {
            check.refuse(
                path,
                "TLS route must have at least one match condition",
                "add a match with sniHosts",
            );
        }
        for (index, entry) in route.matches.iter().enumerate() {
            let path = format_args!("{path}.match[{index}]");
            server_names(check, path, entry, spec);
            subnets(check, path, &entry.destination_subnets);
            check.labels(format_args!("{path}.sourceLabels"), &entry.source_labels);
            gateway_names(check, format_args!("{path}.gateways"), &entry.gateways);
        }
        destinations(check, path, &route.route, "TLS");
    }
    for (index, route) in spec.tcp.iter().enumerate() {
        let path = format_args!("spec.tcp[{index}]");
        for (index, entry) in route.matches.iter().enumerate() {
            let path = format_args!("{path}.match[{index}]");
            subnets(check, path, &entry.destination_subnets);
            check.labels(format_args!("{path}.sourceLabels"), &entry.source_labels);
            gateway_names(check, format_args!("{path}.gateways"), &entry.gateways);
        }
        destinations(check, path, &route.route, "TCP");
    }
}

/// Server names are names, and each is one of the hosts or narrower (Istio: validateSniHost).
fn server_names(
    check: &mut Check<'_, VirtualService>,
    path: At<'_>,
    entry: &TlsMatchAttributes,
    spec: &VirtualService,
) {
    if entry.sni_hosts.is_empty() {
        check.error(path, "TLS match must have at least one SNI host");
    }
    // Unlike for hosts, a VirtualService that names no gateway counts as one for gateways here.
    let on_mesh = spec.gateways.iter().any(|gateway| gateway == "mesh");
    let scope = if on_mesh { Scope::Mesh } else { Scope::Gateways };
    for (index, host) in entry.sni_hosts.iter().enumerate() {
        let path = format_args!("{path}.sniHosts[{index}]");
        let text = host.as_str();
        if !is_host(host, scope, true) {
            match names::is_ip(text) {
                true => check.warn(
                    path,
                    format!("using an IP address ({text:?}) goes against SNI spec and most clients do not support this"),
                ),
                false => check.error(path, format!("domain name {text:?} invalid")),
            }
        } else if !spec.hosts.iter().any(|of_service| of_service.covers(host)) {
            let hosts: Vec<&str> = spec.hosts.iter().map(HostPattern::as_str).collect();
            check.refuse(
                path,
                format!(
                    "SNI host {text:?} is not a compatible subset of any of the virtual service hosts: [{}]",
                    hosts.join(", ")
                ),
                "add it to spec.hosts",
            );
        }
    }
}

fn subnets(check: &mut Check<'_, VirtualService>, path: At<'_>, subnets: &[String]) {
    for (index, subnet) in subnets.iter().enumerate() {
        if !names::is_ip_or_cidr(subnet) {
            let what = if subnet.contains('/') { "CIDR block" } else { "IP" };
            check.error(
                format!("{path}.destinationSubnets[{index}]"),
                format!("{subnet} is not a valid {what}"),
            );
        }
    }
}

fn destinations(
    check: &mut Check<'_, VirtualService>,
    path: At<'_>,
    routes: &[RouteDestination],
    what: &str,
) {
    if routes.is_empty() {
        check.error(path, format!("{what} route is required"));
    }
    for (index, route) in routes.iter().enumerate() {
        destination(check, format_args!("{path}.route[{index}].destination"), &route.destination);
    }
    weights(check, format_args!("{path}.route"), routes.iter().map(|route| route.weight));
}

#[cfg(test)]
mod tests {
    use crate::validate::tests::{VS, findings};

    const TO: &str = "route: [{destination: {host: s}}]";
    const SERVICE: &str =
        "---\napiVersion: v1\nkind: Service\nmetadata: {name: s}\nspec: {ports: [{port: 80}]}\n";

    #[test]
    fn tls_rules() {
        let vs =
            |rule: &str| findings(&format!("{VS}  hosts: ['*.a.com', b.com]\n  tls:\n  - {rule}\n{SERVICE}"));
        for (rule, finds) in [
            (format!("{{match: [{{sniHosts: [x.a.com, b.com, '*.x.a.com']}}], {TO}}}"), vec![]),
            (format!("{{match: [], {TO}}}"), vec!["!IST0106 spec.tls[0]"]),
            (format!("{{match: [{{port: 1}}], {TO}}}"), vec!["!IST0106 spec.tls[0].match[0]"]),
            ("{match: [{sniHosts: [b.com]}]}".into(), vec!["!IST0106 spec.tls[0]"]),
            (
                format!("{{match: [{{sniHosts: [c.com]}}], {TO}}}"),
                vec!["!IST0106 spec.tls[0].match[0].sniHosts[0]"],
            ),
            (
                format!("{{match: [{{sniHosts: ['*']}}], {TO}}}"),
                vec!["!IST0106 spec.tls[0].match[0].sniHosts[0]"],
            ),
            (
                format!("{{match: [{{sniHosts: [a_b]}}], {TO}}}"),
                vec!["!IST0106 spec.tls[0].match[0].sniHosts[0]"],
            ),
            (
                format!("{{match: [{{sniHosts: [10.0.0.1]}}], {TO}}}"),
                vec!["IST0133 spec.tls[0].match[0].sniHosts[0]"],
            ),
            (
                format!("{{match: [{{sniHosts: [b.com], destinationSubnets: [10.0.0.0/33]}}], {TO}}}"),
                vec!["!IST0106 spec.tls[0].match[0].destinationSubnets[0]"],
            ),
            (
                format!("{{match: [{{sniHosts: [b.com], gateways: [a_b]}}], {TO}}}"),
                vec!["!IST0106 spec.tls[0].match[0].gateways[0]"],
            ),
        ] {
            assert_eq!(vs(&rule), finds, "{rule}");
        }
    }

    #[test]
    fn tcp_rules() {
        let vs = |rule: &str| findings(&format!("{VS}  hosts: [b.com]\n  tcp:\n  - {rule}\n{SERVICE}"));
        for (rule, finds) in [
            (format!("{{{TO}}}"), vec![]),
            (format!("{{match: [{{port: 80, destinationSubnets: [10.0.0.0/8, '::1']}}], {TO}}}"), vec![]),
            ("{match: [{port: 80}]}".into(), vec!["!IST0106 spec.tcp[0]"]),
            (
                format!("{{match: [{{destinationSubnets: [nowhere]}}], {TO}}}"),
                vec!["!IST0106 spec.tcp[0].match[0].destinationSubnets[0]"],
            ),
            (
                format!("{{match: [{{sourceLabels: {{a: '*'}}}}], {TO}}}"),
                vec!["!IST0106 spec.tcp[0].match[0].sourceLabels.a"],
            ),
            (
                "{route: [{destination: {host: s}}, {destination: {host: s}}]}".into(),
                vec!["!IST0106 spec.tcp[0].route"],
            ),
        ] {
            assert_eq!(vs(&rule), finds, "{rule}");
        }
    }

    #[test]
    fn server_names_of_auto_passthrough() {
        let vs = "  hosts: [outbound_.80_._.e2e.mesh]\n  gateways: [gw]\n  tls:\n  - {match: [{sniHosts: [outbound_.80_._.e2e.mesh]}], ";
        let mut found = findings(&format!("{VS}{vs}{TO}}}\n{SERVICE}"));
        found.retain(|line| line.starts_with('!'));
        assert_eq!(found, Vec::<String>::new());
    }
}
