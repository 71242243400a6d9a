//! The regexes of one virtual host as one automaton.
//!
//! Invariant: patterns stand in list order, so that the least pattern that matches is the first route. The automaton
//! runs at most once per request, and only when a regex route could come first.

use crate::matcher::{Pattern, syntax_of};
use regex_automata::{
    Anchored, Input, MatchKind, PatternSet,
    meta::Regex,
    nfa::thompson::WhichCaptures,
    util::pool::{Pool, PoolGuard},
};
use std::{
    fmt,
    panic::{RefUnwindSafe, UnwindSafe},
};

/// Largest compiled program of one set, in bytes; a larger one is not made, and patterns are tried one by one.
const PROGRAM_LIMIT: usize = 16 << 20;
/// Largest state cache of one set in one thread, in bytes.
const CACHE_LIMIT: usize = 4 << 20;

type MakeScratch = Box<dyn Fn() -> Scratch + Send + Sync + UnwindSafe + RefUnwindSafe>;

/// Patterns and the routes they belong to, ascending.
pub(super) struct RegexSet {
    routes: Box<[u32]>,
    /// One for each route.
    patterns: Box<[Pattern]>,
    together: Option<Together>,
}

struct Together {
    regex: Regex,
    /// Pooled, because it is on the heap.
    scratch: Pool<Scratch, MakeScratch>,
}

struct Scratch {
    /// Which patterns matched.
    set: PatternSet,
    /// The same as routes, ascending. Has room for all.
    routes: Vec<u32>,
}

impl RegexSet {
    /// Compiles the patterns of a host, given in the order of their routes.
    pub(super) fn new(routes: Vec<(u32, Pattern)>) -> Self {
        // For one pattern its own program is the faster.
        let (routes, patterns): (Vec<_>, Vec<_>) = routes.into_iter().unzip();
        let together = if patterns.len() < 2 { None } else { Together::new(&patterns) };
        Self { routes: routes.into(), patterns: patterns.into(), together }
    }

    /// A cursor over the routes whose pattern matches a path.
    pub(super) fn matches<'s>(&'s self, path: &'s [u8]) -> Matches<'s> {
        Matches { set: self, path, at: 0, found: None }
    }
}

impl fmt::Debug for RegexSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.routes.iter().zip(&self.patterns)).finish()
    }
}

impl Together {
    fn new(patterns: &[Pattern]) -> Option<Self> {
        let config = Regex::config()
            .match_kind(MatchKind::All)
            .utf8_empty(false)
            .nfa_size_limit(Some(PROGRAM_LIMIT))
            .hybrid_cache_capacity(CACHE_LIMIT)
            .which_captures(WhichCaptures::None);
        let texts: Vec<&str> = patterns.iter().map(Pattern::anchored).collect();
        let regex = Regex::builder().configure(config).syntax(syntax_of()).build_many(&texts).ok()?;
        let count = patterns.len();
        let make: MakeScratch =
            Box::new(move || Scratch { set: PatternSet::new(count), routes: Vec::with_capacity(count) });
        Some(Self { regex, scratch: Pool::new(make) })
    }

    fn run(&self, routes: &[u32], path: &[u8]) -> PoolGuard<'_, Scratch, MakeScratch> {
        let mut guard = self.scratch.get();
        let Scratch { set, routes: matched } = &mut *guard;
        set.clear();
        matched.clear();
        self.regex.which_overlapping_matches(&Input::new(path).anchored(Anchored::Yes), set);
        // The set is a flag for each pattern: with the last one found, the rest needs no look.
        matched.extend(set.iter().take(set.len()).filter_map(|id| routes.get(id.as_usize())));
        guard
    }
}

/// The routes whose pattern matches one path, found when asked for.
pub(super) struct Matches<'s> {
    set: &'s RegexSet,
    path: &'s [u8],
    /// What stands before is done with: in the patterns, or in what the automaton found.
    at: usize,
    found: Option<PoolGuard<'s, Scratch, MakeScratch>>,
}

impl Matches<'_> {
    /// The next matching route that is not below `floor` and is below `limit`; `None` means no limit.
    pub(super) fn next_below(&mut self, floor: u32, limit: Option<u32>) -> Option<u32> {
        let below = |route: u32| limit.is_none_or(|limit| route < limit);
        let Some(together) = &self.set.together else { return self.next_alone(floor, below) };
        if self.found.is_none() {
            let first = self.set.routes.partition_point(|route| *route < floor);
            if !self.set.routes.get(first).is_some_and(|route| below(*route)) {
                return None;
            }
            self.found = Some(together.run(&self.set.routes, self.path));
        }
        let rest = self.found.as_ref()?.routes.get(self.at..)?;
        let skipped = rest.iter().take_while(|route| **route < floor).count();
        self.at += skipped;
        let next = rest.get(skipped).copied().filter(|route| below(*route))?;
        self.at += 1;
        Some(next)
    }

    /// The same, pattern by pattern.
    fn next_alone(&mut self, floor: u32, below: impl Fn(u32) -> bool) -> Option<u32> {
        loop {
            let route = self.set.routes.get(self.at).copied().filter(|route| below(*route))?;
            let pattern = self.set.patterns.get(self.at)?;
            self.at += 1;
            if route >= floor && pattern.is_match(self.path) {
                return Some(route);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(patterns: &[&str]) -> RegexSet {
        RegexSet::new((0..).step_by(10).zip(patterns.iter().map(|p| Pattern::new(p).unwrap())).collect())
    }

    fn all(set: &RegexSet, path: &str) -> Vec<u32> {
        let mut matches = set.matches(path.as_bytes());
        std::iter::from_fn(|| matches.next_below(0, None)).collect()
    }

    #[test]
    fn every_pattern_that_matches_in_order() {
        let set = set(&["/a.*", ".*", "/b", "/a/[0-9]+", "/a/(1|12)"]);
        assert!(set.together.is_some());
        assert_eq!(all(&set, "/a/12"), [0, 10, 30, 40]);
        assert_eq!(all(&set, "/b"), [10, 20]);
        assert_eq!(all(&set, "/a/12x"), [0, 10]);
    }

    #[test]
    fn a_cursor_stops_before_its_limit() {
        let set = set(&["/x", "/a", ".*"]);
        let mut matches = set.matches(b"/a");
        assert_eq!(matches.next_below(0, Some(10)), None);
        assert!(matches.found.is_some(), "/x was tried, it stands before the limit");
        assert_eq!(matches.next_below(0, Some(11)), Some(10));
        assert_eq!(matches.next_below(11, None), Some(20));
        assert_eq!(matches.next_below(21, None), None);
        assert!(set.matches(b"/a").next_below(0, Some(0)).is_none());
    }

    #[test]
    fn one_pattern_alone() {
        let set = set(&["/a+"]);
        assert!(set.together.is_none());
        assert_eq!(all(&set, "/aa"), [0]);
        assert_eq!(all(&set, "/b"), [0_u32; 0]);
    }
}
