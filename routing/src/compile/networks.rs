//! Endpoints of other networks, which are reached by way of that network's gateways.
//!
//! Invariant: the rules are Istio's (endpoints/ep_filters.go `EndpointsByNetworkFilter`): without gateways anywhere, or where either end is
//! in no network, an endpoint is reached at its own address. A gateway passes mutual TLS on by server name, so endpoints that do not
//! take it are out of reach, and are left out.

use super::{Identity, locality::NETWORK};
use crate::cluster::{Address, Endpoint, Health, Place};
use config_model::mesh::MeshConfig;
use ipnet::IpNet;
use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

/// The networks of the mesh, from where the gateway is.
pub(super) struct Networks<'a> {
    /// The gateway's own, or empty.
    own: &'a str,
    gateways: BTreeMap<&'a str, Vec<Address>>,
    ranges: Vec<(IpNet, &'a str)>,
    /// By what all weights are multiplied, so that each splits evenly among gateways.
    scale: u32,
}

impl<'a> Networks<'a> {
    /// As MeshNetworks has them. Gateways that are Services of other clusters are not known here.
    pub(super) fn new(mesh: &'a MeshConfig, identity: &'a Identity) -> Self {
        let mut networks = Self {
            own: identity.labels.get(NETWORK).map(String::as_str).unwrap_or_default(),
            gateways: BTreeMap::new(),
            ranges: Vec::new(),
            scale: 1,
        };
        for (name, network) in &mesh.networks {
            let mut gateways: Vec<Address> = network
                .gateways
                .iter()
                .filter(|gateway| !gateway.address.is_empty())
                .filter_map(|gateway| {
                    let port = u16::try_from(gateway.port).ok().filter(|port| *port > 0)?;
                    Some(match gateway.address.parse::<IpAddr>() {
                        Ok(ip) => Address::Ip(SocketAddr::new(ip, port)),
                        Err(_) => Address::Name(gateway.address.as_str().into(), port),
                    })
                })
                .collect();
            gateways.sort();
            gateways.dedup();
            if let Ok(count @ 1..) = u32::try_from(gateways.len()) {
                networks.scale = networks.scale.saturating_mul(count / gcd(networks.scale, count));
                networks.gateways.insert(name, gateways);
            }
            let ranges = network.endpoints.iter().filter_map(|of| of.from_cidr.parse().ok());
            networks.ranges.extend(ranges.map(|range: IpNet| (range, name.as_str())));
        }
        networks
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
            // A gateway that does not know its own network goes by way of the others'.
            if *network == self.own {
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

    /// The network that an endpoint is in, or empty: what it says, else what its address says.
    fn of<'e>(&'e self, endpoint: &'e Endpoint) -> &'e str {
        let said = endpoint.labels.get(NETWORK).map(String::as_str).filter(|network| !network.is_empty());
        said.unwrap_or_else(|| {
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
    use crate::compile::testing::{compiled, find_cluster, identity, validated};

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
        assert_eq!(reached(far, ""), reached(far, "near"), "whoever does not say where it is is elsewhere");
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
        let (compiled, _) = compiled(
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
        let cluster = find_cluster(&compiled, "outbound|80||vm.shop").unwrap();
        assert!(cluster.endpoints.iter().all(Endpoint::is_of_mesh));
        let tls = cluster.spec.auto_mtls.as_ref().unwrap();
        assert_eq!(tls.sni.as_deref(), Some("outbound_.80_._.vm.shop"));
        assert_eq!(tls.subject_alt_names, ["spiffe://cluster.local/ns/shop/sa/vm".into()]);
    }
}
