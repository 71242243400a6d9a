//! Telemetries that select nothing or each other's pods, and those whose provider nobody knows (Istio: the analyzers in
//! pkg/config/analysis/analyzers/telemetry; that a provider is missing, istiod says in its log only).

use std::{collections::BTreeMap, sync::Arc};

use super::{Out, Scene, about, listed, missing};
use crate::{
    diagnostic::Code,
    istio::{Telemetry, telemetry::ProviderRef},
    mesh::ExtensionProvider,
    meta::Resource,
    scalar::labels::is_subset_of,
};

type Resources<'a> = Vec<&'a Arc<Resource<Telemetry>>>;

pub(super) fn check(scene: &Scene<'_>, out: Out<'_>) {
    without_selector(scene, out);
    selectors(scene, out);
    for resource in scene.validated.telemetries() {
        providers(scene, resource, out);
    }
}

/// Of several for one namespace the oldest holds, and nobody sees which that is.
fn without_selector(scene: &Scene<'_>, out: Out<'_>) {
    let mut by_namespace: BTreeMap<&str, Resources<'_>> = BTreeMap::new();
    for resource in scene.validated.telemetries() {
        if resource.spec.is_for_all() {
            by_namespace.entry(&resource.key.namespace).or_default().push(resource);
        }
    }
    for (namespace, resources) in by_namespace.into_iter().filter(|(_, resources)| resources.len() > 1) {
        let names = listed(names(&resources), ", ");
        for resource in &resources {
            let message = format!(
                "The Telemetries [{names}] in namespace {namespace:?} have no workload selector, which can lead to undefined behavior."
            );
            let hint = "the oldest of them holds; merge them, or give the others a selector";
            out.push(about(resource, Code::TELEMETRIES_WITHOUT_SELECTOR, "spec", message).hint(hint));
        }
    }
}

fn selectors(scene: &Scene<'_>, out: Out<'_>) {
    let mut by_pod: BTreeMap<(&str, &str), Resources<'_>> = BTreeMap::new();
    let own = scene.deployment;
    for resource in scene.validated.telemetries() {
        let Some(selector) = resource.spec.selector.as_ref().filter(|selector| !selector.labels.is_empty())
        else {
            continue;
        };
        let namespace = resource.key.namespace.as_str();
        let pods = scene.validated.pods().values();
        let mut found = false;
        for pod in pods.filter(|pod| pod.key.namespace == namespace) {
            if is_subset_of(&selector.labels, &pod.meta.labels) {
                found = true;
                by_pod.entry((namespace, &pod.key.name)).or_default().push(resource);
            }
        }
        let selects_this = own.namespace == namespace && is_subset_of(&selector.labels, &own.labels);
        // Without Pods in the configuration, whether others are selected is not known.
        if !found && !selects_this && !scene.validated.pods().is_empty() {
            let pairs = selector.labels.iter().map(|(key, value)| format!("{key}={value}"));
            let text = pairs.collect::<Vec<_>>().join(",");
            out.push(missing(resource, "spec.selector.matchLabels", "selector", &text));
        }
    }
    for ((namespace, pod), resources) in by_pod.into_iter().filter(|(_, resources)| resources.len() > 1) {
        let names = listed(names(&resources), ", ");
        for resource in &resources {
            let message = format!(
                "The Telemetries [{names}] in namespace {namespace:?} select the same workload pod {pod:?}, which can lead to undefined behavior."
            );
            let hint = "they go on top of each other, oldest first; select different pods, or merge them";
            out.push(
                about(resource, Code::CONFLICTING_TELEMETRIES, "spec.selector.matchLabels", message)
                    .hint(hint),
            );
        }
    }
}

fn names(resources: &[&Arc<Resource<Telemetry>>]) -> Vec<String> {
    let mut names: Vec<_> = resources.iter().map(|resource| resource.key.name.clone()).collect();
    names.sort_unstable();
    names
}

/// A provider that MeshConfig does not have, or that is for something else: such an entry has no effect.
fn providers(scene: &Scene<'_>, resource: &Resource<Telemetry>, out: Out<'_>) {
    let spec = &resource.spec;
    let mut check = |list: &str,
                     index: usize,
                     named: &[ProviderRef],
                     fits: fn(&ExtensionProvider) -> bool| {
        for (place, provider) in named.iter().enumerate().filter(|(_, provider)| !provider.name.is_empty()) {
            let path = format!("spec.{list}[{index}].providers[{place}].name");
            match scene.validated.mesh().provider(&provider.name) {
                None => out.push(
                    missing(resource, path, "provider", &provider.name)
                        .hint("add it to extensionProviders of MeshConfig, in the ConfigMap `istio`"),
                ),
                Some(known) if !fits(known) => {
                    let message = format!("The provider {:?} takes nothing of this", provider.name);
                    out.push(about(resource, Code::SCHEMA_WARNING, path, message));
                }
                Some(_) => {}
            }
        }
    };
    for (index, entry) in spec.tracing.iter().enumerate() {
        check("tracing", index, &entry.providers, ExtensionProvider::takes_traces);
    }
    for (index, entry) in spec.metrics.iter().enumerate() {
        check("metrics", index, &entry.providers, ExtensionProvider::takes_metrics);
    }
    for (index, entry) in spec.access_logging.iter().enumerate() {
        check("accessLogging", index, &entry.providers, ExtensionProvider::takes_logs);
    }
}

#[cfg(test)]
mod tests {
    use crate::validate::tests::findings;

    fn telemetry(name: &str, spec: &str) -> String {
        format!(
            "---\napiVersion: telemetry.istio.io/v1\nkind: Telemetry\nmetadata: {{name: {name}, namespace: istio-system}}\nspec: {spec}\n"
        )
    }

    fn found(text: &str) -> Vec<String> {
        findings(text)
    }

    const POD: &str = "---\napiVersion: v1\nkind: Pod\nmetadata: {name: p, namespace: istio-system, labels: {app: a, tier: b}}\n";
    const NONE: [&str; 0] = [];

    #[test]
    fn one_without_selector_for_a_namespace() {
        let one = telemetry("a", "{metrics: [{}]}");
        assert_eq!(found(&one), NONE);
        let two = one.clone() + &telemetry("b", "{selector: {matchLabels: {}}}");
        assert_eq!(found(&two), ["IST0160 spec", "IST0160 spec", "IST0133 spec.selector"]);
        assert_eq!(found(&(one + &telemetry("b", "{targetRefs: [{kind: Service, name: s}]}"))), NONE);
    }

    #[test]
    fn selectors_select_and_do_not_overlap() {
        let first = telemetry("a", "{selector: {matchLabels: {app: a}}}");
        assert_eq!(found(&first), NONE);
        assert_eq!(found(&(first.clone() + POD)), NONE);
        let other = telemetry("b", "{selector: {matchLabels: {tier: c}}}");
        assert_eq!(found(&(other + POD)), ["IST0101 spec.selector.matchLabels"]);
        let own = telemetry("c", "{selector: {matchLabels: {istio: ingressgateway}}}");
        assert_eq!(found(&(own + POD)), NONE);
        let same = telemetry("b", "{selector: {matchLabels: {tier: b}}}");
        assert_eq!(
            found(&(first + &same + POD)),
            ["IST0159 spec.selector.matchLabels", "IST0159 spec.selector.matchLabels"]
        );
    }

    #[test]
    fn providers_are_known_and_take_what_they_are_given() {
        let unknown = telemetry("a", "{metrics: [{providers: [{name: mine}]}]}");
        assert_eq!(found(&unknown), ["IST0101 spec.metrics[0].providers[0].name"]);
        let wrong = telemetry("a", "{metrics: [{providers: [{name: envoy}]}]}");
        assert_eq!(found(&wrong), ["IST0133 spec.metrics[0].providers[0].name"]);
    }
}
