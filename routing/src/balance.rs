//! Choosing one endpoint of a cluster.
//!
//! Invariant: an endpoint that is not healthy is never picked. What varies (load, chance, whose turn it is) is an
//! argument; picking allocates nothing.

mod endpoints;
mod least_request;

pub use endpoints::EndpointSet;

use crate::cluster::LbPolicy;

/// How busy each endpoint is.
pub trait LoadView {
    /// Requests in flight at the endpoint with this index in the cluster.
    fn active(&self, index: usize) -> u32;
}

/// Picks an endpoint by its index in the cluster; `None` when none is healthy.
///
/// `entropy` gives values uniform over `u64`. `cursor` counts picks and is used by round robin alone.
#[must_use]
pub fn pick(
    policy: LbPolicy,
    endpoints: &EndpointSet,
    load: &(impl LoadView + ?Sized),
    entropy: &mut impl FnMut() -> u64,
    cursor: u64,
) -> Option<usize> {
    match policy {
        LbPolicy::LeastRequest => least_request::pick(endpoints, load, entropy),
        LbPolicy::RoundRobin => endpoints.in_turn(cursor),
        LbPolicy::Random => endpoints.by_weight(entropy()),
    }
}

/// Maps a value uniform over `u64` on `0..total`, without a division and with a bias below one in 2⁶⁴ per slot.
fn scale(entropy: u64, total: u64) -> u64 {
    ((u128::from(entropy) * u128::from(total)) >> 64) as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::{Address, Endpoint, Health};

    struct Active(Vec<u32>);

    impl LoadView for Active {
        fn active(&self, index: usize) -> u32 {
            self.0[index]
        }
    }

    /// Steele, Lea, Flood: splitmix64.
    fn generator() -> impl FnMut() -> u64 {
        let mut state = 7_u64;
        move || {
            state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
            let mut z = state;
            z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
            z ^ (z >> 31)
        }
    }

    fn set(weights: &[u32]) -> EndpointSet {
        let endpoints: Vec<_> = weights
            .iter()
            .map(|weight| Endpoint {
                address: Address::Ip(([127, 0, 0, 1], 80).into()),
                weight: (*weight).max(1),
                health: if *weight == 0 { Health::Unhealthy } else { Health::Healthy },
                labels: Default::default(),
                workload: None,
            })
            .collect();
        EndpointSet::new(&endpoints)
    }

    fn shares(policy: LbPolicy, weights: &[u32], active: &[u32], picks: u64) -> Vec<u64> {
        let (set, load, mut entropy) = (set(weights), Active(active.to_vec()), generator());
        let mut shares = vec![0; weights.len()];
        for cursor in 0..picks {
            shares[pick(policy, &set, &load, &mut entropy, cursor).unwrap()] += 1;
        }
        shares
    }

    fn near(got: &[u64], want: &[u64]) {
        for (g, w) in got.iter().zip(want) {
            assert!(g.abs_diff(*w) <= 300, "{got:?} is not near {want:?}");
        }
    }

    const ALL: [LbPolicy; 3] = [LbPolicy::LeastRequest, LbPolicy::RoundRobin, LbPolicy::Random];

    #[test]
    fn nothing_healthy_nothing_picked() {
        for policy in ALL {
            for weights in [&[][..], &[0, 0]] {
                let load = Active(vec![0; 2]);
                assert_eq!(pick(policy, &set(weights), &load, &mut generator(), 3), None);
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
        let set = set(&[1, 0, 1, 1]);
        let load = Active(vec![0; 4]);
        let turn = |cursor| pick(LbPolicy::RoundRobin, &set, &load, &mut || 0, cursor).unwrap();
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
}
