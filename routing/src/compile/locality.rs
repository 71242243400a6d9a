//! Where endpoints stand from the gateway's point of view: localities, priorities and shares.
//!
//! Invariant: the rules are Istio's (networking/core/loadbalancer): failover needs outlier detection, unless a Service or
//! `zoneAwareLbSetting` asks for it, and `distribute` does not; a gateway that does not know where it is prefers nobody.

mod placing;
mod zones;

pub(super) use placing::Placing;
pub(super) use zones::Replicas;

use super::Identity;
use crate::cluster::{Endpoint, Place, Share};
use config_model::istio::{
    WorkloadEntry,
    destination_rule::{LocalityDistribute, LocalityFailover},
};
use placing::{Force, Grain};
use std::{borrow::Cow, collections::BTreeMap, sync::Arc};

/// Label that says a pod's locality, dots for slashes (Istio: `LocalityLabel`).
const LABEL: &str = "istio-locality";
const REGION: &str = "topology.kubernetes.io/region";
const ZONE: &str = "topology.kubernetes.io/zone";
const SUBZONE: &str = "topology.istio.io/subzone";
/// Label that says the network of a pod.
pub(super) const NETWORK: &str = "topology.istio.io/network";
/// Label that says the node of a pod.
pub(super) const NODE: &str = "kubernetes.io/hostname";

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

    /// `region/zone/subzone`, as much of it as is known.
    pub(super) fn locality(&self) -> &str {
        &self.locality
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

/// Locality of a WorkloadEntry with these labels: its field, else its label.
pub(super) fn of_workload(workload: &WorkloadEntry, labels: &BTreeMap<String, String>) -> Arc<str> {
    if workload.locality.is_empty() { of_pod(Some(labels), None) } else { workload.locality.as_str().into() }
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

/// Gives each endpoint its priority or share; those that get no share leave. `replicas` are the gateway's, where its endpoints
/// can be told apart by zone.
pub(super) fn place(
    endpoints: &mut Vec<Endpoint>,
    placing: &Placing<'_>,
    origin: &Origin<'_>,
    outlier_detection: bool,
    replicas: Option<&Replicas>,
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
        && (matches!(placing.grain, Grain::Region(_)) || !by_labels || !placing.failover.is_empty());
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
                Grain::Region(_) => by_region(&origin.locality, &endpoint.place.locality, placing.failover),
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
    if let (Grain::Region(least), Some(replicas), true) = (placing.grain, replicas, by_place) {
        replicas.place(endpoints, &origin.locality, least);
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
            endpoint.place = Place { share: Share::Of(*share), ..endpoint.place.clone() };
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

/// Region, zone and subzone of an endpoint: an EndpointSlice knows the zone only, and a cluster is of one region.
fn seen_from<'l>(own: &[&'l str; 3], other: &'l str) -> [&'l str; 3] {
    let [region, zone, subzone] = parts(other);
    let known = if region.is_empty() && !zone.is_empty() { own[0] } else { region };
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
            // As in [`seen_from`].
            true
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
    use config_model::istio::destination_rule::LocalityLbSetting;

    pub(super) fn at(locality: &str, labels: &[(&str, &str)]) -> Endpoint {
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
    ) -> Vec<(String, u32, Share)> {
        let setting: LocalityLbSetting = config_model::parse::value(yaml).unwrap();
        let labels = own.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let identity = Identity { labels, ..Identity::default() };
        let placing = Placing::of_locality(&setting).unwrap();
        place(&mut endpoints, &placing, &Origin::of(&identity), outlier, None);
        endpoints
            .into_iter()
            .map(|e| (e.place.locality.to_string(), e.place.priority, e.place.share))
            .collect()
    }

    pub(super) fn everywhere() -> Vec<Endpoint> {
        ["r1/z1/s1", "r1/z1/s2", "r1/z2", "r2/z1", "r3/z1"].map(|l| at(l, &[])).into()
    }

    pub(super) const HOME: &[(&str, &str)] = &[(LABEL, "r1.z1.s1")];

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
    fn shares_go_where_they_are_sent_and_nobody_else_gets_any() {
        let yaml = "{distribute: [{from: 'r2/*', to: {r2/z1: 100}}, {from: 'r1/z1/*', to: {'r1/z1/*': 70, 'r2/*': 30}}]}";
        let got = placed(yaml, HOME, everywhere(), false);
        assert_eq!(
            got,
            [
                ("r1/z1/s1".to_owned(), 0, Share::Of(35_000)),
                ("r1/z1/s2".to_owned(), 0, Share::Of(35_000)),
                ("r2/z1".to_owned(), 0, Share::Of(30_000)),
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
