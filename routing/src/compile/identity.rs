//! Who a proxy is, and where it stands: at the edge of the mesh, or beside a workload.
//!
//! Invariant: plain data that is fixed for the life of a process; two equal identities compile to the same.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

/// Who this proxy is: what selectors and visibility are judged by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Namespace of the proxy's pods.
    pub namespace: String,
    /// Labels of the proxy's pods.
    pub labels: BTreeMap<String, String>,
    /// DNS domain of the cluster, the end of every Service's name.
    pub domain: String,
    /// Name of the cluster that is read, by which MeshNetworks knows it, unless MeshConfig says another.
    pub cluster: String,
    /// The workload's own certificate.
    pub workload: WorkloadFiles,
    /// Where it stands.
    pub role: Role,
}

/// Where a proxy stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Role {
    /// At an edge of the mesh: it serves Gateways.
    #[default]
    Gateway,
    /// Beside a workload: it serves what the workload calls, and what calls it.
    Sidecar(Box<Workload>),
}

impl Role {
    /// The workload beside which it stands; `None`: it is a gateway.
    #[must_use]
    pub fn workload(&self) -> Option<&Workload> {
        match self {
            Self::Gateway => None,
            Self::Sidecar(workload) => Some(workload),
        }
    }
}

/// The workload that a sidecar stands beside. Its labels and namespace are the [`Identity`]'s.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Workload {
    /// Its own addresses.
    pub addresses: Vec<IpAddr>,
    /// Where its outgoing connections are redirected to.
    pub outbound: u16,
    /// Where connections to it are redirected to.
    pub inbound: u16,
}

impl Workload {
    /// A workload with these addresses, redirected to the ports that Istio's rules have.
    #[must_use]
    pub fn at(addresses: Vec<IpAddr>) -> Self {
        Self { addresses, outbound: 15001, inbound: 15006 }
    }
}

/// PEM files with the certificate that the mesh knows this proxy by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkloadFiles {
    /// The chain.
    pub certificate: Arc<str>,
    /// Its key.
    pub key: Arc<str>,
    /// Roots of the mesh.
    pub roots: Arc<str>,
}

impl WorkloadFiles {
    /// The files in a folder, by the names that Istio gives them where they are mounted.
    #[must_use]
    pub fn within(folder: &str) -> Self {
        Self::named(folder, ["cert-chain.pem", "key.pem", "root-cert.pem"])
    }

    fn named(folder: &str, names: [&str; 3]) -> Self {
        let [certificate, key, roots] = names.map(|name| format!("{folder}/{name}").into());
        Self { certificate, key, roots }
    }
}

impl Default for WorkloadFiles {
    /// Where Istio's agent puts them.
    fn default() -> Self {
        let names = ["certificates.pem", "private_key.pem", "ca_certificates.pem"];
        Self::named("/var/run/secrets/workload-spiffe-credentials", names)
    }
}

impl Default for Identity {
    /// Istio's own ingress gateway.
    fn default() -> Self {
        let label = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        Self {
            namespace: "istio-system".to_owned(),
            labels: [label("app", "istio-ingressgateway"), label("istio", "ingressgateway")].into(),
            domain: "cluster.local".to_owned(),
            cluster: "Kubernetes".to_owned(),
            workload: WorkloadFiles::default(),
            role: Role::Gateway,
        }
    }
}
