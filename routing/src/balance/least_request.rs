//! Least request: Istio's default.
//!
//! Invariant: with equal weights the less loaded of two distinct endpoints at random (power of two choices); with
//! unequal ones chance by weight divided by load (Envoy: `LeastRequestLoadBalancer`, active request bias 1).

use super::{LoadView, group::Group, scale};

/// Fixed-point scale for weight over load: weights fit 32 bits, so that the product fits 52 and a sum of 4096 of
/// them fits 64; sums saturate beyond.
const UNIT: u64 = 1 << 20;
/// Most endpoints whose load is looked at one by one; of more, two are drawn by weight.
const FEW: usize = 32;

pub(super) fn pick(
    group: &Group,
    load: &(impl LoadView + ?Sized),
    entropy: &mut impl FnMut() -> u64,
) -> Option<usize> {
    if group.equal_weights() {
        of_two(group.members(), load, entropy)
    } else if group.members().len() <= FEW {
        weighted(group, load, entropy())
    } else {
        let (first, second) = (group.with_weight(entropy())?, group.with_weight(entropy())?);
        // Requests per unit of weight, compared without a division.
        let busy = |index: usize, other: u64| u128::from(other) * (u128::from(load.active(index)) + 1);
        let (a, b) = (busy(first.0, second.1), busy(second.0, first.1));
        Some(if b < a { second.0 } else { first.0 })
    }
}

fn of_two(
    members: &[usize],
    load: &(impl LoadView + ?Sized),
    entropy: &mut impl FnMut() -> u64,
) -> Option<usize> {
    let len = members.len() as u64;
    if len < 2 {
        return members.first().copied();
    }
    let draw = entropy();
    let first = scale(draw, len);
    // One of the others: without this, both draws meet once in `len` and the busiest may win.
    let second = (first + 1 + scale(entropy(), len - 1)) % len;
    let (first, second) = (*members.get(first as usize)?, *members.get(second as usize)?);
    Some(if load.active(second) < load.active(first) { second } else { first })
}

/// Two passes, because the load may change between any two looks and must not be kept: the second pass ends at the
/// last endpoint at the latest.
fn weighted(group: &Group, load: &(impl LoadView + ?Sized), entropy: u64) -> Option<usize> {
    let share = |(index, weight): (usize, u64)| {
        let share = weight * UNIT / (u64::from(load.active(index)) + 1);
        (index, share.max(1))
    };
    let total = group.weighted().map(share).fold(0_u64, |sum, (_, share)| sum.saturating_add(share));
    let mut ticket = scale(entropy, total);
    for (index, share) in group.weighted().map(share) {
        if ticket < share {
            return Some(index);
        }
        ticket -= share;
    }
    group.members().last().copied()
}
