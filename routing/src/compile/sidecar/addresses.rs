//! The virtual addresses of a service: where a workload connects to when it means it.
//!
//! Invariant: none is any address, as of a Service without a cluster address and of a ServiceEntry that gives none.

use super::super::registry::{Service, Source};
use ipnet::IpNet;
use std::net::IpAddr;

/// One of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum VirtualAddress {
    /// One address.
    Ip(IpAddr),
    /// A range.
    Net(IpNet),
}

impl VirtualAddress {
    pub(super) fn ip(self) -> Option<IpAddr> {
        match self {
            Self::Ip(ip) => Some(ip),
            Self::Net(_) => None,
        }
    }
}

/// All of a service's, in the order written.
pub(super) fn addresses(service: &Service) -> Vec<VirtualAddress> {
    let mut found = Vec::new();
    let mut push = |at: Option<VirtualAddress>| {
        if let Some(at) = at.filter(|at| !found.contains(at)) {
            found.push(at);
        }
    };
    match &service.source {
        Source::Kubernetes(resource) => {
            let all = std::iter::once(&resource.spec.cluster_ip).chain(&resource.spec.cluster_ips);
            all.for_each(|text| push(text.parse().ok().map(VirtualAddress::Ip)));
        }
        Source::Entries(entries) => {
            entries.iter().flat_map(|entry| &entry.spec.addresses).for_each(|text| push(parse(text)));
        }
    }
    found
}

/// An address or a range; a range of one address is that (Istio: serviceentry/conversion.go `convertServices`).
fn parse(text: &str) -> Option<VirtualAddress> {
    if let Ok(ip) = text.parse() {
        return Some(VirtualAddress::Ip(ip));
    }
    let net: IpNet = text.parse().ok()?;
    Some(if net.prefix_len() == net.max_prefix_len() {
        VirtualAddress::Ip(net.addr())
    } else {
        VirtualAddress::Net(net.trunc())
    })
}
