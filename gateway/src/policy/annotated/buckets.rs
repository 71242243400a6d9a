//! Token buckets, one for each key, in bounded memory.
//!
//! Invariant: a bucket is the one moment at which it will be full again (GCRA, which lets in the same requests as a bucket that is filled
//! continuously, as Envoy's). Where there is no room for another key, those go that are fullest: whoever is held back stays so.

use foldhash::fast::RandomState;
use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

/// Parts that are locked by themselves.
const SHARDS: usize = 16;
/// Most keys of a part.
const KEYS: usize = 8192;

/// Buckets of one size.
#[derive(Debug)]
pub(super) struct Buckets {
    /// Nanoseconds in which one token comes.
    interval: u64,
    /// Tokens of a full bucket.
    size: u32,
    most: usize,
    shards: [Mutex<Shard>; SHARDS],
}

/// Nanoseconds at which a bucket will be full again, by key.
type Shard = HashMap<u64, u64, RandomState>;

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Taken {
    /// Whether there was a token for it.
    pub(super) granted: bool,
    /// Tokens that are left.
    pub(super) left: u32,
    /// Time until there is one; zero where some are left.
    pub(super) wait: Duration,
}

impl Buckets {
    /// With so many tokens in such a time, and so many in a full bucket.
    pub(super) fn new(tokens: u32, per: Duration, size: u32) -> Buckets {
        Buckets::bounded(tokens, per, size, KEYS)
    }

    fn bounded(tokens: u32, per: Duration, size: u32, most: usize) -> Buckets {
        let interval = nanos(per).checked_div(u64::from(tokens)).unwrap_or(u64::MAX).max(1);
        Buckets { interval, size: size.max(1), most, shards: std::array::from_fn(|_| Mutex::default()) }
    }

    /// Takes a token of a key's bucket; `now`: time since any fixed moment.
    pub(super) fn take(&self, key: u64, now: Duration) -> Taken {
        let now = nanos(now);
        let full = self.interval.saturating_mul(u64::from(self.size));
        let Some(shard) = self.shards.get(usize::try_from(key >> 60).unwrap_or_default()) else {
            return Taken { granted: false, left: 0, wait: Duration::from_nanos(self.interval) };
        };
        let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
        let before = shard.get(&key).copied().unwrap_or_default().max(now);
        let after = before.saturating_add(self.interval);
        let granted = after - now <= full;
        let then = if granted { after } else { before };
        if granted {
            if shard.len() >= self.most && !shard.contains_key(&key) {
                make_room(&mut shard, now, self.most);
            }
            shard.insert(key, then);
        }
        let content = full.saturating_sub(then - now);
        let left = u32::try_from(content / self.interval).unwrap_or(u32::MAX);
        let wait = if left > 0 { 0 } else { self.interval.saturating_sub(content) };
        Taken { granted, left, wait: Duration::from_nanos(wait) }
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().unwrap().len()).sum()
    }
}

/// Full buckets are as good as none. Where that does not suffice, half of the others go, so that it is seldom done.
fn make_room(shard: &mut Shard, now: u64, most: usize) {
    shard.retain(|_, full_at| *full_at > now);
    if shard.len() < most {
        return;
    }
    let mut all: Vec<u64> = shard.values().copied().collect();
    let half = all.len() / 2;
    let median = *all.select_nth_unstable(half).1;
    let mut ties = half;
    shard.retain(|_, full_at| {
        *full_at > median
            || (*full_at == median && {
                let stays = ties > 0;
                ties = ties.saturating_sub(1);
                stays
            })
    });
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_bucket_is_emptied_and_filled_again() {
        // As asked of Envoy 1.40: four tokens, two in ten seconds.
        let buckets = Buckets::new(2, 10 * SECOND, 4);
        let taken = |at: u32| buckets.take(7, at * SECOND);
        for left in [3, 2, 1] {
            assert_eq!(taken(0), Taken { granted: true, left, wait: Duration::ZERO });
        }
        assert_eq!(taken(0), Taken { granted: true, left: 0, wait: 5 * SECOND });
        assert_eq!(taken(0), Taken { granted: false, left: 0, wait: 5 * SECOND });
        assert_eq!(taken(4), Taken { granted: false, left: 0, wait: SECOND });
        assert_eq!(taken(6), Taken { granted: true, left: 0, wait: 4 * SECOND });
        assert_eq!(taken(1000), Taken { granted: true, left: 3, wait: Duration::ZERO });
        assert!(buckets.take(8, SECOND).granted, "another key has a bucket of its own");
    }

    #[test]
    fn over_a_long_time_the_rate_holds() {
        let buckets = Buckets::new(100, SECOND, 10);
        let granted = (0..10_000_u32).filter(|at| buckets.take(1, *at * SECOND / 1000).granted).count();
        assert_eq!(granted, 1009, "ten seconds at a hundred, and the burst");
    }

    #[test]
    fn keys_are_bounded_and_who_is_held_back_stays_so() {
        let buckets = Buckets::bounded(1, 60 * SECOND, 2, 64);
        let mark = u64::MAX;
        while buckets.take(mark, SECOND).granted {}
        for key in 0..100_000_u64 {
            assert!(buckets.take(key.wrapping_mul(0x9e37_79b9_7f4a_7c15), SECOND).granted);
        }
        assert!(buckets.len() <= 64 * SHARDS, "{}", buckets.len());
        assert!(!buckets.take(mark, SECOND).granted, "nobody is let in by what others do");
        let full = Buckets::bounded(1, 60 * SECOND, 1, 64);
        for key in 0..100_000_u64 {
            let _ = full.take(key, SECOND);
        }
        assert!(full.len() <= 64, "all alike, and in one part");
    }
}
