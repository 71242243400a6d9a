//! How traffic is shared among priorities as their endpoints fail.
//!
//! Invariant: the rules are Envoy's (load_balancer_impl.cc `recalculatePerPriorityState`): each priority takes as much
//! as its health with overprovisioning covers, and the rest falls to the next.

use super::endpoints::OVERPROVISIONING;

/// One priority's endpoints.
#[derive(Clone, Copy, Debug)]
pub(super) struct Level {
    pub(super) total: u64,
    pub(super) fit: u64,
}

/// What one priority gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Load {
    /// Per cent of all traffic, or a number of endpoints when every priority is in panic.
    pub(super) share: u64,
    /// Its endpoints are used whether fit or not.
    pub(super) panic: bool,
}

/// The load of each priority, preferred first.
pub(super) fn loads(levels: &[Level], panic_percent: u64) -> Vec<Load> {
    let health: Vec<u64> = levels
        .iter()
        .map(|level| (level.fit * OVERPROVISIONING).checked_div(level.total).unwrap_or(0).min(100))
        .collect();
    let covered = health.iter().sum::<u64>().min(100);
    let panics = |level: &Level| {
        let percent = (level.fit * 100).checked_div(level.total).unwrap_or(0);
        covered < 100 && percent < panic_percent
    };
    if levels.iter().all(panics) {
        return levels.iter().map(|level| Load { share: level.total, panic: true }).collect();
    }
    let mut left = 100;
    let mut out: Vec<Load> = levels
        .iter()
        .zip(&health)
        .map(|(level, health)| {
            let share = (health * 100).checked_div(covered).unwrap_or(0).min(left);
            left -= share;
            Load { share, panic: panics(level) }
        })
        .collect();
    // What rounding left over goes to the first that has anything.
    if let Some(first) = out.iter_mut().find(|load| load.share > 0) {
        first.share += left;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shares(levels: &[(u64, u64)], panic: u64) -> Vec<(u64, bool)> {
        let levels: Vec<_> = levels.iter().map(|(fit, total)| Level { fit: *fit, total: *total }).collect();
        loads(&levels, panic).into_iter().map(|load| (load.share, load.panic)).collect()
    }

    #[test]
    fn a_priority_keeps_everything_until_overprovisioning_no_longer_covers_it() {
        assert_eq!(shares(&[(10, 10), (10, 10)], 0), [(100, false), (0, false)]);
        assert_eq!(shares(&[(72, 100), (10, 10)], 0), [(100, false), (0, false)]);
        assert_eq!(shares(&[(71, 100), (10, 10)], 0), [(99, false), (1, false)]);
        assert_eq!(shares(&[(50, 100), (10, 10)], 0), [(70, false), (30, false)]);
        assert_eq!(shares(&[(0, 10), (10, 10)], 0), [(0, false), (100, false)]);
    }

    #[test]
    fn what_all_together_do_not_cover_is_scaled_up() {
        assert_eq!(shares(&[(25, 100), (25, 100)], 0), [(50, false), (50, false)]);
        assert_eq!(shares(&[(0, 10), (0, 10)], 0), [(0, false), (0, false)]);
    }

    #[test]
    fn panic_needs_a_threshold_and_a_shortage() {
        assert_eq!(shares(&[(1, 10)], 0), [(100, false)]);
        assert_eq!(shares(&[(1, 10)], 50), [(10, true)]);
        assert_eq!(shares(&[(0, 10)], 50), [(10, true)]);
        assert_eq!(shares(&[(1, 10), (10, 10)], 50), [(14, false), (86, false)], "the next one covers it");
        assert_eq!(shares(&[(1, 10), (4, 10)], 30), [(20, true), (80, false)]);
    }
}
