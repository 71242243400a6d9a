//! What VirtualServices say of Gateways: that they are there, and that they admit the hosts.

use super::{Out, Scene, about, resolve_gateway_name};
use crate::{
    diagnostic::Code,
    istio::{Gateway, VirtualService, gateway::Server},
    meta::{Kind, Resource, ResourceKey},
    scalar::HostPattern,
};

pub(super) fn check(scene: &Scene<'_>, out: Out<'_>) {
    for resource in scene.validated.virtual_services() {
        let own = resource.key.namespace.as_str();
        for (index, entry) in resource.spec.gateways.iter().enumerate() {
            let Some((namespace, name)) = resolve_gateway_name(entry, own) else { continue };
            let key = ResourceKey::new(Kind::Gateway, namespace, name);
            let path = format!("spec.gateways[{index}]");
            let Some(gateway) = scene.validated.set().gateways().get(&key) else {
                let message = format!("Referenced gateway not found: {entry:?}");
                let mut finding = about(resource, Code::REFERENCE_NOT_FOUND, path, message);
                let elsewhere = scene.validated.gateways().iter().find(|gateway| gateway.key.name == name);
                finding.hint = elsewhere.map(|gateway| format!("write \"{}/{name}\"", gateway.key.namespace));
                out.push(finding);
                continue;
            };
            hosts(resource, gateway, &path, out);
        }
    }
}

/// Hosts that no server of the Gateway admits for this namespace.
fn hosts(resource: &Resource<VirtualService>, gateway: &Resource<Gateway>, path: &str, out: Out<'_>) {
    let own = resource.key.namespace.as_str();
    for host in &resource.spec.hosts {
        if !gateway.spec.servers.iter().any(|server| admits(gateway, server, own, host)) {
            let message = format!(
                "one or more host [{}] defined in VirtualService {own}/{} not found in Gateway {}/{}.",
                host.as_str(),
                resource.key.name,
                gateway.key.namespace,
                gateway.key.name
            );
            let finding = about(resource, Code::HOST_NOT_IN_GATEWAY, path, message);
            out.push(finding.hint("add the host to a server of the Gateway, or correct spec.hosts"));
        }
    }
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
    }
}
