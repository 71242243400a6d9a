//! Several VirtualServices for one host.
//!
//! In the mesh only one of them takes effect (Istio: ConflictingMeshGatewayHostsAnalyzer). On a gateway their rules are merged, so
//! that only a second rule for every request is lost; Istio does not say so, and here it is a warning.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use super::{Out, Scene, about, listed, name_of, resolve_gateway_name, resolve_short_name, scopes};
use crate::{
    diagnostic::{Code, Severity},
    istio::{
        VirtualService,
        virtual_service::{HttpMatchRequest, HttpRoute},
    },
    meta::Resource,
    scalar::StringMatch,
};

type Claims<'a> = BTreeMap<Arc<str>, Vec<&'a Arc<Resource<VirtualService>>>>;

/// Namespace and name of a Gateway, and a host.
type HostOfGateway<'a> = (&'a str, &'a str, Arc<str>);

pub(super) fn check(scene: &Scene<'_>, out: Out<'_>) {
    in_mesh(scene, out);
    on_gateways(scene, out);
}

fn in_mesh(scene: &Scene<'_>, out: Out<'_>) {
    let mut by_scope: BTreeMap<&str, Claims<'_>> = BTreeMap::new();
    for (resource, _) in scene.virtual_services().filter(|(_, facts)| facts.in_mesh) {
        let spec = &resource.spec;
        for scope in scopes(&resource.spec.export_to, &resource.key.namespace) {
            for host in &spec.hosts {
                let host = resolve_short_name(host, &resource.key.namespace, scene.domain());
                by_scope.entry(scope).or_default().entry(host).or_default().push(resource);
            }
        }
    }
    let everyone = by_scope.get("*").cloned().unwrap_or_default();
    let mut said = BTreeSet::new();
    for (scope, claims) in &by_scope {
        for (host, own) in claims {
            let mut all = own.clone();
            if *scope != "*" {
                let others = covering(&everyone, host);
                all.extend(others);
            }
            // Most hosts are named once.
            if all.len() < 2 {
                continue;
            }
            let names: BTreeSet<String> = all.iter().map(|resource| name_of(resource)).collect();
            if names.len() < 2 {
                continue;
            }
            let names = listed(names, ",");
            for resource in all {
                if !said.insert(&resource.key) {
                    continue;
                }
                let message = format!(
                    "The VirtualServices {names} associated with mesh gateway define the same host {scope}/{host} which can lead \
                     to undefined behavior. This can be fixed by merging the conflicting VirtualServices into a single resource."
                );
                out.push(about(resource, Code::CONFLICTING_HOSTS, "spec.hosts", message));
            }
        }
    }
}

/// The VirtualServices for everybody whose host overlaps this one.
fn covering<'a>(everyone: &Claims<'a>, host: &str) -> Vec<&'a Arc<Resource<VirtualService>>> {
    if host.starts_with('*') {
        let suffix = host.trim_start_matches('*');
        return everyone
            .iter()
            .filter(|(other, _)| match other.strip_prefix('*') {
                Some(of_other) => of_other.ends_with(suffix) || suffix.ends_with(of_other),
                None => other.ends_with(suffix),
            })
            .flat_map(|(_, claims)| claims.iter().copied())
            .collect();
    }
    let wildcards =
        host.char_indices().filter_map(|(at, _)| host.get(at..)).map(|suffix| format!("*{suffix}"));
    let names = std::iter::once(host.to_owned()).chain(wildcards);
    names.filter_map(|name| everyone.get(name.as_str())).flatten().copied().collect()
}

/// On a gateway: the second rule that takes every request of a host.
fn on_gateways(scene: &Scene<'_>, out: Out<'_>) {
    let mut taken: HashMap<HostOfGateway<'_>, &Arc<Resource<VirtualService>>> = HashMap::new();
    for (resource, facts) in scene.virtual_services() {
        let own = resource.key.namespace.as_str();
        let Some(rule) = facts.takes_all else { continue };
        let mut lost: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for entry in &resource.spec.gateways {
            let Some((namespace, name)) = resolve_gateway_name(entry, own) else { continue };
            for host in &resource.spec.hosts {
                let host = resolve_short_name(host, own, scene.domain());
                let first = *taken.entry((namespace, name, Arc::clone(&host))).or_insert(resource);
                if !std::ptr::eq(first, resource) && sees(first, resource) {
                    lost.entry(name_of(first)).or_default().insert(host.to_string());
                }
            }
        }
        for (first, hosts) in lost {
            let hosts: Vec<String> = hosts.into_iter().collect();
            let message = format!(
                "VirtualService {first}, which is older, has a rule for every request of {} on the same gateway, so that this \
                 rule is not used there",
                hosts.join(", ")
            );
            let finding = about(resource, Code::CONFLICTING_HOSTS, format!("spec.http[{rule}]"), message);
            out.push(
                finding.severity(Severity::Warning).hint("leave one rule without matches for each host"),
            );
        }
    }
}

/// Whether some namespace sees both.
fn sees<'r>(a: &'r Resource<VirtualService>, b: &'r Resource<VirtualService>) -> bool {
    let of =
        |resource: &'r Resource<VirtualService>| scopes(&resource.spec.export_to, &resource.key.namespace);
    let (a, b) = (of(a), of(b));
    a.contains("*") || b.contains("*") || !a.is_disjoint(&b)
}

/// No match, or one that demands nothing.
pub(super) fn takes_all(route: &HttpRoute) -> bool {
    let any = |entry: &HttpMatchRequest| {
        let every = match &entry.uri {
            None => true,
            Some(StringMatch::Prefix(prefix)) => prefix == "/",
            Some(_) => false,
        };
        let bare =
            HttpMatchRequest { uri: entry.uri.clone(), name: entry.name.clone(), ..Default::default() };
        every && *entry == bare
    };
    route.delegate.is_none() && (route.matches.is_empty() || route.matches.iter().any(any))
}

#[cfg(test)]
mod tests {
    use crate::validate::tests::findings;

    fn two(first: &str, second: &str) -> Vec<String> {
        let vs = |name: &str, spec: &str| {
            format!(
                "---\napiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: {name}}}\nspec: {{{spec}, http: [{{directResponse: {{status: 200}}}}]}}\n"
            )
        };
        let mut found = findings(&(vs("a", first) + &vs("b", second)));
        found.retain(|line| line.contains("IST0109"));
        found
    }

    #[test]
    fn the_mesh_takes_one() {
        let both = ["IST0109 spec.hosts", "IST0109 spec.hosts"];
        assert_eq!(two("hosts: [a.com]", "hosts: [a.com]"), both);
        assert_eq!(two("hosts: [a]", "hosts: [a.default.svc.cluster.local]"), both);
        assert_eq!(two("hosts: [a.com]", "hosts: [b.com]"), Vec::<String>::new());
        assert_eq!(two("hosts: [a.com], exportTo: ['.']", "hosts: ['*.com']"), both);
        assert_eq!(
            two("hosts: [a.com], exportTo: [x]", "hosts: [a.com], exportTo: [y]"),
            Vec::<String>::new()
        );
    }

    #[test]
    fn a_gateway_merges_but_for_the_last_rule() {
        assert_eq!(
            two("hosts: [a.com], gateways: [g]", "hosts: [a.com], gateways: [g]"),
            ["IST0109 spec.http[0]"]
        );
        assert_eq!(
            two("hosts: [a.com], gateways: [g]", "hosts: [a.com], gateways: [h]"),
            Vec::<String>::new()
        );
        assert_eq!(two("hosts: [a.com], gateways: [g]", "hosts: [a.com]"), Vec::<String>::new());
    }
}
