//! The healthy endpoints of a cluster, prepared for picking.
//!
//! Invariant: only healthy endpoints are in it, by their index in the cluster; whoever changes health makes a new set.

use super::scale;
use crate::cluster::{Endpoint, Health};

/// Most turns in one round of a weighted round robin; larger weights are scaled down to fit, each keeping one turn.
const LONGEST_ROUND: u64 = 4096;

/// The healthy endpoints of a cluster.
#[derive(Clone, Debug)]
pub struct EndpointSet {
    total: usize,
    healthy: Box<[usize]>,
    /// Running sums of the weights of `healthy`; empty when all are equal.
    sums: Box<[u64]>,
    /// Positions in `healthy`, one round of turns; empty when all are equal.
    round: Box<[u32]>,
}

impl EndpointSet {
    /// Prepares the endpoints of a cluster; a weight of 0 counts as 1.
    #[must_use]
    pub fn new(endpoints: &[Endpoint]) -> Self {
        Self::filtered(endpoints, |_, endpoint| endpoint.health == Health::Healthy)
    }

    /// Prepares those that `healthy` lets through, for callers that know more than the configuration does (outlier
    /// ejection, health checks).
    #[must_use]
    pub fn filtered(endpoints: &[Endpoint], mut healthy: impl FnMut(usize, &Endpoint) -> bool) -> Self {
        let picked = endpoints.iter().enumerate().filter(|(index, endpoint)| healthy(*index, endpoint));
        let (healthy, weights): (Vec<_>, Vec<_>) =
            picked.map(|(index, endpoint)| (index, u64::from(endpoint.weight.max(1)))).unzip();
        let equal = weights.windows(2).all(|pair| pair.first() == pair.last());
        let (sums, round) = if equal {
            (Vec::new(), Vec::new())
        } else {
            let mut sum = 0;
            let sums = weights.iter().map(|weight| {
                sum += weight;
                sum
            });
            (sums.collect(), round_of(&weights))
        };
        Self { total: endpoints.len(), healthy: healthy.into(), sums: sums.into(), round: round.into() }
    }

    /// Number of endpoints in the cluster, healthy or not.
    #[must_use]
    pub fn total(&self) -> usize {
        self.total
    }

    /// Indices in the cluster of the healthy endpoints, ascending.
    #[must_use]
    pub fn healthy(&self) -> &[usize] {
        &self.healthy
    }

    /// Whether all healthy endpoints have the same weight.
    #[must_use]
    pub fn equal_weights(&self) -> bool {
        self.sums.is_empty()
    }

    /// Weights of the healthy endpoints with their indices.
    pub(super) fn weighted(&self) -> impl Iterator<Item = (usize, u64)> {
        let mut before = 0;
        self.healthy.iter().zip(&self.sums).map(move |(index, sum)| {
            let weight = sum - before;
            before = *sum;
            (*index, weight)
        })
    }

    pub(super) fn in_turn(&self, cursor: u64) -> Option<usize> {
        let position = if self.round.is_empty() {
            turn(cursor, self.healthy.len())?
        } else {
            *self.round.get(turn(cursor, self.round.len())?)? as usize
        };
        self.healthy.get(position).copied()
    }

    pub(super) fn by_weight(&self, entropy: u64) -> Option<usize> {
        let position = match self.sums.last() {
            None => scale(entropy, self.healthy.len() as u64) as usize,
            Some(total) => {
                let ticket = scale(entropy, *total);
                self.sums.partition_point(|sum| *sum <= ticket)
            }
        };
        self.healthy.get(position).copied()
    }
}

fn turn(cursor: u64, len: usize) -> Option<usize> {
    cursor.checked_rem(len as u64).map(|turn| turn as usize)
}

/// One round in which each position has as many turns as its weight, spread evenly: earliest deadline first, where
/// the turns of weight `w` are due at 1/2w, 3/2w, 5/2w … of the round.
fn round_of(weights: &[u64]) -> Vec<u32> {
    let divisor = weights.iter().copied().fold(0, gcd).max(1);
    let total: u64 = weights.iter().map(|weight| weight / divisor).sum();
    let turns = |weight: u64| {
        let weight = weight / divisor;
        if total <= LONGEST_ROUND {
            weight
        } else {
            (u128::from(weight) * u128::from(LONGEST_ROUND) / u128::from(total)).max(1) as u64
        }
    };
    let mut due: Vec<(u64, u64, u32)> = Vec::new();
    for (position, weight) in (0_u32..).zip(weights) {
        let turns = turns(*weight);
        due.extend((0..turns).map(|turn| (2 * turn + 1, turns, position)));
    }
    // a/b < c/d, compared without division: numerators and denominators are below 2¹³ here.
    due.sort_by(|(a, b, i), (c, d, j)| (a * d, i).cmp(&(c * b, j)));
    due.into_iter().map(|(_, _, position)| position).collect()
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_round_spreads_turns_evenly() {
        assert_eq!(round_of(&[2, 4]), [1, 0, 1]);
        assert_eq!(round_of(&[5, 1, 1]), [0, 0, 0, 1, 2, 0, 0]);
        let long = round_of(&[u64::from(u32::MAX), 1]);
        assert!(long.len() as u64 <= LONGEST_ROUND + 1);
        assert_eq!(long.iter().filter(|p| **p == 1).count(), 1, "the lightest keeps one turn");
    }
}
