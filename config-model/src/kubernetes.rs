//! The few fields that are read of Kubernetes' own kinds.
//!
//! Invariant: nothing here prints the value of a Secret.

use std::{collections::BTreeMap, fmt};

use serde::Deserialize;

use crate::scalar::{PortNumber, SecretBytes};

/// A Service's spec.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Service {
    /// Its ports.
    pub ports: Vec<ServicePort>,
    /// Labels of its pods; empty for a Service whose endpoints are written by hand.
    pub selector: BTreeMap<String, String>,
    /// Kind of Service.
    #[serde(rename = "type")]
    pub service_type: ServiceType,
    /// First cluster address; empty, `None` (headless) or an IP address.
    #[serde(rename = "clusterIP")]
    pub cluster_ip: String,
    /// All cluster addresses.
    #[serde(rename = "clusterIPs")]
    pub cluster_ips: Vec<String>,
    /// Target of an ExternalName Service.
    pub external_name: String,
    /// Addresses at which it is reached from elsewhere, beside those of its load balancer.
    #[serde(rename = "externalIPs")]
    pub external_ips: Vec<String>,
    /// Whether pods that are not ready are published.
    pub publish_not_ready_addresses: bool,
    /// `Cluster` or `Local`.
    pub internal_traffic_policy: String,
    /// `PreferSameZone` (`PreferClose`), `PreferSameNode`, or empty.
    pub traffic_distribution: String,
}

impl Service {
    /// Whether only endpoints of the client's own node serve it.
    pub fn is_local(&self) -> bool {
        self.internal_traffic_policy == "Local"
    }

    /// A Service without a cluster address.
    pub fn is_headless(&self) -> bool {
        self.cluster_ip == "None"
    }
}

/// Kind of Service.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[allow(missing_docs, reason = "each arm is the API's own value")]
pub enum ServiceType {
    #[default]
    #[serde(rename = "ClusterIP")]
    ClusterIp,
    NodePort,
    LoadBalancer,
    ExternalName,
}

/// A port of a Service.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServicePort {
    /// Name; may be empty when there is one port.
    #[serde(default)]
    pub name: String,
    /// The port that clients name.
    pub port: PortNumber,
    /// Port of the pods; absent is `port`.
    #[serde(default)]
    pub target_port: Option<TargetPort>,
    /// `TCP` (also when empty), `UDP` or `SCTP`.
    #[serde(default)]
    pub protocol: String,
    /// Application protocol.
    #[serde(default)]
    pub app_protocol: Option<String>,
}

/// A pod port by number or by the name of a container port.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub enum TargetPort {
    /// By number.
    Number(PortNumber),
    /// By the name of a container port.
    Name(String),
}

/// An EndpointSlice.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct EndpointSlice {
    /// `IPv4`, `IPv6` or `FQDN`.
    pub address_type: String,
    /// The endpoints.
    pub endpoints: Vec<Endpoint>,
    /// Ports that all of them have.
    pub ports: Vec<EndpointPort>,
}

impl EndpointSlice {
    /// The label that names the Service a slice belongs to.
    pub const SERVICE_LABEL: &'static str = "kubernetes.io/service-name";
}

/// An endpoint of a slice.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Endpoint {
    /// Addresses of one endpoint; the first counts.
    pub addresses: Vec<String>,
    /// Its state.
    pub conditions: EndpointConditions,
    /// The pod behind it.
    pub target_ref: Option<ObjectReference>,
    /// The node it runs on.
    pub node_name: Option<String>,
    /// The zone it is in.
    pub zone: Option<String>,
    /// Its own host name.
    pub hostname: Option<String>,
}

/// The state of an endpoint. Absent means true for `ready` and `serving`, false for `terminating`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct EndpointConditions {
    /// Ready for traffic.
    pub ready: Option<bool>,
    /// Ready, even while terminating.
    pub serving: Option<bool>,
    /// On its way out.
    pub terminating: Option<bool>,
}

impl EndpointConditions {
    /// Ready, with absence as true.
    pub fn is_ready(&self) -> bool {
        self.ready.unwrap_or(true)
    }
}

/// A port of endpoints.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct EndpointPort {
    /// Name of the Service port.
    pub name: String,
    /// Number; absent is "all ports".
    #[serde(deserialize_with = "PortNumber::or_zero")]
    pub port: Option<PortNumber>,
    /// `TCP` (also when empty), `UDP` or `SCTP`.
    pub protocol: String,
    /// Application protocol.
    pub app_protocol: Option<String>,
}

/// A reference to another object.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ObjectReference {
    /// Its kind.
    pub kind: String,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// Endpoints, the older form.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Endpoints {
    /// Every combination of address and port of each subset.
    pub subsets: Vec<EndpointSubset>,
}

/// Addresses that share ports.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct EndpointSubset {
    /// Ready addresses.
    pub addresses: Vec<EndpointAddress>,
    /// Addresses that are not ready.
    pub not_ready_addresses: Vec<EndpointAddress>,
    /// Their ports.
    pub ports: Vec<EndpointPort>,
}

/// An address of Endpoints.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct EndpointAddress {
    /// IP address.
    pub ip: String,
    /// Its own host name.
    pub hostname: Option<String>,
    /// The node it runs on.
    pub node_name: Option<String>,
    /// The pod behind it.
    pub target_ref: Option<ObjectReference>,
}

/// A Secret. Its `Debug` shows key names and lengths only.
#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Secret {
    /// E.g. `kubernetes.io/tls`.
    #[serde(rename = "type")]
    pub secret_type: String,
    /// Decoded values.
    pub data: BTreeMap<String, SecretBytes>,
    /// Values as text, which override `data` as the API server would.
    pub string_data: BTreeMap<String, SecretText>,
}

impl Secret {
    /// The value of a key, `stringData` first.
    pub fn get(&self, key: &str) -> Option<&[u8]> {
        let text = self.string_data.get(key).map(SecretText::expose);
        text.or_else(|| self.data.get(key).map(SecretBytes::expose))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Secret")
            .field("type", &self.secret_type)
            .field("data", &self.data)
            .field("string_data", &self.string_data)
            .finish()
    }
}

/// A value of `stringData`; as little shown as the others.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(from = "String")]
pub struct SecretText(SecretBytes);

impl SecretText {
    /// The bytes. The caller takes over the duty not to print them.
    pub fn expose(&self) -> &[u8] {
        self.0.expose()
    }
}

impl From<String> for SecretText {
    fn from(text: String) -> SecretText {
        SecretText(SecretBytes::new(text.into_bytes()))
    }
}

impl fmt::Debug for SecretText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A ConfigMap.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ConfigMap {
    /// Its texts.
    pub data: BTreeMap<String, String>,
}

/// A Namespace: only its metadata matters.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct Namespace {}

/// A Pod.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Pod {
    /// What was asked for.
    pub spec: PodSpec,
    /// What is.
    pub status: PodStatus,
}

impl Pod {
    /// The number of a named container port.
    pub fn container_port(&self, name: &str) -> Option<PortNumber> {
        let ports = self.spec.containers.iter().flat_map(|container| &container.ports);
        ports.filter(|port| port.name == name).find_map(|port| port.container_port)
    }
}

/// A Pod's spec.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct PodSpec {
    /// The node it runs on.
    pub node_name: String,
    /// Its service account.
    pub service_account_name: String,
    /// Its containers.
    pub containers: Vec<Container>,
}

/// A container.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Container {
    /// Ports it names.
    pub ports: Vec<ContainerPort>,
}

/// A container port.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ContainerPort {
    /// Name that a Service's `targetPort` may use.
    pub name: String,
    /// The number.
    #[serde(deserialize_with = "PortNumber::or_zero")]
    pub container_port: Option<PortNumber>,
}

/// A Pod's status.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct PodStatus {
    /// Its address.
    #[serde(rename = "podIP")]
    pub pod_ip: String,
    /// All its addresses.
    #[serde(rename = "podIPs")]
    pub pod_ips: Vec<PodIp>,
    /// `Running`, `Pending`, …
    pub phase: String,
}

/// An address of a Pod.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct PodIp {
    /// IP address.
    pub ip: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_read_and_not_shown() {
        let secret: Secret = serde_json::from_str(
            r#"{"type":"Opaque","data":{"tls.key":"aHVudGVyMg=="},"stringData":{"a":"swordfish"}}"#,
        )
        .unwrap();
        assert_eq!(
            (secret.get("tls.key"), secret.get("a")),
            (Some(&b"hunter2"[..]), Some(&b"swordfish"[..]))
        );
        let shown = format!("{secret:?}");
        assert!(!shown.contains("hunter2") && !shown.contains("swordfish"), "{shown}");
    }

    #[test]
    fn a_target_port_is_a_number_or_a_name() {
        let service: Service =
            serde_json::from_str(r#"{"ports":[{"port":80,"targetPort":8080},{"port":443,"targetPort":"https"}],"clusterIP":"None"}"#).unwrap();
        assert_eq!(service.ports[0].target_port, Some(TargetPort::Number(PortNumber::new(8080).unwrap())));
        assert_eq!(service.ports[1].target_port, Some(TargetPort::Name("https".into())));
        assert!(service.is_headless());
    }
}
