//! VirtualServices with a wildcard host on a shared gateway, and what other namespaces serve below it.
//!
//! The more specific name wins, so a wildcard takes nothing away while the other VirtualService is there; where a server names
//! the specific host itself, both end in one list of rules, and then the older one goes first.

use std::collections::{BTreeMap, BTreeSet};

use super::{Out, Scene, about, gateway_key, gateways::admits, name_of};
use crate::{
    diagnostic::{Code, Severity},
    istio::VirtualService,
    meta::{Resource, ResourceKey},
    scalar::HostPattern,
};

/// Most hosts that are named in one finding.
const SHOWN: usize = 3;

/// Hosts of one Gateway, turned round so that those below a suffix stand together.
type Names<'a> = BTreeMap<String, Vec<(&'a HostPattern, &'a Resource<VirtualService>)>>;

pub(super) fn check(scene: &Scene<'_>, out: Out<'_>) {
    let wildcards = scene.virtual_services().filter(|(_, facts)| facts.has_wildcard);
    // Of other Gateways nothing is asked.
    let mut by_gateway: BTreeMap<ResourceKey, Names<'_>> = wildcards
        .clone()
        .flat_map(|(resource, _)| gateways(resource))
        .map(|key| (key, Names::new()))
        .collect();
    if by_gateway.is_empty() {
        return;
    }
    for (resource, _) in scene.virtual_services() {
        for gateway in gateways(resource) {
            let Some(names) = by_gateway.get_mut(&gateway) else { continue };
            for host in &resource.spec.hosts {
                names.entry(reversed(host.as_str())).or_default().push((host, resource));
            }
        }
    }
    for (resource, _) in wildcards {
        for (index, host) in resource.spec.hosts.iter().enumerate() {
            if host.is_wildcard() {
                below(scene, resource, index, host, &by_gateway, out);
            }
        }
    }
}

fn gateways(resource: &Resource<VirtualService>) -> impl Iterator<Item = ResourceKey> + '_ {
    let named = resource.spec.gateways.iter();
    named.filter_map(|entry| gateway_key(entry, &resource.key.namespace))
}

fn reversed(host: &str) -> String {
    host.chars().rev().collect()
}

fn below(
    scene: &Scene<'_>,
    resource: &Resource<VirtualService>,
    index: usize,
    host: &HostPattern,
    by_gateway: &BTreeMap<ResourceKey, Names<'_>>,
    out: Out<'_>,
) {
    let mut covered: BTreeSet<String> = BTreeSet::new();
    let mut severity = Severity::Info;
    for key in gateways(resource) {
        let (Some(names), Some(gateway)) = (by_gateway.get(&key), scene.validated.gateway(&key)) else {
            continue;
        };
        let start = reversed(host.suffix().unwrap_or_default());
        let all = names.range(start.clone()..).take_while(|(name, _)| name.starts_with(&start));
        let all = all.flat_map(|(_, list)| list);
        for (other, theirs) in all.filter(|(other, theirs)| {
            theirs.key.namespace != resource.key.namespace && *other != host && host.covers(other)
        }) {
            let (own, their) = (resource.key.namespace.as_str(), theirs.key.namespace.as_str());
            // A server with the very name: both VirtualServices get it, whatever the width of their own hosts.
            let merged = gateway.spec.servers.iter().any(|server| {
                server.hosts.iter().any(|of_server| other.covers(of_server.host()))
                    && admits(gateway, server, own, host)
                    && admits(gateway, server, their, other)
            });
            if merged {
                severity = Severity::Warning;
            }
            covered.insert(format!("{} of {}", other.as_str(), name_of(theirs)));
            if covered.len() > SHOWN {
                break;
            }
        }
    }
    if covered.is_empty() {
        return;
    }
    let more = if covered.len() > SHOWN { ", and more" } else { "" };
    let list: Vec<String> = covered.into_iter().take(SHOWN).collect();
    let effect = match severity {
        Severity::Warning => {
            "a server of the gateway has such a host itself, so that both get its requests and the older VirtualService goes first"
        }
        _ => "the narrower host wins while it is there, and its requests come here when it goes",
    };
    let message = format!(
        "host {:?} also stands for hosts of other namespaces on the same gateway: {}{more}; {effect}",
        host.as_str(),
        list.join(", ")
    );
    let finding = about(resource, Code::WILDCARD_SHADOWS, format!("spec.hosts[{index}]"), message);
    out.push(
        finding
            .severity(severity)
            .hint("let the Gateway's hosts say which namespace may have which name: \"namespace/host\""),
    );
}

#[cfg(test)]
mod tests {
    use crate::validate::tests::run;

    fn found(server: &str, wide: &str, narrow: &str, namespace: &str) -> Vec<String> {
        let gateway = format!(
            "apiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {{name: g, namespace: infra}}\nspec: {{servers: [{{port: {{number: 80, name: http, protocol: HTTP}}, hosts: ['{server}']}}]}}\n"
        );
        let vs = |namespace: &str, host: &str| {
            format!(
                "---\napiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: v-{namespace}, namespace: {namespace}}}\nspec: {{hosts: ['{host}'], gateways: [infra/g], http: [{{match: [{{uri: {{exact: /}}}}], directResponse: {{status: 200}}}}]}}\n"
            )
        };
        let (_, found) = run(&(gateway + &vs("a", wide) + &vs(namespace, narrow)));
        found.into_iter().map(|d| format!("{} {} {}", d.severity, d.code, d.path)).collect()
    }

    #[test]
    fn wildcards_over_other_namespaces() {
        assert_eq!(found("*", "*.a.com", "x.a.com", "b"), ["Info LIM0022 spec.hosts[0]"]);
        assert_eq!(found("x.a.com", "*.a.com", "x.a.com", "b"), ["Warning LIM0022 spec.hosts[0]"]);
        assert_eq!(found("x.a.com", "*", "x.a.com", "b"), ["Warning LIM0022 spec.hosts[0]"]);
        assert_eq!(found("*", "*.a.com", "x.b.com", "b"), Vec::<String>::new());
        assert_eq!(found("*", "x.a.com", "x.a.com", "b"), Vec::<String>::new());
    }
}
