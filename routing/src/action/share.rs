//! A share of all requests, as faults and mirrors are configured by.
//!
//! Invariant: from none to all in steps of a millionth; the die is thrown by the caller.

use config_model::scalar::Percent;

const ALL: u32 = 1_000_000;

/// A share of all requests, in millionths.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Share(u32);

/// What a throw of the die says about one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Throw {
    /// It is of the share.
    Takes,
    /// It is of the rest.
    Leaves,
}

impl Share {
    /// Every request.
    pub const ALL: Self = Self(ALL);

    /// A share that takes something; `None` for a share of nothing (Istio cuts at 0.0001 %).
    #[must_use]
    pub fn of(percent: Percent) -> Option<Self> {
        Self::of_millionths(percent.millionths())
    }

    /// A share in whole per cent; `None` for none.
    #[must_use]
    pub fn of_percent(percent: u32) -> Option<Self> {
        Self::of_millionths(percent.min(100) * (ALL / 100))
    }

    fn of_millionths(millionths: u32) -> Option<Self> {
        (millionths > 0).then_some(Self(millionths.min(ALL)))
    }

    /// In millionths, 1 to 1,000,000.
    #[must_use]
    pub fn millionths(self) -> u32 {
        self.0
    }

    /// In per cent.
    #[must_use]
    pub fn percent(self) -> f64 {
        f64::from(self.0) / 10_000.0
    }

    /// Whether a request is of the share, by a value that is uniform over all of `u64`.
    pub fn throw(self, entropy: u64) -> Throw {
        // Multiply-shift maps the whole range evenly on 0..ALL without a division.
        let ticket = (u128::from(entropy) * u128::from(ALL)) >> 64;
        if ticket < u128::from(self.0) { Throw::Takes } else { Throw::Leaves }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_takes_its_part_of_the_whole_range() {
        let share = |percent: f64| Share::of(Percent::new(percent).unwrap());
        assert_eq!(share(0.0), None);
        assert_eq!(share(0.00009), None);
        assert_eq!(share(100.0), Some(Share::ALL));
        assert_eq!(Share::of_percent(0), None);
        assert_eq!(Share::of_percent(50), share(50.0));
        let least = share(0.0001).unwrap();
        assert_eq!(least.throw(0), Throw::Takes);
        assert_eq!(least.throw(u64::MAX / 1_000_000), Throw::Takes);
        assert_eq!(least.throw(u64::MAX / 1_000_000 + 1), Throw::Leaves);
        assert_eq!(Share::ALL.throw(u64::MAX), Throw::Takes);
        assert_eq!(share(99.9999).unwrap().throw(u64::MAX), Throw::Leaves);
    }
}
