//! Choosing one endpoint of a cluster.
//!
//! Invariant: an endpoint that is not healthy is never picked. What varies (load, chance, whose turn it is) is an
//! argument; picking allocates nothing.

mod endpoints;
mod group;
mod least_request;
mod maglev;
mod priority;
mod ring;
mod zones;

pub use endpoints::{EndpointSet, Fitness, configured};

use crate::cluster::LbPolicy;

/// How busy each endpoint is.
pub trait LoadView {
    /// Requests in flight at the endpoint with this index in the cluster.
    fn active(&self, index: usize) -> u32;
}

/// What one pick depends on besides endpoints and load.
#[derive(Clone, Copy, Debug, Default)]
pub struct Turn {
    /// Counts picks; used by round robin alone.
    pub cursor: u64,
    /// Hash of the request's key, where the choice is by a hash and the request has one.
    pub hash: Option<u64>,
    /// Number of the pick for this request, from 0: by a hash, each further one falls elsewhere.
    pub attempt: u32,
}

/// Picks an endpoint by its index in the cluster; `None` when none may be picked. `endpoints` were prepared for `policy`.
///
/// `entropy` gives values uniform over `u64`.
#[must_use]
pub fn pick(
    policy: LbPolicy,
    endpoints: &EndpointSet,
    load: &(impl LoadView + ?Sized),
    entropy: &mut impl FnMut() -> u64,
    turn: Turn,
) -> Option<usize> {
    match policy {
        LbPolicy::LeastRequest => least_request::pick(endpoints.group(&mut *entropy)?, load, entropy),
        LbPolicy::RoundRobin => endpoints.group(entropy)?.in_turn(turn.cursor),
        LbPolicy::Random => endpoints.group(&mut *entropy)?.by_weight(entropy()),
        LbPolicy::RingHash { .. } | LbPolicy::Maglev { .. } => {
            let hash = turn.hash.unwrap_or_else(entropy);
            // Envoy: `ThreadAwareLoadBalancerBase`, retried picks are hashed on.
            let hash = if turn.attempt == 0 { hash } else { hash ^ mix(u64::from(turn.attempt)) };
            // Mixed, so that the group and the place in it do not hang together.
            endpoints.group(|| mix(hash))?.by_hash(hash)
        }
    }
}

/// The finaliser of splitmix64 (Steele, Lea, Flood): one number to another, evenly.
fn mix(number: u64) -> u64 {
    let z = number.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// Maps a value uniform over `u64` on `0..total`, without a division and with a bias below one in 2⁶⁴ per slot.
fn scale(entropy: u64, total: u64) -> u64 {
    ((u128::from(entropy) * u128::from(total)) >> 64) as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::{Address, Endpoint, Health, Share, Zone};

    struct Active(Vec<u32>);

    impl LoadView for Active {
        fn active(&self, index: usize) -> u32 {
            self.0[index]
        }
    }

    fn generator() -> impl FnMut() -> u64 {
        let mut state = 7_u64;
        move || {
            state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
            mix(state)
        }
    }

    fn endpoint(index: usize, weight: u32) -> Endpoint {
        let ip = [10, 0, (index / 250) as u8, (index % 250) as u8];
        Endpoint {
            weight: weight.max(1),
            health: if weight == 0 { Health::Unhealthy } else { Health::Healthy },
            ..Endpoint::at(Address::Ip((ip, 80).into()))
        }
    }

    fn endpoints(weights: &[u32]) -> Vec<Endpoint> {
        weights.iter().enumerate().map(|(index, weight)| endpoint(index, *weight)).collect()
    }

    fn prepared(policy: LbPolicy, endpoints: &[Endpoint]) -> EndpointSet {
        EndpointSet::build(policy, 0, endpoints, |_, endpoint| configured(endpoint))
    }

    fn shares_of(policy: LbPolicy, set: &EndpointSet, active: &[u32], picks: u64) -> Vec<u64> {
        let (load, mut entropy) = (Active(active.to_vec()), generator());
        let mut shares = vec![0; active.len()];
        for cursor in 0..picks {
            let turn = Turn { cursor, ..Turn::default() };
            shares[pick(policy, set, &load, &mut entropy, turn).unwrap()] += 1;
        }
        shares
    }

    fn shares(policy: LbPolicy, weights: &[u32], active: &[u32], picks: u64) -> Vec<u64> {
        shares_of(policy, &prepared(policy, &endpoints(weights)), active, picks)
    }

    fn near(got: &[u64], want: &[u64]) {
        for (g, w) in got.iter().zip(want) {
            assert!(g.abs_diff(*w) <= 300, "{got:?} is not near {want:?}");
        }
    }

    const RING: LbPolicy = LbPolicy::RingHash { minimum: 65_536 };
    const MAGLEV: LbPolicy = LbPolicy::Maglev { size: 65_537 };
    const ALL: [LbPolicy; 5] = [LbPolicy::LeastRequest, LbPolicy::RoundRobin, LbPolicy::Random, RING, MAGLEV];

    #[test]
    fn nothing_healthy_nothing_picked() {
        for policy in ALL {
            for weights in [&[][..], &[0, 0]] {
                let load = Active(vec![0; 2]);
                let set = prepared(policy, &endpoints(weights));
                assert_eq!(pick(policy, &set, &load, &mut generator(), Turn::default()), None);
            }
        }
    }

    #[test]
    fn the_unhealthy_are_never_picked_and_idle_equals_share_evenly() {
        for policy in ALL {
            let got = shares(policy, &[0, 1, 1, 0, 1], &[0; 5], 9_000);
            near(&got, &[0, 3_000, 3_000, 0, 3_000]);
            assert_eq!((got[0], got[3]), (0, 0));
        }
    }

    #[test]
    fn weights_share_in_proportion() {
        for policy in ALL {
            near(&shares(policy, &[1, 2, 0, 3], &[0; 4], 12_000), &[2_000, 4_000, 0, 6_000]);
        }
    }

    #[test]
    fn round_robin_takes_turns() {
        let set = prepared(LbPolicy::RoundRobin, &endpoints(&[1, 0, 1, 1]));
        let load = Active(vec![0; 4]);
        let turn = |cursor| {
            pick(LbPolicy::RoundRobin, &set, &load, &mut || 0, Turn { cursor, ..Turn::default() }).unwrap()
        };
        assert_eq!([turn(0), turn(1), turn(2), turn(3), turn(u64::MAX)], [0, 2, 3, 0, 0]);
    }

    #[test]
    fn least_request_never_picks_the_busiest_of_two() {
        assert_eq!(shares(LbPolicy::LeastRequest, &[1, 1], &[5, 4], 1_000), [0, 1_000]);
        let got = shares(LbPolicy::LeastRequest, &[1, 1, 1], &[9, 0, 0], 9_000);
        assert_eq!(got[0], 0, "two distinct endpoints are compared, so the busiest always loses");
    }

    #[test]
    fn least_request_scales_weights_by_load() {
        near(&shares(LbPolicy::LeastRequest, &[1, 2], &[0, 3], 6_000), &[4_000, 2_000]);
        assert!(
            shares(LbPolicy::LeastRequest, &[1, 2], &[u32::MAX, u32::MAX], 100).iter().sum::<u64>() == 100
        );
    }

    #[test]
    fn one_endpoint_takes_all() {
        for policy in ALL {
            assert_eq!(shares(policy, &[3], &[9], 10), [10]);
        }
    }

    #[test]
    fn of_many_with_weights_the_less_loaded_of_two_by_weight_is_picked() {
        let mut weights = vec![1; 40];
        weights[7] = 41;
        let got = shares(LbPolicy::LeastRequest, &weights, &[0; 40], 8_000);
        assert!((3_000..6_500).contains(&got[7]), "half of the weight: {}", got[7]);
        let mut active = [0; 40];
        active[7] = 4_000;
        assert!(shares(LbPolicy::LeastRequest, &weights, &active, 8_000)[7] < 2_800);
    }

    fn owners(policy: LbPolicy, endpoints: &[Endpoint], keys: u64) -> Vec<Address> {
        let set = prepared(policy, endpoints);
        let load = Active(vec![0; endpoints.len()]);
        let owner = |key: u64| {
            let turn = Turn { hash: Some(mix(key)), ..Turn::default() };
            let index = pick(policy, &set, &load, &mut || panic!("no chance is asked for"), turn).unwrap();
            endpoints[index].address.clone()
        };
        (0..keys).map(owner).collect()
    }

    #[test]
    fn an_endpoint_more_of_n_moves_one_nth_of_the_keys_and_only_to_itself() {
        for (policy, disorder) in [(RING, 0), (LbPolicy::RingHash { minimum: 1024 }, 0), (MAGLEV, 500)] {
            let before = endpoints(&[1; 50]);
            let after = endpoints(&[1; 51]);
            let (old, new) = (owners(policy, &before, 20_000), owners(policy, &after, 20_000));
            let moved = old.iter().zip(&new).filter(|(a, b)| a != b).count();
            let elsewhere = old.iter().zip(&new).filter(|(a, b)| a != b && **b != after[50].address).count();
            // 20,000/51 keys belong to the new one; a table lets a few of the others move, a ring none.
            assert!((190..=600 + disorder).contains(&moved), "{policy:?} moved {moved}");
            assert!(elsewhere <= disorder, "{policy:?} moved {elsewhere} to others");
        }
    }

    #[test]
    fn the_keys_of_an_endpoint_that_fails_go_elsewhere_and_the_others_stay() {
        for policy in [RING, MAGLEV] {
            let mut weights = [1; 20];
            let old = owners(policy, &endpoints(&weights), 20_000);
            weights[3] = 0;
            let ill = endpoints(&weights);
            let new = owners(policy, &ill, 20_000);
            let lost = &ill[3].address;
            assert!(new.iter().all(|owner| owner != lost));
            let others = old.iter().zip(&new).filter(|(a, b)| a != b && *a != lost).count();
            assert!(others < 500, "{policy:?} moved {others} keys of others");
        }
    }

    #[test]
    fn a_key_stays_with_its_endpoint_and_a_retry_goes_elsewhere() {
        for policy in [RING, MAGLEV] {
            let all = endpoints(&[1; 10]);
            let set = prepared(policy, &all);
            let load = Active(vec![0; 10]);
            let at = |attempt| {
                let turn = Turn { hash: Some(42), attempt, ..Turn::default() };
                pick(policy, &set, &load, &mut || 0, turn).unwrap()
            };
            assert_eq!(at(0), at(0));
            assert!((1..6).any(|attempt| at(attempt) != at(0)));
        }
    }

    fn placed(index: usize, priority: u32, locality: &str, share: Share, weight: u32) -> Endpoint {
        let place = crate::cluster::Place { locality: locality.into(), priority, share };
        Endpoint { place, ..endpoint(index, weight) }
    }

    #[test]
    fn priorities_spill_as_envoys_do() {
        for policy in ALL {
            // Half of the first priority is ill: 70 % stay.
            let all: Vec<_> = (0..8)
                .map(|i| placed(i, u32::from(i >= 4), "", Share::ByWeight, u32::from(i >= 2)))
                .collect();
            let got = shares_of(policy, &prepared(policy, &all), &[0; 8], 10_000);
            assert_eq!(got[..2], [0, 0]);
            let first: u64 = got[2..4].iter().sum();
            assert!(first.abs_diff(7_000) < 300, "{policy:?}: {got:?}");
        }
    }

    #[test]
    fn localities_share_as_distributed_whatever_their_size() {
        for policy in ALL {
            let all: Vec<_> = (0..5)
                .map(|i| {
                    placed(i, 0, if i == 0 { "a" } else { "b" }, Share::Of(if i == 0 { 80 } else { 20 }), 1)
                })
                .collect();
            let got = shares_of(policy, &prepared(policy, &all), &[0; 5], 10_000);
            assert!(got[0].abs_diff(8_000) < 300, "{policy:?}: {got:?}");
            assert!(got[1..].iter().all(|n| n.abs_diff(500) < 200), "{policy:?}: {got:?}");
        }
    }

    #[test]
    fn traffic_stays_in_the_zone_until_its_endpoints_fail() {
        let zone = |own| Share::Zone(Zone { own, replicas: 5_000, least: 4 });
        let all = |ill: usize| -> Vec<_> {
            let one = |i| placed(i, 0, if i < 4 { "a" } else { "b" }, zone(i < 4), u32::from(i >= ill));
            (0..8).map(one).collect()
        };
        for policy in [LbPolicy::LeastRequest, LbPolicy::RoundRobin, LbPolicy::Random] {
            near(&shares_of(policy, &prepared(policy, &all(0)), &[0; 8], 8_000)[..4], &[2_000; 4]);
            // Two of six are left in it, a third, for half of the replicas.
            let got = shares_of(policy, &prepared(policy, &all(2)), &[0; 8], 9_000);
            assert!(got[2..4].iter().sum::<u64>().abs_diff(6_000) < 300, "{policy:?}: {got:?}");
            let got = shares_of(policy, &prepared(policy, &all(4)), &[0; 8], 8_000);
            near(&got, &[0, 0, 0, 0, 2_000, 2_000, 2_000, 2_000]);
        }
    }

    #[test]
    fn in_panic_the_ill_are_used_too() {
        let all = endpoints(&[0, 0, 0, 1]);
        let set = |percent| EndpointSet::build(LbPolicy::Random, percent, &all, |_, e| configured(e));
        near(&shares_of(LbPolicy::Random, &set(50), &[0; 4], 8_000), &[2_000; 4]);
        near(&shares_of(LbPolicy::Random, &set(0), &[0; 4], 8_000), &[0, 0, 0, 8_000]);
    }
}
