//! Ports that a Gateway asks for and no Service of its pods exposes (Istio: IngressGatewayPortAnalyzer, IST0162).
//!
//! Of Gateways that this gateway serves it is said where ports are resolved; here are those of other pods.

use std::collections::BTreeSet;

use super::{Out, Scene, about, selector_text};
use crate::{
    diagnostic::Code,
    kubernetes::{Pod, TargetPort},
    meta::Resource,
    scalar::{
        PortNumber,
        labels::{is_subset_of, selects},
    },
};

pub(super) fn check(scene: &Scene<'_>, out: Out<'_>) {
    for gateway in scene.validated.gateways() {
        if scene.deployment.serves(gateway) && !scene.validated.is_rejected(&gateway.key) {
            continue;
        }
        let selector = gateway.spec.selector.as_ref();
        let pods = scene.validated.pods().values().filter(|pod| selects(selector, &pod.meta.labels));
        let exposed: BTreeSet<PortNumber> = pods.flat_map(|pod| exposed(scene, pod)).collect();
        // Without a Service it is not known how the pods are reached.
        if exposed.is_empty() {
            continue;
        }
        let labels = selector_text(gateway);
        for (index, server) in gateway.spec.servers.iter().enumerate() {
            let Some(port) = server.port.number.filter(|port| !exposed.contains(port)) else { continue };
            let message = format!(
                "The gateway is listening on a target port (port {port}) that is not defined in the Service associated with its \
                 workload instances (Pod selector {labels}). If you need to access the gateway port through the gateway Service, \
                 it will not be available."
            );
            let path = format!("spec.servers[{index}].port.number");
            let finding = about(gateway, Code::GATEWAY_PORT, path, message);
            out.push(finding.hint("add the port to the Service of the gateway"));
        }
    }
}

/// Ports of the Services of a pod, as clients and as the pod itself know them.
fn exposed(scene: &Scene<'_>, pod: &Resource<Pod>) -> Vec<PortNumber> {
    let services = scene.validated.services().values();
    let own = services.filter(|service| {
        let selector = &service.spec.selector;
        service.key.namespace == pod.key.namespace
            && !selector.is_empty()
            && is_subset_of(selector, &pod.meta.labels)
    });
    let ports = own.flat_map(|service| &service.spec.ports);
    ports
        .filter(|port| matches!(port.protocol.as_str(), "" | "TCP"))
        .flat_map(|port| {
            let target = match &port.target_port {
                Some(TargetPort::Number(number)) => Some(*number),
                Some(TargetPort::Name(name)) => pod.spec.container_port(name),
                None => None,
            };
            std::iter::once(port.port).chain(target)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use crate::validate::tests::findings;

    #[test]
    fn ports_of_other_gateways() {
        let text = |port: u16, labels: &str| {
            format!(
                "apiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {{name: g}}\nspec: {{selector: {{app: door}}, servers: [{{port: {{number: {port}, name: a, protocol: HTTP}}, hosts: ['*']}}]}}\n---\napiVersion: v1\nkind: Pod\nmetadata: {{name: p, labels: {labels}}}\n---\napiVersion: v1\nkind: Service\nmetadata: {{name: s}}\nspec: {{selector: {{app: door}}, ports: [{{port: 80, targetPort: 8080}}]}}\n"
            )
        };
        assert_eq!(findings(&text(80, "{app: door}")), Vec::<String>::new());
        assert_eq!(findings(&text(8080, "{app: door}")), Vec::<String>::new());
        assert_eq!(findings(&text(81, "{app: door}")), ["IST0162 spec.servers[0].port.number"]);
        assert_eq!(findings(&text(81, "{app: wall}")), ["IST0101 spec.selector"]);
    }
}
