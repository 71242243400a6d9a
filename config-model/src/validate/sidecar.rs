//! What admission demands of a Sidecar. It has no effect on a gateway, so only its form is checked.

use std::collections::BTreeSet;

use super::{check::Check, names};
use crate::{
    diagnostic::Diagnostics,
    istio::{Sidecar, sidecar::OutboundTrafficMode},
    meta::Resource,
    scalar::HostPattern,
};

pub(super) fn check(resource: &Resource<Sidecar>, out: &mut Diagnostics) {
    let mut check = Check::new(resource, out);
    let spec = &resource.spec;
    if *spec == Sidecar::default() {
        check.error("spec", "an empty Sidecar");
    }
    let mut ports = BTreeSet::new();
    for (index, listener) in spec.ingress.iter().enumerate() {
        let path = format!("spec.ingress[{index}]");
        match listener.port.as_ref().and_then(|port| port.number) {
            None => check.error(path, "port.number is required"),
            Some(number) if !ports.insert(number) => {
                check.error(format!("{path}.port"), format!("port {number} is used twice"))
            }
            Some(_) => {}
        }
    }
    let last = spec.egress.len().saturating_sub(1);
    let mut ports = BTreeSet::new();
    for (index, listener) in spec.egress.iter().enumerate() {
        let path = format!("spec.egress[{index}]");
        match &listener.port {
            None if index != last => check.error(&path, "the listener without a port must be the last"),
            Some(port) if !ports.insert((port.number, listener.bind.as_str())) => {
                check.error(format!("{path}.port"), "the port is used twice");
            }
            _ => {}
        }
        if listener.hosts.is_empty() {
            check.error(&path, "hosts is required");
        }
        let mut seen = BTreeSet::new();
        for (index, host) in listener.hosts.iter().enumerate() {
            let path = format!("{path}.hosts[{index}]");
            if !is_import(host) {
                check.error(path, format!("{host:?} is not of the form namespace/host"));
            } else if !seen.insert(host) {
                check.warn(path, format!("{host:?} is listed twice"));
            }
        }
    }
    if let Some(policy) = &spec.outbound_traffic_policy
        && let Some(proxy) = &policy.egress_proxy
    {
        if policy.mode != OutboundTrafficMode::AllowAny {
            check.error("spec.outboundTrafficPolicy.egressProxy", "egressProxy needs mode ALLOW_ANY");
        }
        if proxy.port_number().is_none() {
            check.error("spec.outboundTrafficPolicy.egressProxy", "egressProxy needs a port");
        }
    }
}

/// `namespace/host`, where the namespace may be `*`, `.`, `~`, or `~name` for an exclusion.
fn is_import(text: &str) -> bool {
    let Some((namespace, host)) = text.split_once('/') else { return false };
    let named = namespace.strip_prefix('~').unwrap_or(namespace);
    let namespace =
        matches!(namespace, "*" | "." | "~") || matches!(named, "*" | ".") || names::is_label(named);
    namespace
        && host
            .parse::<HostPattern>()
            .is_ok_and(|host| names::is_wildcard_domain(&host, false) || names::is_ip(host.as_str()))
}
