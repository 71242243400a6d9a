//! Matches of claims behind gateways that check no token (Istio: JWTClaimRouteAnalyzer, IST0149).
//!
//! Claims are known of tokens that were checked, so without a RequestAuthentication such a match takes no request.

use std::collections::BTreeMap;

use super::{Out, Scene, about, gateway_key};
use crate::{
    diagnostic::Code,
    istio::{Gateway, VirtualService},
    meta::Resource,
    scalar::labels::{is_subset_of, selects},
    validate::virtual_service::matching::is_claim,
};

pub(super) fn check(scene: &Scene<'_>, out: Out<'_>) {
    for (resource, facts) in scene.virtual_services() {
        let Some((path, claim)) = facts.claim.as_deref() else { continue };
        let named = resource.spec.gateways.iter();
        for key in named.filter_map(|entry| gateway_key(entry, &resource.key.namespace)) {
            let gateway = scene.validated.gateway(&key);
            let Some(pod) = gateway.and_then(|gateway| unchecked(scene, gateway)) else { continue };
            let message = format!(
                "The virtual service uses the JWT claim based routing (key: {claim}) but found no request authentication for the \
                 gateway ({}/{}) pod ({pod}). The request authentication must first be applied for the gateway pods to validate \
                 the JWT token and make the claims available for routing.",
                key.namespace, key.name
            );
            let finding = about(resource, Code::CLAIMS_WITHOUT_AUTHENTICATION, path.as_str(), message);
            out.push(finding.hint("add a RequestAuthentication whose selector has labels of these pods"));
        }
    }
}

/// The first match of a claim: its path and the claim.
pub(super) fn first_claim(spec: &VirtualService) -> Option<(String, String)> {
    spec.http.iter().enumerate().find_map(|(rule, route)| {
        route.matches.iter().enumerate().find_map(|(index, entry)| {
            let with = entry.headers.keys().map(|name| ("headers", name));
            let without = entry.without_headers.keys().map(|name| ("withoutHeaders", name));
            let (field, name) = with.chain(without).find(|(_, name)| is_claim(name))?;
            Some((format!("spec.http[{rule}].match[{index}].{field}.{name}"), name.clone()))
        })
    })
}

/// A pod of the Gateway that checks no token. Where no pod of it is known, this gateway's own stands for them.
fn unchecked<'s>(scene: &'s Scene<'_>, gateway: &Resource<Gateway>) -> Option<&'s str> {
    let selector = gateway.spec.selector.as_ref();
    let pods = scene.validated.pods().values().filter(|pod| selects(selector, &pod.meta.labels));
    let mut pods = pods.peekable();
    if pods.peek().is_none() {
        let own = scene.deployment;
        let unchecked = own.serves(gateway) && !checks_tokens(scene, &own.namespace, &own.labels);
        return unchecked.then_some("of this gateway");
    }
    pods.find(|pod| !checks_tokens(scene, &pod.key.namespace, &pod.meta.labels))
        .map(|pod| pod.key.name.as_str())
}

/// Whether a RequestAuthentication of the pod's namespace or of the whole mesh selects a pod.
fn checks_tokens(scene: &Scene<'_>, namespace: &str, labels: &BTreeMap<String, String>) -> bool {
    let root = scene.validated.mesh().root_namespace.as_str();
    scene.validated.request_authentications().iter().any(|resource| {
        let own = resource.key.namespace.as_str();
        let selector = resource.spec.selector.as_ref();
        (own == namespace || own == root)
            && resource.spec.is_for_pods()
            && selector.is_none_or(|selector| is_subset_of(&selector.labels, labels))
    })
}

#[cfg(test)]
mod tests {
    use crate::validate::tests::findings;

    const ROUTE: &str = "apiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {name: g}\nspec: {selector: {istio: ingressgateway}, servers: [{port: {number: 80, name: a, protocol: HTTP}, hosts: [a.com]}]}\n---\napiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: v}\nspec: {hosts: [a.com], gateways: [g], http: [{match: [{uri: {exact: /}}, {withoutHeaders: {'@request.auth.claims.a': {exact: b}}}], directResponse: {status: 200}}]}\n";

    fn found(namespace: &str, spec: &str) -> Vec<String> {
        let policy = format!(
            "---\napiVersion: security.istio.io/v1\nkind: RequestAuthentication\nmetadata: {{name: r, namespace: {namespace}}}\nspec: {spec}\n"
        );
        findings(&format!("{ROUTE}{policy}"))
    }

    #[test]
    fn claims_need_checked_tokens() {
        let missing = ["IST0149 spec.http[0].match[1].withoutHeaders.@request.auth.claims.a"];
        assert_eq!(findings(ROUTE), missing);
        let none = Vec::<String>::new();
        assert_eq!(found("istio-system", "{jwtRules: [{issuer: a}]}"), none);
        assert_eq!(found("istio-system", "{selector: {matchLabels: {istio: ingressgateway}}}"), none);
        assert_eq!(found("istio-system", "{selector: {matchLabels: {istio: other}}}"), missing);
        assert_eq!(
            found(
                "istio-system",
                "{targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: g}]}"
            ),
            missing
        );
        assert_eq!(found("shop", "{jwtRules: [{issuer: a}]}"), missing);
        assert_eq!(
            findings(&ROUTE.replace("gateways: [g]", "gateways: [g, mesh]"))[0],
            "!IST0106 spec.http[0].match[1].withoutHeaders.@request.auth.claims.a"
        );
    }

    #[test]
    fn pods_that_are_known_count() {
        let pod = "---\napiVersion: v1\nkind: Pod\nmetadata: {name: p, namespace: edge, labels: {istio: ingressgateway, tier: front}}\n";
        let policy = "---\napiVersion: security.istio.io/v1\nkind: RequestAuthentication\nmetadata: {name: r, namespace: edge}\nspec: {selector: {matchLabels: {tier: front}}}\n";
        assert_eq!(findings(&format!("{ROUTE}{pod}")).len(), 1);
        assert_eq!(findings(&format!("{ROUTE}{pod}{policy}")), Vec::<String>::new());
        assert_eq!(findings(&format!("{ROUTE}{policy}")).len(), 1);
    }
}
