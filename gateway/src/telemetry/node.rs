//! Where the gateway runs, in the words that traces and logs have for it.
//!
//! Invariant: found out once, when the process starts; nothing here is read from a request.

use config_model::mesh::{ProxyConfig, TracingServiceName, provider::ServiceAttributeEnrichment};
use std::{collections::BTreeMap, net::IpAddr};

/// One gateway of a Deployment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Node {
    /// Its namespace.
    pub namespace: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Name of the pod, or of the machine.
    pub pod: String,
    /// Address of the pod.
    pub ip: Option<IpAddr>,
    /// Name of its Deployment, where known.
    pub workload: String,
    /// Id of the mesh.
    pub mesh_id: String,
    /// Id of the cluster in the sense of Kubernetes.
    pub cluster_id: String,
    /// The cluster's DNS domain.
    pub domain: String,
}

impl Node {
    /// Envoy's id of the proxy, as Istio makes it.
    #[must_use]
    pub fn id(&self) -> String {
        let ip = self.ip.map(|ip| ip.to_string()).unwrap_or_default();
        let Self { pod, namespace, domain, .. } = self;
        format!("router~{ip}~{pod}.{namespace}~{namespace}.svc.{domain}")
    }

    /// The first of these labels that it has.
    fn label(&self, names: &[&str]) -> Option<&str> {
        names.iter().find_map(|name| self.labels.get(*name)).map(String::as_str)
    }

    fn canonical_service(&self) -> Option<&str> {
        self.label(&["service.istio.io/canonical-name", "app.kubernetes.io/name", "app"])
    }

    /// Its name in traces (Istio: bootstrap/config.go `getServiceCluster`).
    #[must_use]
    pub fn service_name(&self, proxy: &ProxyConfig) -> String {
        let canonical = || self.canonical_service().unwrap_or(self.or_istio_proxy());
        let given = match (&proxy.service_cluster, proxy.tracing_service_name) {
            (Some(name), _) if !name.is_empty() && name != "istio-proxy" => name.clone(),
            (_, TracingServiceName::CanonicalNameOnly) => canonical().to_owned(),
            (_, TracingServiceName::CanonicalNameAndNamespace) => {
                return format!("{}.{}", canonical(), self.namespace);
            }
            (_, TracingServiceName::AppLabelAndNamespace) => String::new(),
        };
        if !given.is_empty() && given != "istio-proxy" {
            return given;
        }
        let app = self.label(&["app", "app.kubernetes.io/name", "service.istio.io/canonical-name"]);
        format!("{}.{}", app.unwrap_or(self.or_istio_proxy()), self.namespace)
    }

    fn or_istio_proxy(&self) -> &str {
        if self.workload.is_empty() { "istio-proxy" } else { &self.workload }
    }

    /// The same as a collector's provider asks for it (Istio: tracing.go `otelServiceName`).
    #[must_use]
    pub fn otel_service_name(&self, proxy: &ProxyConfig, how: ServiceAttributeEnrichment) -> String {
        if how == ServiceAttributeEnrichment::IstioCanonical {
            return self.service_name(proxy);
        }
        let of_label = self.label(&["app.kubernetes.io/instance", "app.kubernetes.io/name"]);
        let rest = [self.workload.as_str(), self.pod.as_str(), "unknown_service"];
        of_label.into_iter().chain(rest).find(|name| !name.is_empty()).unwrap_or_default().to_owned()
    }

    /// Istio's own tags of every span (Istio: tracing.go `buildServiceTags`).
    pub(super) fn tags(&self) -> [(String, String); 5] {
        let or_unknown = |text: &str| if text.is_empty() { "unknown".to_owned() } else { text.to_owned() };
        let own = |name: &str| self.labels.get(name).cloned().unwrap_or_default();
        let revision = own("service.istio.io/canonical-revision");
        [
            ("istio.canonical_revision", if revision.is_empty() { "latest".to_owned() } else { revision }),
            ("istio.canonical_service", or_unknown(&own("service.istio.io/canonical-name"))),
            ("istio.mesh_id", or_unknown(&self.mesh_id)),
            ("istio.namespace", self.namespace.clone()),
            ("istio.cluster_id", or_unknown(&self.cluster_id)),
        ]
        .map(|(name, value)| (name.to_owned(), value))
    }
}

/// What `OTEL_RESOURCE_ATTRIBUTES` says: `key=value` pairs, percent-encoded (OpenTelemetry: Resource SDK).
pub(super) fn resource_attributes(text: &str) -> Vec<(String, String)> {
    let pairs = text.split(',').filter_map(|pair| pair.split_once('='));
    pairs
        .map(|(key, value)| (key.trim().to_owned(), decoded(value.trim())))
        .filter(|(key, _)| !key.is_empty())
        .collect()
}

fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        let ahead: Vec<u8> = rest.clone().take(2).collect();
        let digits = std::str::from_utf8(&ahead).ok().filter(|digits| byte == b'%' && digits.len() == 2);
        match digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(decoded) => {
                bytes.push(decoded);
                rest.nth(1);
            }
            None => bytes.push(byte),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(labels: &[(&str, &str)]) -> Node {
        Node {
            namespace: "istio-system".to_owned(),
            labels: labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
            pod: "gw-1".to_owned(),
            ip: Some([10, 0, 0, 1].into()),
            domain: "cluster.local".to_owned(),
            ..Node::default()
        }
    }

    fn proxy(json: &str) -> ProxyConfig {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn the_gateway_is_named_as_istio_names_it() {
        let own = node(&[("app", "gw"), ("service.istio.io/canonical-name", "canonical")]);
        for (json, want) in [
            ("{}", "gw.istio-system"),
            (r#"{"serviceCluster":"istio-proxy"}"#, "gw.istio-system"),
            (r#"{"serviceCluster":"edge"}"#, "edge"),
            (r#"{"tracingServiceName":"CANONICAL_NAME_ONLY"}"#, "canonical"),
            (r#"{"tracingServiceName":"CANONICAL_NAME_AND_NAMESPACE"}"#, "canonical.istio-system"),
        ] {
            assert_eq!(own.service_name(&proxy(json)), want, "{json}");
        }
        assert_eq!(node(&[]).service_name(&proxy("{}")), "istio-proxy.istio-system");
        assert_eq!(own.id(), "router~10.0.0.1~gw-1.istio-system~istio-system.svc.cluster.local");
        let otel = ServiceAttributeEnrichment::OtelSemanticConventions;
        assert_eq!(own.otel_service_name(&proxy("{}"), otel), "gw-1");
        assert_eq!(node(&[("app.kubernetes.io/instance", "i")]).otel_service_name(&proxy("{}"), otel), "i");
    }

    #[test]
    fn attributes_of_the_environment_are_decoded() {
        let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        assert_eq!(resource_attributes("a=1, b = x%2Cy%3d%,c,=d"), [pair("a", "1"), pair("b", "x,y=%")]);
        assert_eq!(resource_attributes(""), []);
    }
}
