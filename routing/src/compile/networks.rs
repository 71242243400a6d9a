//! Endpoints of other networks, which are reached by way of that network's gateways.
//!
//! Invariant: the rules are Istio's (endpoints/ep_filters.go `EndpointsByNetworkFilter`): without gateways anywhere, or where either end is
//! in no network, an endpoint is reached at its own address. A gateway passes mutual TLS on by server name, so endpoints that do not
//! take it are out of reach, and are left out.

mod gateways;

use self::gateways::{Found, has};
use super::{Identity, locality::NETWORK};
use crate::cluster::{Address, Endpoint, Health, Place};
use config_model::{
    diagnostic::Diagnostic,
    meta::{Kind, ResourceKey},
    validate::Validated,
};
use ipnet::IpNet;
use std::{collections::BTreeMap, sync::Arc};

/// The networks of the mesh, from where the gateway is.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Networks {
    /// The gateway's own, or empty.
    own: String,
    /// That of whoever does not say where it is, whatever its address: the root namespace's, else the one that has the cluster's
    /// endpoints by its name.
    of_cluster: Option<String>,
    gateways: BTreeMap<String, Vec<Address>>,
    ranges: Vec<(IpNet, String)>,
    /// By what all weights are multiplied, so that each splits evenly among gateways.
    scale: u32,
}

impl Networks {
    /// What they are made of.
    pub(super) const KINDS: [Kind; 3] = [Kind::Service, Kind::Namespace, Kind::ConfigMap];

    /// As MeshNetworks and the cluster's own gateway Services have them, and what of it cannot be had.
    pub(super) fn new(now: &Validated, identity: &Identity) -> (Self, Vec<Diagnostic>) {
        let own = identity.labels.get(NETWORK).map(String::as_str).unwrap_or_default();
        let mesh = now.mesh();
        let cluster = mesh.cluster_id().unwrap_or(&identity.cluster);
        let of_cluster = || mesh.networks.iter().find(|(_, network)| has(network, cluster));
        let (found, findings) = gateways::find(now, own, &identity.domain, cluster);
        let said = |namespace: &str| {
            let key = ResourceKey::new(Kind::Namespace, "", namespace);
            let label = now.namespaces().get(&key)?.meta.labels.get(NETWORK)?;
            Some(label.clone()).filter(|label| !label.is_empty())
        };
        let ranges = mesh.networks.iter().flat_map(|(name, network)| {
            let ranges = network.endpoints.iter().filter_map(|of| of.from_cidr.parse().ok());
            ranges.map(move |range: IpNet| (range, name.clone()))
        });
        let mut networks = Self {
            own: own.to_owned(),
            of_cluster: said(&mesh.root_namespace).or_else(|| of_cluster().map(|(name, _)| name.clone())),
            gateways: BTreeMap::new(),
            ranges: ranges.collect(),
            scale: 1,
        };
        for (name, Found { mut of_cluster, mut all }) in found {
            for gateways in [&mut of_cluster, &mut all] {
                gateways.sort();
                gateways.dedup();
                if let Ok(count @ 1..) = u32::try_from(gateways.len()) {
                    networks.scale = networks.scale.saturating_mul(count / gcd(networks.scale, count));
                }
            }
            // A cluster's own gateways are before those that are only known by address (Istio: selectNetworkGateways).
            let gateways = if of_cluster.is_empty() { all } else { of_cluster };
            if !gateways.is_empty() {
                networks.gateways.insert(name, gateways);
            }
        }
        (networks, findings)
    }

    /// Puts gateways in the place of endpoints of other networks.
    pub(super) fn cross(&self, endpoints: &mut Vec<Endpoint>) {
        if self.gateways.is_empty() {
            endpoints.retain(|endpoint| !endpoint.address.is_nowhere());
            return;
        }
        let mut ways: BTreeMap<(Arc<str>, &Address, &str), u32> = BTreeMap::new();
        endpoints.retain_mut(|endpoint| {
            endpoint.weight = endpoint.weight.saturating_mul(self.scale);
            let network = self.of(endpoint);
            let Some((network, gateways)) = self.gateways.get_key_value(network) else {
                return !endpoint.address.is_nowhere();
            };
            // Istio: `InNetwork`. Who does not know where it is takes everything for near.
            if self.own.is_empty() || *network == self.own {
                return !endpoint.address.is_nowhere();
            }
            if endpoint.is_of_mesh() && endpoint.health == Health::Healthy {
                let each = endpoint.weight / u32::try_from(gateways.len()).unwrap_or(1).max(1);
                for gateway in gateways {
                    let way = ways.entry((endpoint.place.locality.clone(), gateway, network)).or_default();
                    *way = way.saturating_add(each.max(1));
                }
            }
            false
        });
        endpoints.extend(ways.into_iter().map(|((locality, address, network), weight)| Endpoint {
            weight,
            labels: BTreeMap::from([
                (NETWORK.to_owned(), network.to_owned()),
                (Endpoint::TLS_MODE_LABEL.to_owned(), "istio".to_owned()),
            ]),
            place: Place { locality, ..Place::default() },
            ..Endpoint::at(address.clone())
        }));
    }

    /// The network that an endpoint is in, or empty: what it says, else where the cluster is, else what its address says.
    fn of<'e>(&'e self, endpoint: &'e Endpoint) -> &'e str {
        let said = endpoint.labels.get(NETWORK).map(String::as_str).filter(|network| !network.is_empty());
        said.or(self.of_cluster.as_deref()).unwrap_or_else(|| {
            let Address::Ip(address) = &endpoint.address else { return "" };
            let within = self.ranges.iter().find(|(range, _)| range.contains(&address.ip()));
            within.map_or("", |(_, network)| network)
        })
    }
}

fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compile::testing::{find_cluster, identity, validated};

    /// The endpoints of a host whose endpoints are in several networks, for a gateway in `own`.
    fn reached(networks: &str, own: &str) -> Vec<String> {
        let yaml = format!(
            "apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: e, namespace: shop}}
spec:
  hosts: [vm.shop]
  location: MESH_INTERNAL
  resolution: STATIC
  ports: [{{number: 80, name: http, protocol: HTTP}}]
  endpoints:
  - {{address: 10.0.0.1, network: near, serviceAccount: vm}}
  - {{address: 10.0.0.2, serviceAccount: vm}}
  - {{address: 10.0.0.3, network: far, serviceAccount: vm, locality: r/z}}
  - {{address: 10.0.0.4, network: far, serviceAccount: vm, locality: r/z, weight: 3}}
  - {{address: 10.0.0.5, network: far}}
  - {{address: 10.9.0.1, serviceAccount: vm}}
  - {{network: far, serviceAccount: vm}}
---
apiVersion: v1
kind: ConfigMap
metadata: {{name: istio, namespace: istio-system}}
data:
  meshNetworks: |
    networks: {{{networks}}}
"
        );
        let mut identity = identity();
        if !own.is_empty() {
            identity.labels.insert(NETWORK.to_owned(), own.to_owned());
        }
        let (compiled, _) = crate::compile::compile(&validated(&yaml), &identity);
        let cluster = find_cluster(&compiled, "outbound|80||vm.shop").unwrap();
        let shown = |e: &Endpoint| format!("{} {} {}", e.address, e.weight, e.place.locality);
        cluster.endpoints.iter().map(shown).collect()
    }

    #[test]
    fn without_gateways_every_endpoint_is_reached_at_its_own_address() {
        let plain = [
            "10.0.0.1:80 1 ",
            "10.0.0.2:80 1 ",
            "10.0.0.3:80 1 r/z",
            "10.0.0.4:80 3 r/z",
            "10.0.0.5:80 1 ",
            "10.9.0.1:80 1 ",
        ];
        assert_eq!(reached("", "near"), plain, "but for what has none");
        assert_eq!(reached("far: {endpoints: [{fromCidr: 10.9.0.0/16}]}", "near"), plain);
        assert_eq!(reached("", ""), plain);
    }

    #[test]
    fn another_network_is_reached_by_way_of_its_gateways_and_only_with_mutual_tls() {
        let far = "far: {endpoints: [{fromCidr: 10.9.0.0/16}], gateways: [{address: 1.1.1.1, port: 15443}]}";
        assert_eq!(
            reached(far, "near"),
            ["10.0.0.1:80 1 ", "10.0.0.2:80 1 ", "1.1.1.1:15443 2 ", "1.1.1.1:15443 4 r/z"]
        );
        assert_eq!(reached(far, ""), reached("", ""), "whoever does not say where it is takes all for near");
        assert_eq!(
            reached(far, "far"),
            [
                "10.0.0.1:80 1 ",
                "10.0.0.2:80 1 ",
                "10.0.0.3:80 1 r/z",
                "10.0.0.4:80 3 r/z",
                "10.0.0.5:80 1 ",
                "10.9.0.1:80 1 "
            ],
            "from within, and to a network without gateways"
        );
    }

    #[test]
    fn several_gateways_share_what_one_endpoint_gets() {
        let far = "far: {gateways: [{address: 1.1.1.1, port: 15443}, {address: gw.far, port: 15443}, {registryServiceName: a.b, port: 1}]}";
        assert_eq!(
            reached(far, "near"),
            [
                "10.0.0.1:80 2 ",
                "10.0.0.2:80 2 ",
                "10.9.0.1:80 2 ",
                "1.1.1.1:15443 1 ",
                "gw.far:15443 1 ",
                "1.1.1.1:15443 4 r/z",
                "gw.far:15443 4 r/z",
            ]
        );
    }

    #[test]
    fn a_gateway_is_spoken_to_as_an_endpoint_of_the_mesh() {
        let validated = validated(
            "apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: e, namespace: shop}
spec:
  hosts: [vm.shop]
  location: MESH_INTERNAL
  resolution: STATIC
  ports: [{number: 80, name: http, protocol: HTTP}]
  endpoints: [{network: far, serviceAccount: vm}]
---
apiVersion: v1
kind: ConfigMap
metadata: {name: istio, namespace: istio-system}
data: {meshNetworks: '{networks: {far: {gateways: [{address: 1.1.1.1, port: 15443}]}}}'}
",
        );
        let mut identity = identity();
        identity.labels.insert(NETWORK.to_owned(), "near".to_owned());
        let (compiled, _) = crate::compile::compile(&validated, &identity);
        let cluster = find_cluster(&compiled, "outbound|80||vm.shop").unwrap();
        assert!(cluster.endpoints.iter().all(Endpoint::is_of_mesh));
        let tls = cluster.spec.auto_mtls.as_ref().unwrap();
        assert_eq!(tls.sni.as_deref(), Some("outbound_.80_._.vm.shop"));
        assert_eq!(tls.subject_alt_names, ["spiffe://cluster.local/ns/shop/sa/vm".into()]);
    }
}
