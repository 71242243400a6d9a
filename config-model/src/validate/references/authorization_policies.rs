//! AuthorizationPolicies for no pod, and namespaces in them that do not exist (Istio: the analyzer in
//! pkg/config/analysis/analyzers/authz).
//!
//! Invariant: what is not known is not judged: without Pods in the configuration nobody knows whom a policy is for, and without
//! Namespaces which there are. The gateway itself is always known.

use super::{Out, Scene, about, missing};
use crate::{
    diagnostic::Code,
    istio::AuthorizationPolicy,
    meta::{Kind, Resource, ResourceKey},
    scalar::labels::is_subset_of,
};

pub(super) fn check(scene: &Scene<'_>, out: Out<'_>) {
    for resource in scene.validated.authorization_policies() {
        workloads(scene, resource, out);
        namespaces(scene, resource, out);
    }
}

/// Whether there is anybody whom a policy is for. One of the root namespace without a selector is for everybody.
fn workloads(scene: &Scene<'_>, resource: &Resource<AuthorizationPolicy>, out: Out<'_>) {
    if !resource.spec.targets().is_empty() || scene.validated.pods().is_empty() {
        return;
    }
    let own = resource.key.namespace.as_str();
    let of_mesh = own == scene.validated.mesh().root_namespace;
    let selector = resource.spec.selector.as_ref();
    if of_mesh && selector.is_none() {
        return;
    }
    let gateway = (&scene.deployment.namespace, &scene.deployment.labels);
    let pods = scene.validated.pods().values().map(|pod| (&pod.key.namespace, &pod.meta.labels));
    let found = pods.chain([gateway]).any(|(namespace, labels)| {
        (of_mesh || namespace == own)
            && selector.is_none_or(|selector| is_subset_of(&selector.labels, labels))
    });
    if !found {
        let pairs = selector.iter().flat_map(|selector| &selector.labels);
        let labels = pairs.map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(",");
        let message = format!("No matching workloads for this resource with the following labels: {labels}");
        let path = if selector.is_some() { "spec.selector.matchLabels" } else { "spec" };
        out.push(about(resource, Code::NO_MATCHING_WORKLOADS, path, message));
    }
}

fn namespaces(scene: &Scene<'_>, resource: &Resource<AuthorizationPolicy>, out: Out<'_>) {
    if scene.validated.namespaces().is_empty() {
        return;
    }
    for (rule, written) in resource.spec.rules.iter().enumerate() {
        let sources = written.from.iter().enumerate();
        let sources = sources.filter_map(|(at, from)| Some((at, from.source.as_ref()?)));
        for (from, source) in sources {
            for (at, name) in source.namespaces.iter().enumerate() {
                // A pattern may stand for any.
                let known = name.contains('*')
                    || scene.validated.contains(&ResourceKey::new(Kind::Namespace, "", name.as_str()));
                if !known {
                    let path = format!("spec.rules[{rule}].from[{from}].source.namespaces[{at}]");
                    out.push(missing(resource, path, "namespace", name));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::validate::tests::findings;

    fn policy(namespace: &str, spec: &str) -> String {
        format!(
            "---\napiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{name: p, namespace: {namespace}}}\nspec: {{{spec}}}\n"
        )
    }

    const POD: &str = "---\napiVersion: v1\nkind: Pod\nmetadata: {name: a-1, namespace: shop, labels: {app: a, version: v1}}\n";
    const NONE: [&str; 0] = [];

    #[test]
    fn a_policy_is_for_somebody() {
        let a = "selector: {matchLabels: {app: a}}, rules: [{}]";
        let b = "selector: {matchLabels: {app: b}}, rules: [{}]";
        let own = "selector: {matchLabels: {istio: ingressgateway}}, rules: [{}]";
        let target = "targetRefs: [{kind: Service, name: b}], rules: [{}]";
        for (namespace, spec, wants) in [
            ("shop", a, None),
            ("shop", b, Some("IST0127 spec.selector.matchLabels")),
            ("shop", "rules: [{}]", None),
            ("empty", "rules: [{}]", Some("IST0127 spec")),
            ("empty", a, Some("IST0127 spec.selector.matchLabels")),
            ("istio-system", "rules: [{}]", None),
            ("istio-system", a, None),
            ("istio-system", b, Some("IST0127 spec.selector.matchLabels")),
            ("istio-system", own, None),
            ("shop", own, Some("IST0127 spec.selector.matchLabels")),
            ("shop", target, None),
        ] {
            let found = findings(&(policy(namespace, spec) + POD));
            assert_eq!(found, wants.into_iter().collect::<Vec<_>>(), "{namespace}: {spec}");
            assert_eq!(findings(&policy(namespace, spec)), NONE, "without Pods nobody knows");
        }
    }

    #[test]
    fn namespaces_exist() {
        let rules = "rules: [{from: [{source: {namespaces: [shop, gone, 'g*']}}]}, {from: [{source: {notNamespaces: [gone]}}]}]";
        let text = policy("istio-system", rules);
        assert_eq!(findings(&text), NONE, "without Namespaces nobody knows");
        let namespace = "---\napiVersion: v1\nkind: Namespace\nmetadata: {name: shop}\n";
        assert_eq!(findings(&(text + namespace)), ["IST0101 spec.rules[0].from[0].source.namespaces[1]"]);
    }
}
