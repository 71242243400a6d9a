//! What admission demands of a VirtualService: its hosts, gateways and L4 rules, and what its rules share.
//!
//! HTTP rules are in [`http`], their order in [`order`].

mod action;
mod http;
mod matching;
mod order;

use std::collections::BTreeSet;

use super::{check::Check, names};
use crate::{
    diagnostic::Diagnostics,
    istio::{
        VirtualService,
        virtual_service::{Destination, RouteDestination},
    },
    meta::Resource,
    scalar::{HostPattern, Weight},
};

pub(super) fn check(resource: &Resource<VirtualService>, out: &mut Diagnostics) {
    let mut check = Check::new(resource, out);
    let spec = &resource.spec;
    // Without hosts it is a delegate, which another VirtualService takes its rules from.
    let is_delegate = spec.hosts.is_empty();
    let on_mesh = spec.gateways.is_empty() || spec.gateways.iter().any(|gateway| gateway == "mesh");
    if is_delegate {
        for (field, used) in [
            ("gateways", !spec.gateways.is_empty()),
            ("tls", !spec.tls.is_empty()),
            ("tcp", !spec.tcp.is_empty()),
        ] {
            if used {
                check.error(
                    format!("spec.{field}"),
                    format!("a VirtualService without hosts is a delegate and cannot have {field}"),
                );
            }
        }
    } else {
        hosts(&mut check, &spec.hosts, on_mesh);
    }
    if spec.http.is_empty() && spec.tls.is_empty() && spec.tcp.is_empty() {
        check.error("spec", "a VirtualService needs http, tls or tcp rules");
    }
    for (index, gateway) in spec.gateways.iter().enumerate() {
        gateway_name(&mut check, &format!("spec.gateways[{index}]"), gateway);
    }
    for (index, route) in spec.http.iter().enumerate() {
        http::check(&mut check, &format!("spec.http[{index}]"), route, is_delegate, on_mesh);
    }
    order::check(&mut check, &spec.http);
    tls(&mut check, spec);
    tcp(&mut check, spec);
    check.export_to(&spec.export_to, false);
}

fn hosts(check: &mut Check<'_, VirtualService>, hosts: &[HostPattern], on_mesh: bool) {
    let mut exact = BTreeSet::new();
    let wildcards: BTreeSet<&str> = hosts.iter().filter_map(HostPattern::suffix).collect();
    for (index, host) in hosts.iter().enumerate() {
        let path = format!("spec.hosts[{index}]");
        if host.is_any() && on_mesh {
            check.error(
                &path,
                "\"*\" is not allowed for a VirtualService that is bound to the mesh; name its gateways",
            );
        }
        if !names::is_wildcard_domain(host, true) && !names::is_ip(host.as_str()) {
            check.error(&path, format!("{:?} is not a host name", host.as_str()));
        }
        if !exact.insert(host.as_str()) {
            check.error(&path, format!("{:?} is listed twice", host.as_str()));
            continue;
        }
        // Every proper suffix of the name that is a wildcard of the list covers it.
        let name = host.suffix().unwrap_or(host.as_str());
        let first = usize::from(host.is_wildcard());
        let covering =
            (first..=name.len()).filter_map(|at| name.get(at..)).find(|suffix| wildcards.contains(suffix));
        let covering = covering.filter(|suffix| !host.is_wildcard() || *suffix != name);
        if let Some(suffix) = covering {
            check.error(&path, format!("{:?} is covered by \"*{suffix}\" of the same list", host.as_str()));
        }
    }
}

fn gateway_name(check: &mut Check<'_, VirtualService>, path: &str, name: &str) {
    let well_formed = match name.split_once('/') {
        Some((namespace, name)) => (namespace == "." || names::is_label(namespace)) && names::is_label(name),
        // The old form `name.namespace.svc.domain` still counts.
        None => names::is_dns_name(name),
    };
    if !well_formed {
        check.error(
            path,
            format!("{name:?} is not the name of a Gateway; write name, namespace/name or mesh"),
        );
    }
}

fn tls(check: &mut Check<'_, VirtualService>, spec: &VirtualService) {
    for (index, route) in spec.tls.iter().enumerate() {
        let path = format!("spec.tls[{index}]");
        if route.matches.is_empty() {
            check.error(&path, "a tls rule needs at least one match with sniHosts");
        }
        for (index, entry) in route.matches.iter().enumerate() {
            let path = format!("{path}.match[{index}]");
            if entry.sni_hosts.is_empty() {
                check.error(&path, "sniHosts is required");
            }
            for (index, host) in entry.sni_hosts.iter().enumerate() {
                let path = format!("{path}.sniHosts[{index}]");
                if names::is_ip(host.as_str()) {
                    check.warn(&path, "clients do not send IP addresses as server names");
                } else if !names::is_wildcard_domain(host, false) {
                    check.error(&path, format!("{:?} is not a host name", host.as_str()));
                } else if !spec.hosts.iter().any(|of_service| of_service.covers(host)) {
                    check.error(&path, format!("{:?} is not covered by spec.hosts", host.as_str()));
                }
            }
            l4_match(check, &path, &entry.destination_subnets, &entry.source_namespace, &entry.gateways);
        }
        destinations(check, &path, &route.route);
    }
}

fn tcp(check: &mut Check<'_, VirtualService>, spec: &VirtualService) {
    for (index, route) in spec.tcp.iter().enumerate() {
        let path = format!("spec.tcp[{index}]");
        for (index, entry) in route.matches.iter().enumerate() {
            let path = format!("{path}.match[{index}]");
            l4_match(check, &path, &entry.destination_subnets, &entry.source_namespace, &entry.gateways);
        }
        destinations(check, &path, &route.route);
    }
}

fn l4_match(
    check: &mut Check<'_, VirtualService>,
    path: &str,
    subnets: &[String],
    namespace: &str,
    gateways: &[String],
) {
    for (index, subnet) in subnets.iter().enumerate() {
        if !names::is_ip_or_cidr(subnet) {
            check.error(
                format!("{path}.destinationSubnets[{index}]"),
                format!("{subnet:?} is not an IP address or network"),
            );
        }
    }
    if !namespace.is_empty() && !names::is_label(namespace) {
        check.error(
            format!("{path}.sourceNamespace"),
            format!("{namespace:?} is not the name of a namespace"),
        );
    }
    for (index, gateway) in gateways.iter().enumerate() {
        gateway_name(check, &format!("{path}.gateways[{index}]"), gateway);
    }
}

fn destinations(check: &mut Check<'_, VirtualService>, path: &str, routes: &[RouteDestination]) {
    if routes.is_empty() {
        check.error(path, "the rule needs at least one route");
    }
    for (index, route) in routes.iter().enumerate() {
        destination(check, &format!("{path}.route[{index}].destination"), &route.destination);
    }
    weights(check, &format!("{path}.route"), routes.iter().map(|route| route.weight));
}

/// With several destinations the weights must add up to something.
fn weights(
    check: &mut Check<'_, VirtualService>,
    path: &str,
    weights: impl ExactSizeIterator<Item = Weight>,
) {
    let several = weights.len() > 1;
    let total: u64 = weights.map(|weight| u64::from(weight.get())).sum();
    if several && total == 0 {
        check.error(path, "the weights of several destinations add up to 0");
    }
}

fn destination(check: &mut Check<'_, VirtualService>, path: &str, destination: &Destination) {
    let host = &destination.host;
    if host.is_any() {
        check.error(format!("{path}.host"), "\"*\" is not a destination");
    } else if !names::is_wildcard_domain(host, false) && !names::is_ip(host.as_str()) {
        check.error(format!("{path}.host"), format!("{:?} is not a host name", host.as_str()));
    }
    if !destination.subset.is_empty() && !names::is_label(&destination.subset) {
        check
            .error(format!("{path}.subset"), format!("{:?} is not the name of a subset", destination.subset));
    }
    if destination.port.is_some() && destination.port_number().is_none() {
        check.error(format!("{path}.port"), "the port number must be from 1 to 65535");
    }
}
