//! The virtual addresses of a service: where a workload connects to when it means it.
//!
//! Invariant: none is any address, as of a Service without a cluster address and of a ServiceEntry that gives none. What istiod allocated to
//! such a ServiceEntry counts where workloads are told of it, and else nobody goes there.

use super::super::registry::{Service, Source};
use config_model::{
    istio::{ServiceEntry, service_entry::Resolution},
    mesh::MeshConfig,
    meta::Resource,
};
use ipnet::IpNet;
use std::net::IpAddr;

/// Label by which a ServiceEntry wants no allocated addresses.
const OPT_OUT: &str = "networking.istio.io/enable-autoallocate-ip";

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

/// Whether workloads are told of allocated addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Allocated {
    /// They are.
    Told,
    /// They are not.
    Unknown,
}

impl Allocated {
    pub(super) fn new(mesh: &MeshConfig) -> Self {
        if mesh.captures_dns() { Self::Told } else { Self::Unknown }
    }
}

/// All of a service's, in the order written.
pub(super) fn addresses(service: &Service, allocated: Allocated) -> Vec<VirtualAddress> {
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
            if found.is_empty() && allocated == Allocated::Told {
                entries.iter().flat_map(|entry| of_status(entry, &service.host)).for_each(|ip| {
                    if !found.contains(&VirtualAddress::Ip(ip)) {
                        found.push(VirtualAddress::Ip(ip));
                    }
                });
            }
        }
    }
    found
}

/// What istiod allocated to a host, IPv4 first (Istio: ip_autoallocation.go `shouldV2AutoAllocateIPFromPieces`).
fn of_status<'e>(entry: &'e Resource<ServiceEntry>, host: &str) -> impl Iterator<Item = IpAddr> + 'e {
    let wanted = entry.spec.resolution != Resolution::None
        && entry.meta.labels.get(OPT_OUT).is_none_or(|value| !value.eq_ignore_ascii_case("false"));
    let all = entry.meta.allocated_addresses.get(host).filter(|_| wanted);
    let all = all.map(Vec::as_slice).unwrap_or_default();
    let of = |v4: bool| all.iter().copied().filter(move |ip| ip.is_ipv4() == v4);
    of(true).chain(of(false))
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
