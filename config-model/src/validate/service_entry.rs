//! What admission demands of a ServiceEntry and of a WorkloadEntry.

use std::collections::BTreeSet;

use super::{check::Check, names};
use crate::{
    diagnostic::{Code, Diagnostic, Diagnostics},
    istio::{
        ServiceEntry, WorkloadEntry,
        service_entry::{Resolution, ServicePort},
    },
    meta::Resource,
    scalar::Protocol,
};

pub(super) fn check(resource: &Resource<ServiceEntry>, out: &mut Diagnostics) {
    let mut check = Check::new(resource, out);
    let spec = &resource.spec;
    hosts(&mut check, spec);
    for (index, address) in spec.addresses.iter().enumerate() {
        let path = format!("spec.addresses[{index}]");
        if !names::is_ip_or_cidr(address) {
            check.error(path, format!("{address:?} is not an IP address or network"));
        } else if address.contains('/') && !matches!(spec.resolution, Resolution::None | Resolution::Static) {
            check.error(path, "a network is allowed with resolution NONE and STATIC only");
        }
    }
    ports(&mut check, spec);
    if let Some(selector) = &spec.workload_selector {
        check.labels("spec.workloadSelector.labels", &selector.labels);
        if !spec.endpoints.is_empty() {
            check.error("spec.endpoints", "endpoints and workloadSelector cannot be used together");
        }
        if selector.labels.is_empty() {
            check.warn("spec.workloadSelector", "a selector without labels selects nothing");
        }
        if spec.resolution == Resolution::None {
            check.warn("spec.workloadSelector", "with resolution NONE the selected endpoints are not used");
        }
    }
    endpoints(&mut check, spec);
    check.export_to(&spec.export_to, true);
}

pub(super) fn check_workload_entry(resource: &Resource<WorkloadEntry>, out: &mut Diagnostics) {
    let mut check = Check::new(resource, out);
    endpoint(&mut check, "spec", &resource.spec, Resolution::Dns);
}

fn hosts(check: &mut Check<'_, ServiceEntry>, spec: &ServiceEntry) {
    if spec.hosts.is_empty() || spec.hosts.len() > 256 {
        check.error("spec", "a ServiceEntry needs from 1 to 256 hosts");
    }
    for (index, host) in spec.hosts.iter().enumerate() {
        let path = format!("spec.hosts[{index}]");
        if host.is_any() {
            check.error(path, "\"*\" is not a host of a service");
        } else if !names::is_wildcard_domain(host, true) && !names::is_ip(host.as_str()) {
            check.error(path, format!("{:?} is not a host name", host.as_str()));
        } else if host.suffix().is_some_and(|suffix| !suffix.starts_with('.')) {
            check.warn(path, "a wildcard for a part of a label matches nothing in most proxies");
        } else if spec.resolution == Resolution::DynamicDns && !host.is_wildcard() {
            check.error(path, "resolution DYNAMIC_DNS needs wildcard hosts");
        }
    }
}

fn ports(check: &mut Check<'_, ServiceEntry>, spec: &ServiceEntry) {
    if spec.ports.len() > 256 {
        check.error("spec.ports", "at most 256 ports");
    }
    let (mut numbers, mut port_names) = (BTreeSet::new(), BTreeSet::new());
    let mut tcp = None;
    for (index, port) in spec.ports.iter().enumerate() {
        let path = format!("spec.ports[{index}]");
        if !numbers.insert(port.number) {
            check.error(format!("{path}.number"), format!("port {} is defined twice", port.number));
        }
        if !names::is_label(&port.name) {
            check.error(format!("{path}.name"), format!("{:?} is not a port name", port.name));
        } else if !port_names.insert(&port.name) {
            check.error(format!("{path}.name"), format!("port name {:?} is used twice", port.name));
        }
        let protocol = protocol(check, &path, port);
        if protocol.is_some_and(Protocol::is_tcp) {
            tcp.get_or_insert(path.clone());
        }
        if spec.resolution == Resolution::DynamicDns
            && !matches!(protocol, Some(Protocol::Http | Protocol::Http2 | Protocol::Grpc | Protocol::Tls))
        {
            check.error(path, "resolution DYNAMIC_DNS needs ports with protocol HTTP, HTTP2, GRPC or TLS");
        }
    }
    let Some(path) = tcp else { return };
    if spec.hosts.len() > 1 && spec.resolution != Resolution::None {
        check.error(&path, "a TCP port cannot tell several hosts apart");
    }
    if spec.addresses.is_empty() && spec.resolution == Resolution::None {
        let message = "a TCP port without addresses matches traffic to every address";
        check.push(Diagnostic::new(Code::SERVICE_ENTRY_ADDRESSES, message).at(path));
    }
}

fn protocol(check: &mut Check<'_, ServiceEntry>, path: &str, port: &ServicePort) -> Option<Protocol> {
    if port.protocol.is_empty() {
        return None;
    }
    let protocol = Protocol::parse(&port.protocol);
    if protocol.is_none() {
        check.error(format!("{path}.protocol"), format!("{:?} is not a protocol", port.protocol));
    }
    protocol
}

fn endpoints(check: &mut Check<'_, ServiceEntry>, spec: &ServiceEntry) {
    if spec.endpoints.len() > 4096 {
        check.error("spec.endpoints", "at most 4096 endpoints");
    }
    match spec.resolution {
        Resolution::None | Resolution::DynamicDns if !spec.endpoints.is_empty() => {
            check.error("spec.endpoints", "endpoints need resolution STATIC, DNS or DNS_ROUND_ROBIN");
        }
        Resolution::DynamicDns if !spec.addresses.is_empty() => {
            check.error("spec.addresses", "resolution DYNAMIC_DNS has no addresses");
        }
        Resolution::DnsRoundRobin if spec.endpoints.len() > 1 => {
            check.error("spec.endpoints", "resolution DNS_ROUND_ROBIN takes one endpoint at most");
        }
        Resolution::Dns | Resolution::DnsRoundRobin
            if spec.endpoints.is_empty() && spec.workload_selector.is_none() =>
        {
            for (index, host) in spec.hosts.iter().enumerate() {
                if host.is_wildcard() {
                    let message = "resolution DNS needs endpoints, because a wildcard cannot be resolved";
                    check.error(format!("spec.hosts[{index}]"), message);
                }
            }
        }
        _ => {}
    }
    let port_names: BTreeSet<&str> = spec.ports.iter().map(|port| port.name.as_str()).collect();
    for (index, entry) in spec.endpoints.iter().enumerate() {
        let path = format!("spec.endpoints[{index}]");
        endpoint(check, &path, entry, spec.resolution);
        for name in entry.ports.keys().filter(|name| !port_names.contains(name.as_str())) {
            check.error(
                format!("{path}.ports.{name}"),
                format!("the ServiceEntry has no port named {name:?}"),
            );
        }
    }
}

fn endpoint<T>(check: &mut Check<'_, T>, path: &str, entry: &WorkloadEntry, resolution: Resolution) {
    let address = format!("{path}.address");
    if let Some(socket) = entry.address.strip_prefix("unix://") {
        if !socket.starts_with(['/', '@']) || socket.ends_with('/') {
            check.error(&address, "a unix socket needs an absolute path to a file, or @name");
        }
        if !entry.ports.is_empty() {
            check.error(format!("{path}.ports"), "a unix socket has no ports");
        }
        if matches!(resolution, Resolution::Dns | Resolution::DnsRoundRobin) && path != "spec" {
            check.error(&address, "a unix socket needs resolution STATIC");
        }
    } else if entry.address.is_empty() {
        if entry.network.is_empty() {
            check.error(path, "address is required when there is no network");
        }
    } else if !names::is_ip(&entry.address) {
        if resolution == Resolution::Static {
            check.error(
                &address,
                format!("{:?} is not an IP address, which resolution STATIC needs", entry.address),
            );
        } else if !names::is_dns_name(&entry.address) {
            check.error(&address, format!("{:?} is neither an IP address nor a name", entry.address));
        }
    }
    for name in entry.ports.keys().filter(|name| !names::is_label(name)) {
        check.error(format!("{path}.ports.{name}"), format!("{name:?} is not a port name"));
    }
    check.labels(&format!("{path}.labels"), &entry.labels);
}
