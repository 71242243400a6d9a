//! What VirtualServices say of Gateways: that they are there, and that they admit the hosts.

use super::{Out, Scene, about, name_of, resolve_gateway_name};
use crate::{
    diagnostic::{Code, Diagnostic},
    istio::{Gateway, VirtualService, gateway::Server},
    meta::{Kind, Resource, ResourceKey},
    scalar::HostPattern,
};

pub(super) fn check(scene: &Scene<'_>, out: Out<'_>) {
    for resource in scene.validated.virtual_services() {
        let own = resource.key.namespace.as_str();
        let mut named: Vec<&Resource<Gateway>> = Vec::new();
        let mut useful = false;
        for (index, entry) in resource.spec.gateways.iter().enumerate() {
            let Some((namespace, name)) = resolve_gateway_name(entry, own) else {
                // In the mesh every host counts.
                useful = false;
                named.clear();
                break;
            };
            let key = ResourceKey::new(Kind::Gateway, namespace, name);
            let path = format!("spec.gateways[{index}]");
            match scene.validated.set().gateways().get(&key) {
                Some(gateway) => named.push(gateway),
                None => out.push(missing(scene, resource, entry, name, path)),
            }
        }
        for (index, entry) in resource.spec.gateways.iter().enumerate() {
            let Some((namespace, name)) = resolve_gateway_name(entry, own) else { continue };
            let key = ResourceKey::new(Kind::Gateway, namespace, name);
            let Some(gateway) = scene.validated.set().gateways().get(&key) else { continue };
            if resource.spec.hosts.is_empty()
                || resource.spec.hosts.iter().any(|host| has(gateway, own, host))
            {
                useful = true;
                continue;
            }
            let hosts = resource.spec.hosts.iter().map(HostPattern::as_str);
            out.push(not_found(resource, hosts, gateway, format!("spec.gateways[{index}]")));
        }
        // With several Gateways each may admit a part; a host that none admits is lost.
        let lost = |host: &&HostPattern| useful && !named.iter().any(|gateway| has(gateway, own, host));
        for (index, host) in resource.spec.hosts.iter().enumerate() {
            if let (true, Some(gateway)) = (lost(&host), named.first()) {
                out.push(not_found(
                    resource,
                    std::iter::once(host.as_str()),
                    gateway,
                    format!("spec.hosts[{index}]"),
                ));
            }
        }
    }
}

fn missing(
    scene: &Scene<'_>,
    resource: &Resource<VirtualService>,
    entry: &str,
    name: &str,
    path: String,
) -> Diagnostic {
    let mut finding =
        about(resource, Code::REFERENCE_NOT_FOUND, path, format!("Referenced gateway not found: {entry:?}"));
    let elsewhere = scene.validated.gateways().iter().find(|gateway| gateway.key.name == name);
    finding.hint = elsewhere.map(|gateway| format!("write \"{}/{name}\"", gateway.key.namespace));
    finding
}

fn not_found<'h>(
    resource: &Resource<VirtualService>,
    hosts: impl Iterator<Item = &'h str>,
    gateway: &Resource<Gateway>,
    path: String,
) -> Diagnostic {
    let hosts: Vec<&str> = hosts.collect();
    let message = format!(
        "one or more host [{}] defined in VirtualService {} not found in Gateway {}.",
        hosts.join(" "),
        name_of(resource),
        name_of(gateway)
    );
    let finding = about(resource, Code::HOST_NOT_IN_GATEWAY, path, message);
    finding.hint("add the host to a server of the Gateway, or correct spec.hosts")
}

/// Whether some server of the Gateway admits a host.
fn has(gateway: &Resource<Gateway>, from: &str, host: &HostPattern) -> bool {
    gateway.spec.servers.iter().any(|server| admits(gateway, server, from, host))
}

/// Whether a server admits a host, or a part of it, from VirtualServices of a namespace.
pub(super) fn admits(gateway: &Resource<Gateway>, server: &Server, from: &str, host: &HostPattern) -> bool {
    server.hosts.iter().any(|of_server| {
        let namespace = match of_server.namespace() {
            Some(".") => Some(gateway.key.namespace.as_str()),
            other => other,
        };
        namespace.is_none_or(|namespace| namespace == from) && of_server.host().overlaps(host)
    })
}

#[cfg(test)]
mod tests {
    use crate::validate::tests::{GW, VS, findings};

    #[test]
    fn hosts_must_be_admitted_by_the_gateway() {
        let gateway = format!(
            "{GW}  servers:\n  - port: {{number: 80, name: http, protocol: HTTP}}\n    hosts: ['shop/*.foo.com', bar.com]\n---\n"
        );
        let vs = |host: &str| {
            format!(
                "{gateway}{VS}  hosts: [{host}]\n  gateways: [gw]\n  http: [{{directResponse: {{status: 200}}}}]\n"
            )
        };
        assert_eq!(findings(&vs("a.foo.com")), ["IST0132 spec.gateways[0]"]);
        assert_eq!(findings(&vs("bar.com")), Vec::<String>::new());
        let elsewhere = vs("a.foo.com").replace("{name: a}", "{name: a, namespace: shop}");
        assert_eq!(findings(&elsewhere.replace("[gw]", "[default/gw]")), Vec::<String>::new());
        assert_eq!(findings(&elsewhere), ["IST0101 spec.gateways[0]"]);
        // Each of two Gateways may admit its part; one that none admits is lost.
        let second = gateway.replace("name: gw", "name: two").replace("'shop/*.foo.com', bar.com", "two.com");
        let both = |hosts: &str| findings(&(second.clone() + &vs(hosts).replace("[gw]", "[gw, two]")));
        assert_eq!(both("bar.com, two.com"), Vec::<String>::new());
        assert_eq!(both("bar.com, two.com, three.com"), ["IST0132 spec.hosts[2]"]);
        assert_eq!(both("bar.com"), ["IST0132 spec.gateways[1]"]);
    }
}
