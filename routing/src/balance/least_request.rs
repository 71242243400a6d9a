//! Least request: Istio's default.
//!
//! Invariant: with equal weights the less loaded of two distinct endpoints at random (power of two choices); with
//! unequal ones chance by weight divided by load (Envoy: `LeastRequestLoadBalancer`, active request bias 1).

use super::{EndpointSet, LoadView, scale};

/// Fixed-point scale for weight over load: weights fit 32 bits, so that the product fits 52 and a sum of 4096 of
/// them fits 64; sums saturate beyond.
const UNIT: u64 = 1 << 20;

pub(super) fn pick(
    endpoints: &EndpointSet,
    load: &(impl LoadView + ?Sized),
    entropy: &mut impl FnMut() -> u64,
) -> Option<usize> {
    if endpoints.equal_weights() {
        of_two(endpoints.healthy(), load, entropy)
    } else {
        weighted(endpoints, load, entropy())
    }
}

fn of_two(
    healthy: &[usize],
    load: &(impl LoadView + ?Sized),
    entropy: &mut impl FnMut() -> u64,
) -> Option<usize> {
    let len = healthy.len() as u64;
    if len < 2 {
        return healthy.first().copied();
    }
    let first = scale(entropy(), len);
    // One of the others: without this, both draws meet once in `len` and the busiest may win.
    let second = (first + 1 + scale(entropy(), len - 1)) % len;
    let (first, second) = (*healthy.get(first as usize)?, *healthy.get(second as usize)?);
    Some(if load.active(second) < load.active(first) { second } else { first })
}

/// Two passes, because the load may change between any two looks and must not be kept: the second pass ends at the
/// last endpoint at the latest.
fn weighted(endpoints: &EndpointSet, load: &(impl LoadView + ?Sized), entropy: u64) -> Option<usize> {
    let share = |(index, weight): (usize, u64)| {
        let share = weight * UNIT / (u64::from(load.active(index)) + 1);
        (index, share.max(1))
    };
    let total = endpoints.weighted().map(share).fold(0_u64, |sum, (_, share)| sum.saturating_add(share));
    let mut ticket = scale(entropy, total);
    for (index, share) in endpoints.weighted().map(share) {
        if ticket < share {
            return Some(index);
        }
        ticket -= share;
    }
    endpoints.healthy().last().copied()
}
