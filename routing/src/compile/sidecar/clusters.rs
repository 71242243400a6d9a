//! Clusters that a sidecar has besides those of services: of where a connection was going, of nowhere, and of the workload.
//!
//! Invariant: names are Istio's (cluster_builder.go `buildDefaultPassthroughCluster`, `buildBlackHoleCluster`, `buildInboundCluster`);
//! none of them has TLS.

use super::{super::traffic, scope::Rest};
use crate::{
    cluster::{Address, Cluster, ClusterName, ClusterSpec, Discovery, Endpoint, UpstreamProtocol},
    compile::Clusters,
};
use config_model::{
    istio::destination_rule::{ConnectionPoolSettings, H2UpgradePolicy},
    mesh::MeshConfig,
    scalar::Protocol,
};
use std::sync::Arc;

/// Those that every sidecar has, whatever services there are.
pub(super) fn passing(mesh: &MeshConfig, rest: &Rest<'_>) -> Vec<Cluster> {
    let pool = mesh.default_traffic_policy.as_ref().and_then(|policy| policy.connection_pool.as_ref());
    let named = |name: ClusterName, discovery, pool| ClusterSpec {
        discovery,
        protocol: UpstreamProtocol::Client,
        ..pooled(ClusterSpec::new(name.as_str(), 0, ""), name.clone(), pool, mesh)
    };
    let original = Discovery::OriginalDestination { port: None };
    let specs = [
        named(ClusterName::passthrough(), original, pool),
        named(ClusterName::inbound_passthrough(), original, pool),
        named(ClusterName::black_hole(), Discovery::Static, None),
    ];
    let mut all = specs.map(|spec| Cluster { spec: Arc::new(spec), endpoints: [].into() }).to_vec();
    if matches!(rest, Rest::Named) {
        // Istio: cluster_builder.go `buildAllowAnyDFPCluster`.
        let spec = named(ClusterName::any_name(), Discovery::DynamicDns, pool);
        let any = Endpoint::at(Address::Name("*".into(), 0));
        all.push(Cluster { spec: Arc::new(spec), endpoints: [any].into() });
    }
    all
}

/// A port of the workload.
pub(super) struct Own<'o> {
    /// The port that it listens on.
    pub(super) port: u16,
    /// Host, name and namespace of the service that it is of.
    pub(super) service: (Arc<str>, Arc<str>, Arc<str>),
    /// What it speaks.
    pub(super) protocol: Option<Protocol>,
    /// Where it is, if not where the connection was going.
    pub(super) endpoint: Option<Address>,
    /// Its limits.
    pub(super) pool: Option<&'o ConnectionPoolSettings>,
}

impl Own<'_> {
    pub(super) fn cluster(self, mesh: &MeshConfig) -> Cluster {
        let Self { port, service: (host, service, namespace), protocol, endpoint, pool } = self;
        let defaults =
            mesh.default_traffic_policy.as_ref().and_then(|policy| policy.connection_pool.as_ref());
        let pool = pool.or(defaults);
        let spec = ClusterSpec {
            service,
            namespace,
            discovery: match endpoint {
                Some(_) => Discovery::Static,
                None => Discovery::OriginalDestination { port: None },
            },
            protocol: match protocol {
                None => UpstreamProtocol::Client,
                Some(_) => traffic::protocol(protocol, pool, H2UpgradePolicy::DoNotUpgrade),
            },
            ..pooled(ClusterSpec::new(&host, port, ""), ClusterName::inbound(port), pool, mesh)
        };
        let endpoints = endpoint.into_iter().map(Endpoint::at).collect();
        Cluster { spec: Arc::new(spec), endpoints }
    }
}

fn pooled(
    spec: ClusterSpec,
    name: ClusterName,
    pool: Option<&ConnectionPoolSettings>,
    mesh: &MeshConfig,
) -> ClusterSpec {
    ClusterSpec {
        name,
        connect_timeout: traffic::connect_timeout(pool, mesh),
        idle_timeout: traffic::idle_timeout(pool),
        pool: traffic::pool(pool, None, mesh.tcp_keepalive.as_ref()),
        ..spec
    }
}

/// Lets every cluster that came out as it was be the one that was.
pub(super) fn share(made: &mut Clusters, before: &Clusters) {
    for (name, cluster) in made {
        if let Some(old) = before.get(name).filter(|old| *old == cluster) {
            *cluster = Arc::clone(old);
        }
    }
}
