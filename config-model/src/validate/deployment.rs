//! Where a configuration will be served: what a check has to know besides the resources.

use std::collections::BTreeMap;

use super::references::Reader;
use crate::{
    istio::Gateway,
    meta::Resource,
    scalar::{
        Timestamp,
        labels::{is_subset_of, selects},
    },
};

/// The gateway that the configuration is for, and the time that its certificates are judged at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deployment {
    /// Namespace of the gateway's pods.
    pub namespace: String,
    /// Labels of the gateway's pods.
    pub labels: BTreeMap<String, String>,
    /// The time; `None` judges no certificate by its dates.
    pub now: Option<Timestamp>,
}

impl Default for Deployment {
    /// Istio's own ingress gateway, at no time.
    fn default() -> Deployment {
        let label = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        Deployment {
            namespace: "istio-system".to_owned(),
            labels: [label("app", "istio-ingressgateway"), label("istio", "ingressgateway")].into(),
            now: None,
        }
    }
}

/// The pods that serve a Gateway, as far as they can be known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pods<'a> {
    /// They are in this namespace.
    In(&'a str),
    /// Pods are known, and none of them serves it.
    None,
    /// No pod is known, and the gateway that is asked for does not serve it.
    Unknown,
}

impl Deployment {
    /// Whether both are of one gateway, at whatever times.
    pub(super) fn is_like(&self, other: &Deployment) -> bool {
        self.namespace == other.namespace
            && self.labels == other.labels
            && self.now.is_some() == other.now.is_some()
    }

    /// Whether this gateway serves the Gateway.
    pub(super) fn serves(&self, gateway: &Resource<Gateway>) -> bool {
        selects(gateway.spec.selector.as_ref(), &self.labels)
    }

    /// The pods that serve a Gateway: this gateway's, if it does, else whichever there are.
    pub(super) fn pods<'a>(&'a self, gateway: &Resource<Gateway>, validated: &Reader<'a>) -> Pods<'a> {
        if self.serves(gateway) {
            return Pods::In(&self.namespace);
        }
        let selector = gateway.spec.selector.as_ref();
        let pods = validated.pods();
        let serves = |labels| selector.is_none_or(|selector| is_subset_of(selector, labels));
        match pods.values().find(|pod| serves(&pod.meta.labels)) {
            Some(pod) => Pods::In(&pod.key.namespace),
            None if pods.is_empty() => Pods::Unknown,
            None => Pods::None,
        }
    }
}
