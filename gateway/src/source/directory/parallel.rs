//! Work on many things at one time, for the first look at a large folder.
//!
//! Invariant: the results are those of doing one after the other, in that order. Little work is done where it is asked for.

use std::{
    num::NonZero,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
};

/// Things that one thread takes at a time.
const PORTION: usize = 16;
/// So many are not done where they are asked for.
pub(super) const MANY: usize = PORTION + 1;
/// More threads than this wait for each other's memory more than they work.
const MOST_THREADS: usize = 8;

/// Does the work for each.
pub(super) fn each<T: Sync, R: Send>(things: &[T], work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let portions: Vec<&[T]> = things.chunks(PORTION).collect();
    let threads =
        thread::available_parallelism().map_or(1, NonZero::get).min(MOST_THREADS).min(portions.len());
    if threads < 2 {
        return things.iter().map(work).collect();
    }
    let next = AtomicUsize::new(0);
    let take = || {
        let mut done = Vec::new();
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            let Some(portion) = portions.get(at) else { return done };
            done.push((at, portion.iter().map(&work).collect::<Vec<R>>()));
        }
    };
    let mut done: Vec<(usize, Vec<R>)> = thread::scope(|scope| {
        let others: Vec<_> = (1..threads).map(|_| scope.spawn(take)).collect();
        let mut done = take();
        for other in others {
            match other.join() {
                Ok(more) => done.extend(more),
                // As if it had been done here.
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        done
    });
    done.sort_by_key(|(at, _)| *at);
    done.into_iter().flat_map(|(_, results)| results).collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn results_are_in_order() {
        for count in [0, 1, 15, 16, 17, 33, 1000] {
            let things: Vec<usize> = (0..count).collect();
            let doubled: Vec<usize> = things.iter().map(|n| n * 2).collect();
            assert_eq!(super::each(&things, |n| n * 2), doubled);
        }
    }
}
