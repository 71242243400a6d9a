//! Histograms of whole numbers, as Envoy has them: milliseconds and bytes without fractions.
//!
//! Invariant: an observation is two additions, and no lock. What is read meanwhile may lack it; nothing is ever read twice.

use std::sync::atomic::{AtomicU64, Ordering};

/// Upper bounds of buckets, ascending; one without a bound follows.
#[derive(Debug)]
pub(super) struct Bounds {
    upper: Box<[f64]>,
    /// The largest whole number in each.
    whole: Box<[u64]>,
}

impl Bounds {
    /// Bounds that are not finite, or not above those before, are left out.
    pub(super) fn new(bounds: &[f64]) -> Self {
        let mut upper: Vec<f64> = Vec::with_capacity(bounds.len());
        for bound in bounds.iter().copied().filter(|bound| bound.is_finite() && *bound >= 0.0) {
            if upper.last().is_none_or(|last| *last < bound) {
                upper.push(bound);
            }
        }
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "finite and not negative; what is beyond the type stays at its end"
        )]
        let whole = upper.iter().map(|bound| bound.floor() as u64).collect();
        Self { upper: upper.into(), whole }
    }

    /// Number of buckets, the last one included.
    pub(super) fn buckets(&self) -> usize {
        self.upper.len() + 1
    }

    /// The upper bounds.
    pub(super) fn upper(&self) -> &[f64] {
        &self.upper
    }

    /// The bucket that a value falls into.
    pub(super) fn place(&self, value: u64) -> usize {
        self.whole.partition_point(|bound| *bound < value)
    }
}

/// Counts by bucket, and the sum.
#[derive(Debug)]
pub(super) struct Histogram {
    counts: Box<[AtomicU64]>,
    sum: AtomicU64,
}

impl Histogram {
    pub(super) fn new(bounds: &Bounds) -> Self {
        Self { counts: (0..bounds.buckets()).map(|_| AtomicU64::new(0)).collect(), sum: AtomicU64::new(0) }
    }

    pub(super) fn observe(&self, bounds: &Bounds, value: u64) {
        if let Some(count) = self.counts.get(bounds.place(value)) {
            count.fetch_add(1, Ordering::Relaxed);
            self.sum.fetch_add(value, Ordering::Relaxed);
        }
    }

    /// Forgets everything.
    pub(super) fn reset(&self) {
        self.counts.iter().chain([&self.sum]).for_each(|count| count.store(0, Ordering::Relaxed));
    }

    /// How many observations there were.
    pub(super) fn count(&self) -> u64 {
        self.counts.iter().map(|count| count.load(Ordering::Relaxed)).sum()
    }

    /// Adds the counts of its buckets to `sums`, each with those below it.
    pub(super) fn add_cumulative(&self, sums: &mut [u64]) {
        let mut below = 0;
        for (sum, count) in sums.iter_mut().zip(&self.counts) {
            below += count.load(Ordering::Relaxed);
            *sum += below;
        }
    }

    /// Adds it to another's numbers.
    pub(super) fn add_to(&self, sums: &mut Sums) {
        if sums.buckets.len() < self.counts.len() {
            sums.buckets.resize(self.counts.len(), 0);
        }
        self.add_cumulative(&mut sums.buckets);
        sums.sum += self.sum.load(Ordering::Relaxed);
    }
}

/// What several histograms come to together.
#[derive(Clone, Debug, Default)]
pub(super) struct Sums {
    /// Cumulative.
    pub(super) buckets: Vec<u64>,
    pub(super) sum: u64,
}

impl Sums {
    /// Adds those of others.
    pub(super) fn add(&mut self, other: &Sums) {
        if self.buckets.len() < other.buckets.len() {
            self.buckets.resize(other.buckets.len(), 0);
        }
        self.buckets.iter_mut().zip(&other.buckets).for_each(|(own, more)| *own += more);
        self.sum += other.sum;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::names;

    #[test]
    fn a_value_falls_into_the_first_bucket_that_holds_it() {
        let bounds = Bounds::new(&names::BUCKETS);
        for (value, bucket) in
            [(0, 0), (1, 1), (2, 2), (5, 2), (6, 3), (3_600_000, 18), (3_600_001, 19), (u64::MAX, 19)]
        {
            assert_eq!(bounds.place(value), bucket, "{value}");
        }
        let histogram = Histogram::new(&bounds);
        for value in [0, 1, 7, 4_000_000] {
            histogram.observe(&bounds, value);
        }
        let mut sums = Sums::default();
        histogram.add_to(&mut sums);
        assert_eq!((histogram.count(), sums.sum), (4, 4_000_008));
        assert_eq!(sums.buckets[..4], [1, 2, 2, 3]);
        assert_eq!(sums.buckets.last(), Some(&4));
    }

    #[test]
    fn bounds_that_make_no_order_are_left_out() {
        let bounds = Bounds::new(&[1.0, 0.5, f64::NAN, 10.5, f64::INFINITY, 10.5]);
        assert_eq!(bounds.upper(), [1.0, 10.5]);
        assert_eq!((bounds.place(10), bounds.place(11), bounds.buckets()), (1, 2, 3));
    }
}
