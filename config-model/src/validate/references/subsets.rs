//! Subset rules that requests through a gateway do not meet (Istio: DestinationHostAnalyzer, IST0140).

use std::{collections::BTreeMap, sync::Arc};

use super::{Out, Scene, about, name_of, resolve_short_name};
use crate::diagnostic::Code;

/// A VirtualService that sends requests from a gateway to a host without a subset, while another one for that very host chooses
/// among subsets: the other one is for sidecars, and the gateway does not ask it.
pub(super) fn check(scene: &Scene<'_>, out: Out<'_>) {
    let domain = scene.domain();
    let mut choosing: BTreeMap<Arc<str>, Vec<String>> = BTreeMap::new();
    for (resource, _) in scene.virtual_services().filter(|(_, facts)| facts.chooses_in_mesh) {
        let own = &resource.key.namespace;
        let resolve = |host| resolve_short_name(host, own, domain);
        let hosts: Vec<Arc<str>> = resource.spec.hosts.iter().map(resolve).collect();
        let destinations = resource.spec.http.iter().flat_map(|rule| &rule.route).map(|to| &to.destination);
        for destination in destinations.filter(|destination| !destination.subset.is_empty()) {
            let host = resolve(&destination.host);
            let names = if hosts.contains(&host) { choosing.entry(host).or_default() } else { continue };
            let name = name_of(resource);
            if names.last() != Some(&name) {
                names.push(name);
            }
        }
    }
    if choosing.is_empty() {
        return;
    }
    let of_gateways = scene.virtual_services().filter(|(resource, _)| !resource.spec.gateways.is_empty());
    for (resource, _) in of_gateways {
        let own = name_of(resource);
        for (rule, route) in resource.spec.http.iter().enumerate() {
            for (index, to) in route.route.iter().enumerate() {
                let destination = &to.destination;
                let host = resolve_short_name(&destination.host, &resource.key.namespace, domain);
                let others = choosing.get(&host).filter(|_| destination.subset.is_empty());
                for other in others.into_iter().flatten().filter(|other| **other != own) {
                    let message = format!(
                        "Subset in virtual service {other} has no effect on ingress gateway {own} requests"
                    );
                    let path = format!("spec.http[{rule}].route[{index}].destination.host");
                    let finding = about(resource, Code::INGRESS_SUBSET, path, message);
                    out.push(
                        finding.hint(
                            "name the subset here too, or bind the other VirtualService to the gateway",
                        ),
                    );
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::validate::tests::findings;

    #[test]
    fn subsets_of_the_mesh() {
        let vs = |name: &str, spec: &str, to: &str| {
            format!(
                "---\napiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: {name}}}\nspec: {{{spec}, http: [{{route: [{{destination: {to}}}]}}]}}\n"
            )
        };
        let find = |text: String| {
            let mut found = findings(&text);
            found.retain(|line| line.contains("IST0140"));
            found
        };
        let mesh = vs("a", "hosts: [s]", "{host: s, subset: v1}");
        let door = vs("b", "hosts: [a.com], gateways: [g]", "{host: s.default.svc.cluster.local}");
        assert_eq!(find(mesh.clone() + &door), ["IST0140 spec.http[0].route[0].destination.host"]);
        let named = vs("b", "hosts: [a.com], gateways: [g]", "{host: s, subset: v1}");
        assert_eq!(find(mesh + &named), Vec::<String>::new());
        assert_eq!(find(door), Vec::<String>::new());
    }
}
