//! What VirtualServices say of Gateways: that they are there, and that they admit the hosts.

use super::{Out, Scene, about, gateway_key, missing, name_of};
use crate::{
    diagnostic::{Code, Diagnostic},
    istio::{Gateway, VirtualService, gateway::Server},
    meta::{Resource, ResourceKey},
    scalar::HostPattern,
};

/// What one VirtualService says of them.
pub(super) fn of(scene: &Scene<'_>, resource: &Resource<VirtualService>, out: Out<'_>) {
    let own = resource.key.namespace.as_str();
    let hosts = &resource.spec.hosts;
    let mut named: Vec<&Resource<Gateway>> = Vec::new();
    // In the mesh every host counts.
    let (mut in_mesh, mut useful) = (false, false);
    for (index, entry) in resource.spec.gateways.iter().enumerate() {
        let Some(key) = gateway_key(entry, own) else {
            in_mesh = true;
            continue;
        };
        let path = format!("spec.gateways[{index}]");
        let gateway = scene.validated.gateway(&key);
        if gateway.is_none() {
            let mut finding = missing(resource, path.as_str(), "gateway", entry);
            let mut all = scene.validated.gateways().iter();
            let elsewhere = all.find(|gateway| gateway.key.name == key.name);
            finding.hint = elsewhere.map(|gateway| format!("write {:?}", name_of(gateway)));
            out.push(finding);
        }
        named.extend(gateway.map(|gateway| &**gateway));
        let admits = gateway.is_some_and(|gateway| hosts.iter().any(|host| has(gateway, own, host)));
        useful |= admits;
        if !admits && !hosts.is_empty() {
            out.push(not_found(resource, hosts, &key, path));
        }
    }
    // With several Gateways each may admit a part; a host that none admits is lost.
    let Some(first) = named.first().filter(|_| useful && !in_mesh) else { return };
    for (index, host) in hosts.iter().enumerate() {
        if !named.iter().any(|gateway| has(gateway, own, host)) {
            let path = format!("spec.hosts[{index}]");
            out.push(not_found(resource, std::slice::from_ref(host), &first.key, path));
        }
    }
}

fn not_found(
    resource: &Resource<VirtualService>,
    hosts: &[HostPattern],
    gateway: &ResourceKey,
    path: String,
) -> Diagnostic {
    let hosts: Vec<&str> = hosts.iter().map(HostPattern::as_str).collect();
    let message = format!(
        "one or more host [{}] defined in VirtualService {} not found in Gateway {}/{}.",
        hosts.join(" "),
        name_of(resource),
        gateway.namespace,
        gateway.name
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
        // As Istio does, of a Gateway that is not there it is said too that it does not admit the hosts.
        let neither = ["IST0101 spec.gateways[0]", "IST0132 spec.gateways[0]"];
        assert_eq!(findings(&elsewhere), neither);
        assert_eq!(
            findings(&vs("bar.com").replace("[gw]", "[mesh, nope]")),
            neither.map(|line| line.replace("[0]", "[1]"))
        );
        // Each of two Gateways may admit its part; one that none admits is lost.
        let second = gateway.replace("name: gw", "name: two").replace("'shop/*.foo.com', bar.com", "two.com");
        let both = |hosts: &str| findings(&(second.clone() + &vs(hosts).replace("[gw]", "[gw, two]")));
        assert_eq!(both("bar.com, two.com"), Vec::<String>::new());
        assert_eq!(both("bar.com, two.com, three.com"), ["IST0132 spec.hosts[2]"]);
        assert_eq!(both("bar.com"), ["IST0132 spec.gateways[1]"]);
    }
}
