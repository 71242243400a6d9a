//! Which policies are for this gateway (Istio: policyattachment.go `ShouldAttachPolicy`).
//!
//! Invariant: what counts are the namespace and the labels of the gateway's pods. A policy that names resources of the Gateway API
//! is for pods that serve such a Gateway, which their label says, and for no others.

use super::Identity;
use config_model::{
    istio::{PolicyTargetReference, WorkloadSelector},
    scalar::labels::is_subset_of,
};

/// Says of which Gateway of the Gateway API a pod is.
const GATEWAY_NAME: &str = "gateway.networking.k8s.io/gateway-name";

/// Whether a policy of a namespace is for the gateway.
pub(super) fn attaches(
    identity: &Identity,
    root: &str,
    namespace: &str,
    selector: Option<&WorkloadSelector>,
    targets: &[PolicyTargetReference],
) -> bool {
    if namespace != root && namespace != identity.namespace {
        return false;
    }
    if targets.is_empty() {
        return selector.is_none_or(|selector| is_subset_of(&selector.labels, &identity.labels));
    }
    let Some(gateway) = identity.labels.get(GATEWAY_NAME) else { return false };
    namespace == identity.namespace
        && targets.iter().any(|target| {
            let here = target.namespace.is_empty() || target.namespace == identity.namespace;
            here && target.is("gateway.networking.k8s.io", "Gateway") && target.name == *gateway
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(kind: &str, name: &str) -> PolicyTargetReference {
        let group = "gateway.networking.k8s.io".to_owned();
        PolicyTargetReference {
            group,
            kind: kind.to_owned(),
            name: name.to_owned(),
            namespace: String::new(),
        }
    }

    #[test]
    fn namespaces_and_labels() {
        let own = Identity::default();
        let selector =
            |value: &str| WorkloadSelector { labels: [("istio".to_owned(), value.to_owned())].into() };
        let applies = |root: &str, namespace: &str, selector: Option<&WorkloadSelector>| {
            attaches(&own, root, namespace, selector, &[])
        };
        assert!(applies("infra", "istio-system", None) && applies("infra", "infra", None));
        assert!(!applies("infra", "shop", None));
        assert!(applies("infra", "infra", Some(&selector("ingressgateway"))));
        assert!(!applies("infra", "istio-system", Some(&selector("egressgateway"))));
        assert!(applies("infra", "infra", Some(&WorkloadSelector::default())));
    }

    #[test]
    fn resources_of_the_gateway_api() {
        let own = Identity::default();
        let named = [target("Gateway", "edge")];
        assert!(!attaches(&own, "istio-system", "istio-system", None, &named));
        let mut of_edge = own;
        of_edge.labels.insert(GATEWAY_NAME.to_owned(), "edge".to_owned());
        assert!(attaches(&of_edge, "istio-system", "istio-system", None, &named));
        assert!(attaches(&of_edge, "istio-system", "istio-system", None, &[]));
        assert!(!attaches(&of_edge, "infra", "infra", None, &named), "only in the gateway's own namespace");
        assert!(!attaches(&of_edge, "istio-system", "istio-system", None, &[target("Gateway", "other")]));
        assert!(!attaches(&of_edge, "istio-system", "istio-system", None, &[target("GatewayClass", "edge")]));
    }
}
