//! The endpoints that one choice is made among: those of one priority and, where shares are given, one locality.
//!
//! Invariant: what a policy looks up is made once, here; a pick computes an index and reads it.

use super::{maglev, ring, scale};
use crate::cluster::{Endpoint, LbPolicy};

/// Most turns in one round of a weighted round robin; larger weights are scaled down to fit, each keeping one turn.
const LONGEST_ROUND: u64 = 4096;

/// Endpoints to choose among.
#[derive(Clone, Debug)]
pub(super) struct Group {
    members: Box<[usize]>,
    /// Running sums of the weights of `members`; empty when all are equal.
    sums: Box<[u64]>,
    /// Positions in `members`, one round of turns; empty when all weights are equal or nobody takes turns.
    round: Box<[u32]>,
    table: Table,
}

#[derive(Clone, Debug)]
enum Table {
    None,
    Ring(ring::Ring),
    Maglev(Box<[u32]>),
}

impl Group {
    /// A group of `members`, each an index in `endpoints` and a weight of at least 1.
    pub(super) fn new(policy: LbPolicy, endpoints: &[Endpoint], members: &[(usize, u64)]) -> Self {
        let weights: Vec<u64> = members.iter().map(|(_, weight)| *weight).collect();
        let equal = weights.windows(2).all(|pair| pair.first() == pair.last());
        let mut sum = 0_u64;
        let sums = weights.iter().map(|weight| {
            sum = sum.saturating_add(*weight);
            sum
        });
        let named = || {
            let name =
                |(index, weight): &(usize, u64)| Some((endpoints.get(*index)?.address.to_string(), *weight));
            members.iter().filter_map(name).collect::<Vec<_>>()
        };
        Self {
            members: members.iter().map(|(index, _)| *index).collect(),
            sums: if equal { Box::default() } else { sums.collect() },
            round: if equal || policy != LbPolicy::RoundRobin {
                Box::default()
            } else {
                round_of(&weights).into()
            },
            table: match policy {
                LbPolicy::LeastRequest | LbPolicy::RoundRobin | LbPolicy::Random => Table::None,
                LbPolicy::RingHash { minimum } => Table::Ring(ring::Ring::new(&named(), minimum)),
                LbPolicy::Maglev { size } => Table::Maglev(maglev::table(&named(), size)),
            },
        }
    }

    /// Indices in the cluster.
    pub(super) fn members(&self) -> &[usize] {
        &self.members
    }

    /// Whether all members have the same weight.
    pub(super) fn equal_weights(&self) -> bool {
        self.sums.is_empty()
    }

    /// Members with their weights.
    pub(super) fn weighted(&self) -> impl Iterator<Item = (usize, u64)> {
        let mut before = 0;
        self.members.iter().zip(&self.sums).map(move |(index, sum)| {
            let weight = sum - before;
            before = *sum;
            (*index, weight)
        })
    }

    pub(super) fn in_turn(&self, cursor: u64) -> Option<usize> {
        let position = if self.round.is_empty() {
            turn(cursor, self.members.len())?
        } else {
            *self.round.get(turn(cursor, self.round.len())?)? as usize
        };
        self.members.get(position).copied()
    }

    pub(super) fn by_weight(&self, entropy: u64) -> Option<usize> {
        self.members.get(self.position(entropy)).copied()
    }

    /// A member by weight, with its weight; meaningless where weights are equal.
    pub(super) fn with_weight(&self, entropy: u64) -> Option<(usize, u64)> {
        let position = self.position(entropy);
        let before = position.checked_sub(1).and_then(|at| self.sums.get(at)).copied().unwrap_or(0);
        Some((*self.members.get(position)?, self.sums.get(position)? - before))
    }

    fn position(&self, entropy: u64) -> usize {
        match self.sums.last() {
            None => scale(entropy, self.members.len() as u64) as usize,
            Some(total) => {
                let ticket = scale(entropy, *total);
                self.sums.partition_point(|sum| *sum <= ticket)
            }
        }
    }

    /// The member that a hash falls on; `None` where the policy has no table.
    pub(super) fn by_hash(&self, hash: u64) -> Option<usize> {
        let position = match &self.table {
            Table::None => return None,
            Table::Ring(ring) => ring.find(hash)?,
            Table::Maglev(table) => *table.get(hash.checked_rem(table.len() as u64)? as usize)?,
        };
        self.members.get(position as usize).copied()
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
