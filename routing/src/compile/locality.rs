//! Where endpoints stand from the gateway's point of view: localities, priorities and shares.
//!
//! Invariant: the rules are Istio's (networking/core/loadbalancer): failover needs outlier detection, unless a Service or
//! `zoneAwareLbSetting` asks for it, and `distribute` does not; a gateway that does not know where it is prefers nobody.

use super::Identity;
use crate::cluster::{Endpoint, Place};
use config_model::{
    istio::{
        WorkloadEntry,
        destination_rule::{LoadBalancerSettings, LocalityDistribute, LocalityFailover, LocalityLbSetting},
    },
    kubernetes,
    meta::Resource,
};
use std::{borrow::Cow, collections::BTreeMap, sync::Arc};

/// Label that says a pod's locality, dots for slashes (Istio: `LocalityLabel`).
const LABEL: &str = "istio-locality";
const REGION: &str = "topology.kubernetes.io/region";
const ZONE: &str = "topology.kubernetes.io/zone";
const SUBZONE: &str = "topology.istio.io/subzone";
const NETWORK: &str = "topology.istio.io/network";
/// Label that says the node of a pod.
pub(super) const NODE: &str = "kubernetes.io/hostname";
/// Annotation of a Service that says which endpoints it prefers.
const DISTRIBUTION: &str = "networking.istio.io/traffic-distribution";

/// The gateway's own place.
pub(super) struct Origin<'a> {
    locality: Arc<str>,
    labels: Cow<'a, BTreeMap<String, String>>,
}

impl<'a> Origin<'a> {
    /// As the labels of the gateway's pods say.
    pub(super) fn of(identity: &'a Identity) -> Self {
        let locality = of_pod(Some(&identity.labels), None);
        let mut labels = Cow::Borrowed(&identity.labels);
        if !locality.is_empty() {
            describe(labels.to_mut(), &locality, "", "");
        }
        Self { locality, labels }
    }
}

/// Locality of a pod by its labels; `zone` is what its EndpointSlice says, which knows no region.
pub(super) fn of_pod(labels: Option<&BTreeMap<String, String>>, zone: Option<&str>) -> Arc<str> {
    let label = |name: &str| labels.and_then(|labels| labels.get(name)).map(String::as_str);
    if let Some(written) = label(LABEL).filter(|written| !written.is_empty()) {
        // A dot is part of a name where slashes are used.
        return if written.contains('/') { written.into() } else { written.replace('.', "/").into() };
    }
    join(
        label(REGION).unwrap_or_default(),
        label(ZONE).or(zone).unwrap_or_default(),
        label(SUBZONE).unwrap_or_default(),
    )
}

/// Locality of a WorkloadEntry: its field, else its label.
pub(super) fn of_workload(workload: &WorkloadEntry) -> Arc<str> {
    if workload.locality.is_empty() {
        of_pod(Some(&workload.labels), None)
    } else {
        workload.locality.as_str().into()
    }
}

fn join(region: &str, zone: &str, subzone: &str) -> Arc<str> {
    let joined = format!("{region}/{zone}/{subzone}");
    joined.trim_end_matches('/').into()
}

/// Writes where an endpoint is into its labels, over what they say (Istio: `AugmentLabels`): subsets and
/// `failoverPriority` are compared with them.
pub(super) fn describe(labels: &mut BTreeMap<String, String>, locality: &str, node: &str, network: &str) {
    let [region, zone, subzone] = parts(locality);
    for (name, value) in
        [(REGION, region), (ZONE, zone), (SUBZONE, subzone), (NODE, node), (NETWORK, network)]
    {
        if !value.is_empty() {
            labels.insert(name.to_owned(), value.to_owned());
        }
    }
}

/// How the endpoints of a cluster are placed.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Placing<'a> {
    distribute: &'a [LocalityDistribute],
    failover: &'a [LocalityFailover],
    labels: Cow<'a, [String]>,
    forced: Force,
    grain: Grain,
}

/// Whether endpoints have priorities although nobody notices that they fail.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
enum Force {
    #[default]
    WithOutlierDetection,
    Always,
}

/// What counts as near.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
enum Grain {
    /// The same subzone, zone, region.
    #[default]
    Subzone,
    /// The same region: within it zones are alike.
    Region,
}

impl<'a> Placing<'a> {
    /// What is in force: the rule's own, else what the Service prefers, else the mesh's (Istio: `GetEffectiveLbSetting`);
    /// `None` where that is disabled.
    pub(super) fn of(
        balancer: Option<&'a LoadBalancerSettings>,
        service: Option<(&Resource<kubernetes::Service>, Option<&Namespace>)>,
        mesh: &'a LocalityLbSetting,
    ) -> Option<Self> {
        if let Some(zones) = balancer.and_then(|balancer| balancer.zone_aware_lb_setting.as_ref()) {
            return (zones.enabled != Some(false)).then_some(Self {
                failover: &zones.failover,
                labels: Cow::Borrowed(&zones.failover_priority),
                forced: Force::Always,
                grain: Grain::Region,
                ..Self::default()
            });
        }
        if let Some(own) = balancer.and_then(|balancer| balancer.locality_lb_setting.as_ref()) {
            return Self::of_locality(own);
        }
        let preferred: &[&str] = match service.map(|(own, of)| distribution(own, of)).unwrap_or_default() {
            Distribution::Any => return Self::of_locality(mesh),
            Distribution::SameZone => &[NETWORK, REGION, ZONE],
            Distribution::SameNode => &[NETWORK, REGION, ZONE, SUBZONE, NODE],
        };
        let labels = preferred.iter().map(|label| (*label).to_owned()).collect();
        Some(Self { labels: Cow::Owned(labels), forced: Force::Always, ..Self::default() })
    }

    fn of_locality(setting: &'a LocalityLbSetting) -> Option<Self> {
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

/// Gives each endpoint its priority or share; those that get no share leave.
pub(super) fn place(
    endpoints: &mut Vec<Endpoint>,
    placing: &Placing<'_>,
    origin: &Origin<'_>,
    outlier_detection: bool,
) {
    if !placing.distribute.is_empty() {
        let covers = |entry: &&LocalityDistribute| matches(&entry.from, &origin.locality);
        if !origin.locality.is_empty()
            && let Some(entry) = placing.distribute.iter().find(covers)
        {
            distribute(endpoints, entry);
        }
        return;
    }
    if !outlier_detection && placing.forced == Force::WithOutlierDetection {
        return;
    }
    let by_labels = !placing.labels.is_empty();
    let by_place = !origin.locality.is_empty()
        && (placing.grain == Grain::Region || !by_labels || !placing.failover.is_empty());
    if !by_labels && !by_place {
        return;
    }
    let mut priorities: Vec<u32> = endpoints
        .iter()
        .map(|endpoint| {
            let label =
                if by_labels { by_label(&placing.labels, &origin.labels, &endpoint.labels) } else { 0 };
            let distance = match placing.grain {
                _ if !by_place => 0,
                Grain::Subzone => by_distance(&origin.locality, &endpoint.place.locality, placing.failover),
                Grain::Region => by_region(&origin.locality, &endpoint.place.locality, placing.failover),
            };
            // Labels come first: there are fewer than five distances.
            label * 5 + distance
        })
        .collect();
    // No gaps: the nearest that exists is preferred.
    let mut used = priorities.clone();
    used.sort_unstable();
    used.dedup();
    for priority in &mut priorities {
        *priority = u32::try_from(used.partition_point(|known| known < priority)).unwrap_or(u32::MAX);
    }
    for (endpoint, priority) in endpoints.iter_mut().zip(priorities) {
        endpoint.place.priority = priority;
    }
}

/// Istio: `applyLocalityWeights`. What several localities share is split by their endpoints' weights.
fn distribute(endpoints: &mut Vec<Endpoint>, entry: &LocalityDistribute) {
    let mut weights: BTreeMap<Arc<str>, u64> = BTreeMap::new();
    for endpoint in endpoints.iter() {
        *weights.entry(endpoint.place.locality.clone()).or_default() += u64::from(endpoint.weight.max(1));
    }
    let mut shares: BTreeMap<Arc<str>, u32> = BTreeMap::new();
    for (to, percent) in &entry.to {
        let taken: Vec<_> = weights
            .iter()
            .filter(|(locality, _)| !shares.contains_key(*locality) && matches(to, locality))
            .map(|(locality, weight)| (locality.clone(), *weight))
            .collect();
        let total: u64 = taken.iter().map(|(_, weight)| weight).sum();
        for (locality, weight) in taken {
            let share = (u64::from(*percent) * 1000 * weight).checked_div(total).unwrap_or(0);
            shares.insert(locality, u32::try_from(share.max(1)).unwrap_or(u32::MAX));
        }
    }
    endpoints.retain_mut(|endpoint| match shares.get(&endpoint.place.locality) {
        Some(share) => {
            endpoint.place = Place { share: Some(*share), ..endpoint.place.clone() };
            true
        }
        None => false,
    });
}

/// Region, zone and subzone; empty where they are not known.
fn parts(locality: &str) -> [&str; 3] {
    let mut parts = locality.splitn(3, '/');
    [(); 3].map(|()| parts.next().unwrap_or_default())
}

/// Region, zone and subzone of an endpoint: an EndpointSlice knows the zone only, and a zone is of one region.
fn seen_from<'l>(own: &[&'l str; 3], other: &'l str) -> [&'l str; 3] {
    let [region, zone, subzone] = parts(other);
    let known = if region.is_empty() && !zone.is_empty() && zone == own[1] { own[0] } else { region };
    [known, zone, subzone]
}

/// Same subzone, zone, region, elsewhere; a region that another is to take over for comes last (Istio: `LbPriority`,
/// `applyLocalityFailover`).
fn by_distance(own: &str, other: &str, failover: &[LocalityFailover]) -> u32 {
    let own = parts(own);
    let other = seen_from(&own, other);
    let ([own_region, own_zone, own_subzone], [region, zone, subzone]) = (own, other);
    if own_region != region {
        let named = failover.iter().find(|entry| entry.from == own_region);
        return if named.is_some_and(|entry| entry.to != region) { 4 } else { 3 };
    }
    if own_zone != zone { 2 } else { u32::from(own_subzone != subzone) }
}

/// The same region, the one that takes over for it, elsewhere (Istio: `applyZoneAwareRegionalFailover`).
fn by_region(own: &str, other: &str, failover: &[LocalityFailover]) -> u32 {
    let own = parts(own);
    let [region, ..] = seen_from(&own, other);
    let [own_region, ..] = own;
    if own_region == region {
        return 0;
    }
    let named = failover.iter().find(|entry| entry.from == own_region);
    if named.is_some_and(|entry| entry.to == region) { 1 } else { 2 }
}

/// By how many labels, in their order, are the same until the first that is not; where the network comes first, another
/// network is farther than anything in the same one (Istio: `applyFailoverPriorityPerLocality`).
fn by_label(wanted: &[String], own: &BTreeMap<String, String>, other: &BTreeMap<String, String>) -> u32 {
    let value = |labels: &BTreeMap<String, String>, key: &str| labels.get(key).cloned().unwrap_or_default();
    let same = |label: &String| match label.split_once('=') {
        Some((key, value)) => other.get(key).map_or("", String::as_str) == value,
        None if label == REGION && !other.contains_key(REGION) && other.contains_key(ZONE) => {
            // A zone without its region is of the region where that zone is known.
            value(own, ZONE) == value(other, ZONE)
        }
        None => value(own, label) == value(other, label),
    };
    let lowest = wanted.len();
    let networks = wanted.first().is_some_and(|first| first == NETWORK);
    let far = if networks && wanted.first().is_some_and(|first| !same(first)) { lowest } else { 0 };
    let skipped = usize::from(far > 0);
    let met = skipped + wanted.iter().skip(skipped).take_while(|label| same(label)).count();
    u32::try_from(lowest - met + far).unwrap_or(u32::MAX / 8)
}

/// Whether a locality is one that a rule names: `*` stands for the rest (Istio: util.go `LocalityMatch`).
fn matches(rule: &str, locality: &str) -> bool {
    let mut parts = locality.split('/');
    for wanted in rule.split('/') {
        if wanted == "*" {
            return true;
        }
        if parts.next().unwrap_or_default() != wanted {
            return false;
        }
    }
    parts.all(str::is_empty)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::Address;

    fn at(locality: &str, labels: &[(&str, &str)]) -> Endpoint {
        let mut endpoint = Endpoint::at(Address::Ip(([10, 0, 0, 1], 80).into()));
        endpoint.place.locality = locality.into();
        endpoint.labels = labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        endpoint
    }

    fn placed(
        yaml: &str,
        own: &[(&str, &str)],
        mut endpoints: Vec<Endpoint>,
        outlier: bool,
    ) -> Vec<(String, u32, Option<u32>)> {
        let setting: LocalityLbSetting = config_model::parse::value(yaml).unwrap();
        let labels = own.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let identity = Identity { labels, ..Identity::default() };
        let placing = Placing::of_locality(&setting).unwrap();
        place(&mut endpoints, &placing, &Origin::of(&identity), outlier);
        endpoints
            .into_iter()
            .map(|e| (e.place.locality.to_string(), e.place.priority, e.place.share))
            .collect()
    }

    fn everywhere() -> Vec<Endpoint> {
        ["r1/z1/s1", "r1/z1/s2", "r1/z2", "r2/z1", "r3/z1"].map(|l| at(l, &[])).into()
    }

    const HOME: &[(&str, &str)] = &[(LABEL, "r1.z1.s1")];

    #[test]
    fn the_nearest_is_preferred_where_failure_is_noticed() {
        let priorities = |yaml, own, outlier| -> Vec<u32> {
            placed(yaml, own, everywhere(), outlier).into_iter().map(|(_, priority, _)| priority).collect()
        };
        assert_eq!(priorities("{}", HOME, true), [0, 1, 2, 3, 3]);
        assert_eq!(priorities("{}", HOME, false), [0; 5]);
        assert_eq!(priorities("{}", &[], true), [0; 5]);
        assert_eq!(priorities("{failover: [{from: r1, to: r3}]}", HOME, true), [0, 1, 2, 4, 3]);
        let by_zone = placed("{}", HOME, vec![at("/z1", &[]), at("/z9", &[])], true);
        assert_eq!((by_zone[0].1, by_zone[1].1), (0, 1), "a zone without its region");
        let elsewhere = placed("{}", &[(REGION, "r3"), (ZONE, "z1")], everywhere(), true);
        assert_eq!(elsewhere[4].1, 0);
        assert_eq!(elsewhere[0].1, 1, "priorities have no gaps");
    }

    #[test]
    fn labels_give_priority_in_their_order() {
        let own = &[("a", "1"), ("b", "2")];
        let endpoints = vec![at("", &[("a", "1"), ("b", "2")]), at("", &[("a", "1")]), at("", &[("b", "2")])];
        let got = placed("{failoverPriority: [a, b]}", own, endpoints.clone(), true);
        assert_eq!(got.iter().map(|(_, priority, _)| *priority).collect::<Vec<_>>(), [0, 1, 2]);
        let got = placed("{failoverPriority: ['b=2']}", &[], endpoints, true);
        assert_eq!(got.iter().map(|(_, priority, _)| *priority).collect::<Vec<_>>(), [0, 1, 0]);
    }

    #[test]
    fn zones_of_the_own_region_are_alike_and_need_no_outlier_detection() {
        let priorities = |yaml: &str| -> Option<Vec<u32>> {
            let balancer: LoadBalancerSettings = config_model::parse::value(yaml).unwrap();
            let mesh = LocalityLbSetting::default();
            let placing = Placing::of(Some(&balancer), None, &mesh)?;
            let labels = HOME.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
            let identity = Identity { labels, ..Identity::default() };
            let mut endpoints = everywhere();
            place(&mut endpoints, &placing, &Origin::of(&identity), false);
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
        let mesh = LocalityLbSetting::default();
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
            place(&mut endpoints, &placing, &Origin::of(&identity), false);
            endpoints.into_iter().map(|e| e.place.priority).collect()
        };
        assert_eq!(near("", ""), [0, 0, 0, 0, 0]);
        assert_eq!(near("trafficDistribution: PreferClose", ""), [0, 0, 1, 0, 2]);
        assert_eq!(near("trafficDistribution: PreferSameZone", ""), [0, 0, 1, 0, 2]);
        assert_eq!(near("trafficDistribution: PreferSameNode", ""), [0, 1, 2, 1, 3]);
        let annotation = ", networking.istio.io/traffic-distribution: PreferClose";
        assert_eq!(near("", annotation), [0, 0, 1, 0, 2]);
    }

    #[test]
    fn shares_go_where_they_are_sent_and_nobody_else_gets_any() {
        let yaml = "{distribute: [{from: 'r2/*', to: {r2/z1: 100}}, {from: 'r1/z1/*', to: {'r1/z1/*': 70, 'r2/*': 30}}]}";
        let got = placed(yaml, HOME, everywhere(), false);
        assert_eq!(
            got,
            [
                ("r1/z1/s1".to_owned(), 0, Some(35_000)),
                ("r1/z1/s2".to_owned(), 0, Some(35_000)),
                ("r2/z1".to_owned(), 0, Some(30_000)),
            ]
        );
        assert_eq!(placed(yaml, &[], everywhere(), false).len(), 5, "no own place, no rule");
    }

    #[test]
    fn a_star_stands_for_the_rest() {
        for (rule, locality, wanted) in [
            ("*", "r/z/s", true),
            ("r/*", "r/z/s", true),
            ("r/z", "r/z", true),
            ("r/z", "r/z/s", false),
            ("r/z/s", "r/z", false),
            ("r2/*", "r/z", false),
        ] {
            assert_eq!(matches(rule, locality), wanted, "{rule} {locality}");
        }
    }

    #[test]
    fn a_pods_label_beats_its_topology() {
        let labels =
            |list: &[(&str, &str)]| list.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        assert_eq!(&*of_pod(Some(&labels(&[(LABEL, "a.b"), (REGION, "r")])), None), "a/b");
        assert_eq!(&*of_pod(Some(&labels(&[(REGION, "r"), (ZONE, "z")])), Some("y")), "r/z");
        assert_eq!(&*of_pod(None, Some("y")), "/y");
        assert_eq!(&*of_pod(None, None), "");
    }
}
