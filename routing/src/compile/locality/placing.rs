//! How the endpoints of a cluster are to be placed: the setting in force among the rule's, the Service's and the mesh's.
//!
//! Invariant: the first that says anything wins whole; one that is disabled places nobody (Istio: `GetEffectiveLbSetting`).

use super::{NETWORK, NODE, REGION, SUBZONE, ZONE};
use config_model::{
    istio::destination_rule::{
        LoadBalancerSettings, LocalityDistribute, LocalityFailover, LocalityLbSetting, ZoneAwareLbSetting,
    },
    kubernetes,
    mesh::MeshConfig,
    meta::Resource,
};
use std::{borrow::Cow, collections::BTreeMap};

/// Annotation of a Service that says which endpoints it prefers.
const DISTRIBUTION: &str = "networking.istio.io/traffic-distribution";
/// Endpoints below which zones are not told apart (Envoy: `min_cluster_size`).
const CLUSTER_SIZE: u32 = 6;

/// How the endpoints of a cluster are placed.
#[derive(Debug, Default, PartialEq)]
pub(in crate::compile) struct Placing<'a> {
    pub(super) distribute: &'a [LocalityDistribute],
    pub(super) failover: &'a [LocalityFailover],
    pub(super) labels: Cow<'a, [String]>,
    pub(super) forced: Force,
    pub(super) grain: Grain,
}

/// Whether endpoints have priorities although nobody notices that they fail.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) enum Force {
    #[default]
    WithOutlierDetection,
    Always,
}

/// What counts as near.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) enum Grain {
    /// The same subzone, zone, region.
    #[default]
    Subzone,
    /// The same region: within it zones share as the gateway's replicas are spread, in clusters of at least so many.
    Region(u32),
}

impl<'a> Placing<'a> {
    /// What is in force: the rule's own, else what the Service prefers, else the mesh's (Istio: `GetEffectiveLbSetting`);
    /// `None` where that is disabled.
    pub(in crate::compile) fn of(
        balancer: Option<&'a LoadBalancerSettings>,
        service: Option<(&Resource<kubernetes::Service>, Option<&Namespace>)>,
        mesh: &'a MeshConfig,
    ) -> Option<Self> {
        if let Some(zones) = balancer.and_then(|balancer| balancer.zone_aware_lb_setting.as_ref()) {
            return Self::of_zones(zones);
        }
        if let Some(own) = balancer.and_then(|balancer| balancer.locality_lb_setting.as_ref()) {
            return Self::of_locality(own);
        }
        let preferred: &[&str] = match service.map(|(own, of)| distribution(own, of)).unwrap_or_default() {
            Distribution::Any => {
                let zones = mesh.zone_aware_lb_setting.as_ref();
                return zones.map_or_else(|| Self::of_locality(&mesh.locality_lb_setting), Self::of_zones);
            }
            Distribution::SameZone => &[NETWORK, REGION, ZONE],
            Distribution::SameNode => &[NETWORK, REGION, ZONE, SUBZONE, NODE],
        };
        let labels = preferred.iter().map(|label| (*label).to_owned()).collect();
        Some(Self { labels: Cow::Owned(labels), forced: Force::Always, ..Self::default() })
    }

    fn of_zones(zones: &'a ZoneAwareLbSetting) -> Option<Self> {
        (zones.enabled != Some(false)).then_some(Self {
            failover: &zones.failover,
            labels: Cow::Borrowed(&zones.failover_priority),
            forced: Force::Always,
            grain: Grain::Region(
                zones.min_cluster_size.map_or(CLUSTER_SIZE, |least| u32::try_from(least).unwrap_or(u32::MAX)),
            ),
            ..Self::default()
        })
    }

    /// Whether shares of zones depend on where the gateway's own replicas are.
    pub(in crate::compile) fn asks_for_replicas(&self) -> bool {
        matches!(self.grain, Grain::Region(_))
    }

    pub(super) fn of_locality(setting: &'a LocalityLbSetting) -> Option<Self> {
        (setting.enabled != Some(false)).then_some(Self {
            distribute: &setting.distribute,
            failover: &setting.failover,
            labels: Cow::Borrowed(&setting.failover_priority),
            ..Self::default()
        })
    }
}

type Namespace = Resource<kubernetes::Namespace>;

/// Which endpoints a Service prefers.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
enum Distribution {
    #[default]
    Any,
    SameZone,
    SameNode,
}

/// The field, else the annotation that came before it, in any case: the Service's, else its namespace's (Istio:
/// `GetTrafficDistribution`).
fn distribution(service: &Resource<kubernetes::Service>, namespace: Option<&Namespace>) -> Distribution {
    match service.spec.traffic_distribution.as_str() {
        "PreferSameZone" | "PreferClose" => return Distribution::SameZone,
        "PreferSameNode" => return Distribution::SameNode,
        _ => {}
    }
    let written = |annotations: &BTreeMap<String, String>| {
        annotations.get(DISTRIBUTION).filter(|text| !text.is_empty()).map(|text| text.to_ascii_lowercase())
    };
    let written = written(&service.meta.annotations).or_else(|| written(&namespace?.meta.annotations));
    match written.as_deref() {
        Some("prefersamezone" | "preferclose") => Distribution::SameZone,
        Some("prefersamenode") => Distribution::SameNode,
        _ => Distribution::Any,
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::tests::{HOME, at, everywhere},
        *,
    };
    use crate::{
        cluster::Endpoint,
        compile::{
            Identity,
            locality::{Origin, describe, place},
        },
    };

    #[test]
    fn zones_of_the_own_region_are_alike_and_need_no_outlier_detection() {
        let priorities = |yaml: &str| -> Option<Vec<u32>> {
            let balancer: LoadBalancerSettings = config_model::parse::value(yaml).unwrap();
            let mesh = MeshConfig::default();
            let placing = Placing::of(Some(&balancer), None, &mesh)?;
            let labels = HOME.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
            let identity = Identity { labels, ..Identity::default() };
            let mut endpoints = everywhere();
            place(&mut endpoints, &placing, &Origin::of(&identity), false, None);
            Some(endpoints.into_iter().map(|e| e.place.priority).collect())
        };
        assert_eq!(priorities("{zoneAwareLbSetting: {}}"), Some(vec![0, 0, 0, 1, 1]));
        let failover = "{zoneAwareLbSetting: {failover: [{from: r1, to: r3}]}}";
        assert_eq!(priorities(failover), Some(vec![0, 0, 0, 2, 1]));
        assert_eq!(priorities("{zoneAwareLbSetting: {enabled: false}}"), None);
        assert_eq!(priorities("{localityLbSetting: {enabled: false}}"), None);
    }

    #[test]
    fn a_service_prefers_its_zone_or_its_node() {
        let service = |spec: &str, annotation: &str| {
            let yaml = format!(
                "apiVersion: v1\nkind: Service\nmetadata: {{name: a, annotations: {{x: y{annotation}}}}}\nspec: {{{spec}}}\n"
            );
            let input = crate::compile::testing::validated(&yaml);
            input.services().values().next().unwrap().clone()
        };
        let mesh = MeshConfig::default();
        let near = |spec: &str, annotation: &str| -> Vec<u32> {
            let own = service(spec, annotation);
            let placing = Placing::of(None, Some((&own, None)), &mesh).unwrap();
            let own = [(REGION, "r"), (ZONE, "z"), (NODE, "n1")];
            let labels = own.into_iter().map(|(k, v)| (k.to_owned(), v.to_owned())).collect();
            let identity = Identity { labels, ..Identity::default() };
            let mut endpoints: Vec<Endpoint> = [
                ("r/z", "n1", ""),
                ("r/z", "n2", ""),
                ("r/y", "n3", ""),
                ("/z", "n4", ""),
                ("r/z", "n5", "far"),
            ]
            .map(|(locality, node, network)| {
                let mut endpoint = at(locality, &[]);
                describe(&mut endpoint.labels, locality, node, network);
                endpoint
            })
            .into();
            place(&mut endpoints, &placing, &Origin::of(&identity), false, None);
            endpoints.into_iter().map(|e| e.place.priority).collect()
        };
        assert_eq!(near("", ""), [0, 0, 0, 0, 0]);
        assert_eq!(near("trafficDistribution: PreferClose", ""), [0, 0, 1, 0, 2]);
        assert_eq!(near("trafficDistribution: PreferSameZone", ""), [0, 0, 1, 0, 2]);
        assert_eq!(near("trafficDistribution: PreferSameNode", ""), [0, 1, 2, 1, 3]);
        let annotation = ", networking.istio.io/traffic-distribution: PreferClose";
        assert_eq!(near("", annotation), [0, 0, 1, 0, 2]);
    }
}
