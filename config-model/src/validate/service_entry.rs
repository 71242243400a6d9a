//! What admission demands of a ServiceEntry (Istio: ValidateServiceEntry, and the schema of the resource).

use std::collections::BTreeSet;

use super::{
    check::{At, Check},
    names, workload_entry,
};
use crate::{
    diagnostic::Diagnostics,
    istio::{
        ServiceEntry,
        service_entry::{Location, Resolution, ServicePort},
    },
    meta::Resource,
    scalar::Protocol,
};

pub(super) fn check(resource: &Resource<ServiceEntry>, out: &mut Diagnostics) {
    let mut check = Check::new(resource, out);
    let spec = &resource.spec;
    selector(&mut check, spec);
    hosts(&mut check, spec);
    addresses(&mut check, spec);
    ports(&mut check, spec);
    endpoints(&mut check, spec);
    if spec.resolution == Resolution::DynamicDns {
        dynamic_dns(&mut check, spec);
    }
    check.export_to(&spec.export_to, true);
}

fn selector(check: &mut Check<'_, ServiceEntry>, spec: &ServiceEntry) {
    let Some(selector) = &spec.workload_selector else { return };
    let path = "spec.workloadSelector";
    check.selector(format_args!("{path}.labels"), &selector.labels, 256);
    if selector.labels.is_empty() {
        check.warn(
            path,
            "service entry: workload selector specified without labels, will be applied to all services in namespace",
        );
    }
    if !spec.endpoints.is_empty() {
        check.error(path, "only one of WorkloadSelector or Endpoints is allowed in Service Entry");
    }
    if spec.resolution == Resolution::None {
        check.warn(path, "workloadSelector should not be set when resolution mode is NONE");
    }
}

fn hosts(check: &mut Check<'_, ServiceEntry>, spec: &ServiceEntry) {
    if spec.hosts.is_empty() {
        check.error("spec", "service entry must have at least one host");
    }
    check.at_most("spec.hosts", spec.hosts.len(), 256);
    for (index, host) in spec.hosts.iter().enumerate() {
        let path = format_args!("spec.hosts[{index}]");
        if host.is_any() {
            check.error(path, "invalid host *");
        } else if !names::is_wildcard_domain(host.as_str()) {
            let message = format!("domain name {:?} invalid", host.as_str());
            match names::is_ip(host.as_str()) {
                true => check.refuse(
                    path,
                    message,
                    "make up a name for it here and put the address into endpoints",
                ),
                false => check.error(path, message),
            }
        } else if names::is_partial_wildcard(host) && spec.resolution != Resolution::DynamicDns {
            check.warn(path, format!("partial wildcard {:?} not allowed", host.as_str()));
        }
    }
}

fn addresses(check: &mut Check<'_, ServiceEntry>, spec: &ServiceEntry) {
    check.at_most("spec.addresses", spec.addresses.len(), 256);
    for (index, address) in spec.addresses.iter().enumerate() {
        let path = format_args!("spec.addresses[{index}]");
        if !names::is_ip_or_cidr(address) {
            let what = if address.contains('/') { "CIDR block" } else { "IP" };
            check.error(path, format!("{address} is not a valid {what}"));
        } else if address.contains('/') && !matches!(spec.resolution, Resolution::None | Resolution::Static) {
            check.error(path, "CIDR addresses are allowed only for NONE/STATIC resolution types");
        }
    }
}

fn ports(check: &mut Check<'_, ServiceEntry>, spec: &ServiceEntry) {
    check.at_most("spec.ports", spec.ports.len(), 256);
    let (mut numbers, mut port_names) = (BTreeSet::new(), BTreeSet::new());
    let mut tells_hosts_apart = true;
    for (index, port) in spec.ports.iter().enumerate() {
        let path = format_args!("spec.ports[{index}]");
        if !port_names.insert(&port.name) {
            let message = format!("service entry port name {:?} already defined", port.name);
            check.error(format!("{path}.name"), message);
        }
        if !numbers.insert(port.number) {
            check.error(
                format!("{path}.number"),
                format!("service entry port {} already defined", port.number),
            );
        }
        if !names::is_label(&port.name) {
            check.error(format!("{path}.name"), format!("invalid port name: {}", port.name));
        }
        let protocol = protocol(check, path, port);
        tells_hosts_apart &= protocol.is_some_and(|protocol| protocol.is_http() || protocol.is_tls());
    }
    if spec.hosts.len() > 1 && spec.resolution != Resolution::None && !tells_hosts_apart {
        check.refuse(
            "spec.ports",
            "multiple hosts provided with non-HTTP, non-TLS ports",
            "hosts cannot be told apart there: write one ServiceEntry for each host",
        );
    }
}

fn protocol(check: &mut Check<'_, ServiceEntry>, path: At<'_>, port: &ServicePort) -> Option<Protocol> {
    if port.protocol.is_empty() {
        return None;
    }
    let protocol = Protocol::parse(&port.protocol);
    if protocol.is_none() {
        check.error(format!("{path}.protocol"), format!("unsupported protocol: {}", port.protocol));
    }
    protocol
}

fn endpoints(check: &mut Check<'_, ServiceEntry>, spec: &ServiceEntry) {
    check.at_most("spec.endpoints", spec.endpoints.len(), 4096);
    match spec.resolution {
        Resolution::None if !spec.endpoints.is_empty() => check.refuse(
            "spec.endpoints",
            "no endpoints should be provided for resolution type none",
            "use resolution STATIC for addresses, DNS for names",
        ),
        Resolution::DnsRoundRobin if spec.endpoints.len() > 1 => check.error(
            "spec.endpoints",
            "there must only be 0 or 1 endpoint for resolution mode DNS_ROUND_ROBIN",
        ),
        _ => {}
    }
    let by_name = matches!(spec.resolution, Resolution::Dns | Resolution::DnsRoundRobin);
    if by_name && spec.endpoints.is_empty() {
        for (index, host) in spec.hosts.iter().enumerate() {
            if !names::is_dns_name(host.as_str()) && !host.is_any() {
                check.refuse(
                    format!("spec.hosts[{index}]"),
                    "hosts must be FQDN or contain only prefix wildcards if no endpoints are provided for resolution mode DNS",
                    "a wildcard cannot be resolved; say in endpoints what to resolve",
                );
            }
        }
    }
    if matches!(spec.resolution, Resolution::None | Resolution::DynamicDns) {
        return;
    }
    let mut protocols = spec.ports.iter().filter_map(|port| Protocol::parse(&port.protocol));
    if by_name
        && spec.hosts.len() > 1
        && !spec.addresses.is_empty()
        && protocols.any(|protocol| protocol.is_tcp() || protocol.is_tls())
    {
        check.warn(
            "spec.addresses",
            "service entry can not have more than one host specified simultaneously with address and tcp port",
        );
    }
    let port_names: BTreeSet<&str> = spec.ports.iter().map(|port| port.name.as_str()).collect();
    for (index, entry) in spec.endpoints.iter().enumerate() {
        let path = format_args!("spec.endpoints[{index}]");
        let takes = if by_name { workload_entry::Takes::Names } else { workload_entry::Takes::Addresses };
        workload_entry::check_entry(check, path, entry, takes);
        for name in entry.ports.keys().filter(|name| !port_names.contains(name.as_str())) {
            check.error(
                format!("{path}.ports.{name}"),
                format!("endpoint port {name:?} is not defined by the service entry"),
            );
        }
        if !by_name && entry.address.starts_with("unix://") && port_names.len() != 1 {
            check.error(format!("{path}.address"), "exactly 1 service port required for unix endpoints");
        }
    }
}

fn dynamic_dns(check: &mut Check<'_, ServiceEntry>, spec: &ServiceEntry) {
    for (index, host) in spec.hosts.iter().enumerate() {
        if !host.is_wildcard() {
            check.error(
                format!("spec.hosts[{index}]"),
                "host must be wildcarded for resolution mode DYNAMIC_DNS",
            );
        }
    }
    for (field, used) in
        [("addresses", !spec.addresses.is_empty()), ("endpoints", !spec.endpoints.is_empty())]
    {
        if used {
            check.error(
                format!("spec.{field}"),
                format!("{field} cannot be set for resolution type DYNAMIC_DNS"),
            );
        }
    }
    for (index, port) in spec.ports.iter().enumerate() {
        let protocol = Protocol::parse(&port.protocol);
        if !matches!(protocol, Some(Protocol::Http | Protocol::Http2 | Protocol::Grpc | Protocol::Tls)) {
            check.error(
                format!("spec.ports[{index}]"),
                "only HTTP, TLS, GRPC, and HTTP2 protocols are supported for resolution type DYNAMIC_DNS",
            );
        }
    }
    let waypoint = check.resource.meta.labels.get("istio.io/use-waypoint");
    let uses_waypoint = waypoint.is_some_and(|name| !name.is_empty() && !name.eq_ignore_ascii_case("none"));
    if spec.location == Location::MeshInternal && uses_waypoint {
        check.error(
            "spec.location",
            "location MESH_INTERNAL with resolution type DYNAMIC_DNS is not supported when using waypoints",
        );
    }
}

#[cfg(test)]
mod tests {
    use crate::validate::tests::{SE, findings};

    const HTTP: &str = "  ports: [{number: 80, name: http, protocol: HTTP}]\n";

    fn with(spec: &str) -> Vec<String> {
        findings(&format!("{SE}{spec}{HTTP}"))
    }

    #[test]
    fn hosts_and_addresses() {
        for (spec, finds) in [
            ("  hosts: [a.com, b.com]\n  resolution: DNS\n", vec![]),
            ("  resolution: DNS\n", vec!["!IST0106 spec"]),
            (
                "  hosts: ['*']\n  resolution: DNS\n  endpoints: [{address: a.com}]\n",
                vec!["!IST0106 spec.hosts[0]"],
            ),
            ("  hosts: [10.0.0.1]\n  resolution: STATIC\n", vec!["!IST0106 spec.hosts[0]"]),
            ("  hosts: ['*.a.com']\n  resolution: DNS\n", vec!["!IST0106 spec.hosts[0]"]),
            ("  hosts: ['*.a.com']\n  resolution: DNS\n  endpoints: [{address: a.com}]\n", vec![]),
            ("  hosts: ['*-a.com']\n  resolution: STATIC\n", vec!["IST0133 spec.hosts[0]"]),
            (
                "  hosts: [a.com]\n  resolution: DNS\n  addresses: [10.0.0.0/8]\n",
                vec!["!IST0106 spec.addresses[0]"],
            ),
            ("  hosts: [a.com]\n  resolution: STATIC\n  addresses: [10.0.0.0/8, 10.0.0.1]\n", vec![]),
            (
                "  hosts: [a.com]\n  resolution: STATIC\n  addresses: [nowhere]\n",
                vec!["!IST0106 spec.addresses[0]"],
            ),
            ("  hosts: [a.com]\n  resolution: STATIC\n  exportTo: ['~']\n", vec![]),
            (
                "  hosts: [a.com]\n  resolution: STATIC\n  exportTo: ['~', '.']\n",
                vec!["!IST0106 spec.exportTo[0]"],
            ),
        ] {
            let mut found = with(spec);
            found.retain(|line| !line.starts_with("LIM0011"));
            assert_eq!(found, finds, "{spec}");
        }
    }

    #[test]
    fn endpoints() {
        for (spec, finds) in [
            ("  resolution: NONE\n  endpoints: [{address: 1.2.3.4}]\n", vec!["!IST0106 spec.endpoints"]),
            ("  resolution: STATIC\n  endpoints: [{address: 1.2.3.4, ports: {http: 81}}]\n", vec![]),
            (
                "  resolution: STATIC\n  endpoints: [{address: b.com}]\n",
                vec!["!IST0106 spec.endpoints[0].address"],
            ),
            (
                "  resolution: STATIC\n  endpoints: [{address: 1.2.3.4, ports: {https: 1}}]\n",
                vec!["!IST0106 spec.endpoints[0].ports.https"],
            ),
            ("  resolution: STATIC\n  endpoints: [{address: 'unix:///a'}]\n", vec![]),
            (
                "  resolution: DNS\n  endpoints: [{address: 'unix:///a'}]\n",
                vec!["!IST0106 spec.endpoints[0].address"],
            ),
            ("  resolution: DNS\n  endpoints: [{address: b.com}, {address: 1.2.3.4}]\n", vec![]),
            (
                "  resolution: DNS_ROUND_ROBIN\n  endpoints: [{address: b.com}, {address: c.com}]\n",
                vec!["!IST0106 spec.endpoints"],
            ),
            ("  resolution: STATIC\n  workloadSelector: {labels: {a: b}}\n", vec![]),
            (
                "  resolution: STATIC\n  workloadSelector: {labels: {a: '*'}}\n",
                vec!["!IST0106 spec.workloadSelector.labels"],
            ),
            ("  resolution: STATIC\n  workloadSelector: {}\n", vec!["IST0133 spec.workloadSelector"]),
            (
                "  resolution: NONE\n  workloadSelector: {labels: {a: b}}\n",
                vec!["IST0133 spec.workloadSelector"],
            ),
            (
                "  resolution: STATIC\n  workloadSelector: {labels: {a: b}}\n  endpoints: [{address: 1.2.3.4}]\n",
                vec!["!IST0106 spec.workloadSelector"],
            ),
        ] {
            assert_eq!(with(&format!("  hosts: [a.com]\n{spec}")), finds, "{spec}");
        }
    }

    #[test]
    fn ports() {
        let with = |hosts: &str, ports: &str| {
            findings(&format!("{SE}  hosts: {hosts}\n  resolution: STATIC\n  ports: [{ports}]\n"))
        };
        for (hosts, ports, finds) in [
            (
                "[a.com]",
                "{number: 80, name: a, protocol: HTTP}, {number: 81, name: b, protocol: TLS}",
                vec![],
            ),
            (
                "[a.com]",
                "{number: 80, name: a, protocol: HTTP}, {number: 80, name: b, protocol: TLS}",
                vec!["!IST0106 spec.ports[1].number"],
            ),
            (
                "[a.com]",
                "{number: 80, name: a, protocol: HTTP}, {number: 81, name: a, protocol: TLS}",
                vec!["!IST0106 spec.ports[1].name"],
            ),
            ("[a.com]", "{number: 80, name: a_b, protocol: HTTP}", vec!["!IST0106 spec.ports[0].name"]),
            ("[a.com]", "{number: 80, name: a, protocol: QUIC}", vec!["!IST0106 spec.ports[0].protocol"]),
            ("[a.com]", "{number: 80, name: a, protocol: TCP}", vec!["IST0134 spec.ports[0]"]),
            ("[a.com]", "{number: 80, name: a}", vec!["IST0134 spec.ports[0]"]),
            ("[a.com, b.com]", "{number: 80, name: a, protocol: MONGO}", vec!["!IST0106 spec.ports"]),
        ] {
            assert_eq!(with(hosts, ports), finds, "{ports}");
        }
    }

    #[test]
    fn dynamic_dns() {
        let with = |spec: &str| {
            let mut found = with(&format!("{spec}  resolution: DYNAMIC_DNS\n"));
            found.retain(|line| !line.starts_with("LIM"));
            found
        };
        for (spec, finds) in [
            ("  hosts: ['*.a.com']\n", vec![]),
            ("  hosts: [a.com]\n", vec!["!IST0106 spec.hosts[0]"]),
            ("  hosts: ['*.a.com']\n  endpoints: [{address: 1.2.3.4}]\n", vec!["!IST0106 spec.endpoints"]),
            ("  hosts: ['*.a.com']\n  addresses: [1.2.3.4]\n", vec!["!IST0106 spec.addresses"]),
        ] {
            assert_eq!(with(spec), finds, "{spec}");
        }
        let tcp = format!(
            "{SE}  hosts: ['*.a.com']\n  resolution: DYNAMIC_DNS\n  ports: [{{number: 1, name: a, protocol: HTTPS}}]\n"
        );
        assert_eq!(findings(&tcp), ["!IST0106 spec.ports[0]"]);
    }
}
