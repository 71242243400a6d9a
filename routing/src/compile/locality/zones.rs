//! Where the gateway's own replicas are, so that each sends what it gets to its own zone as far as that has the endpoints for it.
//!
//! Invariant: as Envoy's zone-aware routing with Istio's `local_cluster`: replicas count that run the same version in the same
//! region; where all of them are in one zone, or the own one has none, zones are alike.

use super::{parts, seen_from};
use crate::cluster::{Endpoint, Health, Share, Zone};
use std::collections::BTreeMap;

/// Labels that tell the versions of a workload apart (Istio: endpoint_builder.go, the self-discovery cluster).
const VERSIONS: [&str; 2] = ["pod-template-hash", "rollouts-pod-template-hash"];
/// All replicas.
const WHOLE: u64 = 10_000;

/// Where the gateway's replicas are.
#[derive(Debug, Default, PartialEq)]
pub(in crate::compile) struct Replicas {
    /// Those that are ready, by region, zone and subzone; a zone whose replicas are not ready is there all the same.
    by_place: BTreeMap<[String; 3], u64>,
}

impl Replicas {
    /// Of the endpoints of the gateway's own Service: those in its region, and of its version where it knows that.
    pub(in crate::compile) fn of(
        endpoints: &[Endpoint],
        own: &str,
        labels: &BTreeMap<String, String>,
    ) -> Self {
        let own = parts(own);
        let mut by_place: BTreeMap<[String; 3], u64> = BTreeMap::new();
        for endpoint in endpoints {
            let same_version = VERSIONS
                .iter()
                .all(|label| labels.get(*label).is_none_or(|own| endpoint.labels.get(*label) == Some(own)));
            let place = seen_from(&own, &endpoint.place.locality);
            if same_version && place[0] == own[0] {
                *by_place.entry(place.map(str::to_owned)).or_default() +=
                    u64::from(endpoint.health == Health::Healthy);
            }
        }
        Self { by_place }
    }

    /// How many of each 10,000 are there.
    fn share(&self, place: &[&str; 3]) -> u16 {
        let all: u64 = self.by_place.values().sum();
        let here = self.by_place.get(&place.map(str::to_owned)).copied().unwrap_or_default();
        let share = (here * WHOLE).checked_div(all).unwrap_or_default();
        u16::try_from(share).unwrap_or(u16::MAX)
    }

    /// Gives the endpoints of the first priority the share of their zone, seen from `own`, where there are at least `least`.
    pub(super) fn place(&self, endpoints: &mut [Endpoint], own: &str, least: u32) {
        let own = parts(own);
        // Envoy: `earlyExitNonLocalityRouting`.
        if self.by_place.len() < 2 || !self.by_place.contains_key(&own.map(str::to_owned)) {
            return;
        }
        for endpoint in endpoints.iter_mut().filter(|endpoint| endpoint.place.priority == 0) {
            let place = seen_from(&own, &endpoint.place.locality);
            let zone = Zone { own: place == own, replicas: self.share(&place), least };
            endpoint.place.share = Share::Zone(zone);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::tests::at, *};

    fn labels(hash: &str) -> BTreeMap<String, String> {
        BTreeMap::from([("pod-template-hash".to_owned(), hash.to_owned())])
    }

    fn shares(replicas: &[&str], own: &str) -> Vec<Share> {
        let replicas: Vec<Endpoint> =
            replicas.iter().map(|at_place| at(at_place, &[("pod-template-hash", "v2")])).collect();
        let replicas = Replicas::of(&replicas, own, &labels("v2"));
        let mut endpoints = ["r/a", "/b", "r/c", "s/a"].map(|place| at(place, &[]));
        endpoints[3].place.priority = 1;
        replicas.place(&mut endpoints, own, 3);
        endpoints.map(|endpoint| endpoint.place.share).into()
    }

    #[test]
    fn endpoints_of_the_first_priority_know_how_many_replicas_are_beside_them() {
        let zone = |own, replicas| Share::Zone(Zone { own, replicas, least: 3 });
        assert_eq!(
            shares(&["r/a", "r/a", "r/b", "s/a"], "r/a"),
            [zone(true, 6_666), zone(false, 3_333), zone(false, 0), Share::ByWeight],
            "replicas of other regions do not count"
        );
    }

    #[test]
    fn zones_are_alike_where_there_is_nothing_to_compare_with() {
        assert_eq!(shares(&["r/a", "r/a"], "r/a"), [Share::ByWeight; 4]);
        assert_eq!(shares(&["r/b", "r/c"], "r/a"), [Share::ByWeight; 4]);
        assert_eq!(shares(&[], "r/a"), [Share::ByWeight; 4]);
    }

    #[test]
    fn replicas_of_another_version_do_not_count_and_ill_ones_hold_their_zone() {
        let mut replicas = [
            at("r/a", &[("pod-template-hash", "v2")]),
            at("r/b", &[("pod-template-hash", "v2")]),
            at("r/b", &[("pod-template-hash", "v1")]),
        ];
        replicas[1].health = Health::Unhealthy;
        let counted = Replicas::of(&replicas, "r/a", &labels("v2"));
        assert_eq!((counted.share(&["r", "a", ""]), counted.share(&["r", "b", ""])), (10_000, 0));
        assert_eq!(counted.by_place.len(), 2);
        let counted = Replicas::of(&replicas, "r/a", &BTreeMap::new());
        assert_eq!(
            counted.share(&["r", "b", ""]),
            5_000,
            "a gateway that does not know its version counts all"
        );
    }
}
