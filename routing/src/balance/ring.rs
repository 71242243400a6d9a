//! Ring hash: each endpoint has points on a ring, and a key belongs to the next point.
//!
//! Invariant: a point is where Envoy has it (ring_hash_lb.cc): XXH64 of `ADDRESS_N`. How many an endpoint has is a power
//! of two, unlike there, so that the number stays as others come and go: then only the keys of who came or went move.

use crate::cluster::hash_key_text;

/// Most points on a ring (Envoy's default).
const LARGEST: f64 = 8_388_608.0;

/// Points in ascending order, each with the position of its owner.
#[derive(Clone, Debug)]
pub(super) struct Ring {
    hashes: Box<[u64]>,
    owners: Box<[u32]>,
    /// Where in `hashes` each slice of the number space begins: one for about every point, so that a search looks at a
    /// few neighbours instead of halving the whole ring through the cache.
    starts: Box<[u32]>,
    shift: u32,
}

impl Ring {
    /// A ring of at least `minimum` points for endpoints by name and weight.
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "as Envoy computes it; sizes are capped far below 2^53"
    )]
    pub(super) fn new(endpoints: &[(String, u64)], minimum: u64) -> Self {
        let total: f64 = endpoints.iter().map(|(_, weight)| *weight as f64).sum();
        let least = endpoints.iter().map(|(_, weight)| *weight as f64).fold(f64::INFINITY, f64::min);
        let wanted = ((minimum as f64).clamp(1.0, LARGEST) * least / total).ceil().max(1.0);
        // Points of the lightest; no more in all than the largest ring has.
        let mut points_of_least = (wanted as u64).next_power_of_two() as f64;
        if points_of_least * total / least > LARGEST {
            points_of_least = LARGEST * least / total;
        }
        let mut points: Vec<(u64, u32)> = Vec::new();
        let mut text = String::new();
        for (owner, (name, weight)) in (0_u32..).zip(endpoints) {
            let count = (points_of_least * (*weight as f64 / least)).round().max(1.0) as u64;
            for number in 0..count {
                text.clear();
                text.push_str(name);
                text.push('_');
                text.push_str(&number.to_string());
                points.push((hash_key_text(text.as_bytes(), 0), owner));
            }
        }
        points.sort_unstable();
        let bits = (usize::BITS - points.len().leading_zeros()).min(24);
        let shift = 64 - bits.max(1);
        let slices = 1_usize << bits.max(1);
        let mut starts = Vec::with_capacity(slices);
        let mut at = 0;
        for slice in 0..slices as u64 {
            while points.get(at).is_some_and(|(hash, _)| (hash >> shift) < slice) {
                at += 1;
            }
            starts.push(u32::try_from(at).unwrap_or(u32::MAX));
        }
        let (hashes, owners): (Vec<_>, Vec<_>) = points.into_iter().unzip();
        Self { hashes: hashes.into(), owners: owners.into(), starts: starts.into(), shift }
    }

    /// Position of the endpoint that a hash belongs to; `None` on an empty ring.
    pub(super) fn find(&self, hash: u64) -> Option<u32> {
        let mut at = *self.starts.get((hash >> self.shift) as usize)? as usize;
        while self.hashes.get(at).is_some_and(|point| *point < hash) {
            at += 1;
        }
        self.owners.get(at).or_else(|| self.owners.first()).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(count: usize) -> Vec<(String, u64)> {
        (0..count).map(|i| (format!("10.0.{}.{}:80", i / 250, i % 250), 1)).collect()
    }

    #[test]
    fn a_search_finds_what_halving_would() {
        let ring = Ring::new(&named(17), 1024);
        for key in 0_u64..5000 {
            let hash = hash_key_text(&key.to_le_bytes(), 0);
            let at = ring.hashes.partition_point(|point| *point < hash) % ring.hashes.len();
            assert_eq!(ring.find(hash), Some(ring.owners[at]));
        }
        assert_eq!(ring.find(u64::MAX), Some(ring.owners[0]), "past the last point comes the first");
        assert_eq!(Ring::new(&[], 1024).find(1), None);
    }

    #[test]
    fn the_ring_has_at_least_its_minimum_and_points_by_weight() {
        let ring = Ring::new(&[("a:1".into(), 1), ("b:1".into(), 3)], 1024);
        assert!(ring.hashes.len() >= 1024);
        let of_b = ring.owners.iter().filter(|owner| **owner == 1).count();
        assert_eq!(of_b, ring.hashes.len() * 3 / 4);
        assert!(Ring::new(&named(3000), 1024).hashes.len() >= 3000, "each endpoint has a point");
    }
}
