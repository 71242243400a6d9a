//! Clusters that a sidecar has besides those of services: of where a connection was going, of nowhere, and of the workload.
//!
//! Invariant: names are Istio's (cluster_builder.go `buildDefaultPassthroughCluster`, `buildBlackHoleCluster`, `buildInboundCluster`);
//! none of them has TLS.

use super::super::{Identity, traffic, upstream_tls};
use crate::{
    cluster::{Address, Cluster, ClusterName, ClusterSpec, Discovery, Endpoint, UpstreamProtocol},
    compile::Clusters,
};
use config_model::{
    istio::destination_rule::{ConnectionPoolSettings, H2UpgradePolicy},
    mesh::MeshConfig,
    scalar::Protocol,
};
use std::{collections::BTreeSet, sync::Arc};

/// Those that every sidecar has, whatever services there are.
pub(super) fn passing(mesh: &MeshConfig) -> [Cluster; 3] {
    let pool = default_pool(mesh);
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
    specs.map(|spec| Cluster { spec: Arc::new(spec), endpoints: [].into() })
}

/// The one of any name that is asked for (Istio: cluster_builder.go `buildAllowAnyDFPCluster`).
///
/// # Errors
/// What cannot be done of the TLS that is asked for, as the beginning of a sentence: there is no cluster then.
pub(super) fn of_any_name(mesh: &MeshConfig, identity: &Identity) -> Result<Cluster, String> {
    let tls = upstream_tls::compile(&upstream_tls::Wanted {
        settings: mesh.outbound_traffic_policy.tls.as_ref(),
        rule_namespace: &mesh.root_namespace,
        gateway_namespace: &identity.namespace,
        trust_domain: &mesh.trust_domain,
        entry_names: &[],
        accounts: &BTreeSet::new(),
        default_sni: "",
    })?;
    let name = ClusterName::any_name();
    let spec = ClusterSpec {
        discovery: Discovery::DynamicDns,
        protocol: UpstreamProtocol::Client,
        tls,
        ..pooled(ClusterSpec::new(name.as_str(), 0, ""), name.clone(), default_pool(mesh), mesh)
    };
    let any = Endpoint::at(Address::Name("*".into(), 0));
    Ok(Cluster { spec: Arc::new(spec), endpoints: [any].into() })
}

fn default_pool(mesh: &MeshConfig) -> Option<&ConnectionPoolSettings> {
    mesh.default_traffic_policy.as_ref().and_then(|policy| policy.connection_pool.as_ref())
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
        let pool = pool.or(default_pool(mesh));
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
