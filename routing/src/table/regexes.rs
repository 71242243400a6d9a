//! The regexes of one virtual host as one automaton.
//!
//! Invariant: patterns stand in list order, so that the least pattern that matches is the first route. The automaton
//! runs at most once per request, and only when a regex route could come first.

use crate::matcher::{Pattern, syntax_of};
use regex_automata::{
    Anchored, Input, MatchKind, PatternID, PatternSet,
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

type MakeSet = Box<dyn Fn() -> PatternSet + Send + Sync + UnwindSafe + RefUnwindSafe>;

/// Patterns and the routes they belong to, ascending.
pub(super) struct RegexSet {
    routes: Box<[(u32, Pattern)]>,
    together: Option<Together>,
}

struct Together {
    regex: Regex,
    /// Which patterns matched; pooled, because a set is on the heap.
    scratch: Pool<PatternSet, MakeSet>,
}

impl RegexSet {
    /// Compiles the patterns of a host, given in the order of their routes.
    pub(super) fn new(routes: Vec<(u32, Pattern)>) -> Self {
        // For one pattern its own program is the faster.
        let together = if routes.len() < 2 { None } else { Together::new(&routes) };
        Self { routes: routes.into(), together }
    }

    /// A cursor over the routes whose pattern matches a path.
    pub(super) fn matches<'s>(&'s self, path: &'s [u8]) -> Matches<'s> {
        Matches { set: self, path, at: 0, matched: None }
    }
}

impl fmt::Debug for RegexSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(&self.routes).finish()
    }
}

impl Together {
    fn new(routes: &[(u32, Pattern)]) -> Option<Self> {
        let config = Regex::config()
            .match_kind(MatchKind::All)
            .utf8_empty(false)
            .nfa_size_limit(Some(PROGRAM_LIMIT))
            .hybrid_cache_capacity(CACHE_LIMIT)
            .which_captures(WhichCaptures::None);
        let texts: Vec<&str> = routes.iter().map(|(_, pattern)| pattern.anchored()).collect();
        let regex = Regex::builder().configure(config).syntax(syntax_of()).build_many(&texts).ok()?;
        let count = routes.len();
        let make: MakeSet = Box::new(move || PatternSet::new(count));
        Some(Self { regex, scratch: Pool::new(make) })
    }
}

/// The routes whose pattern matches one path, found when asked for.
pub(super) struct Matches<'s> {
    set: &'s RegexSet,
    path: &'s [u8],
    /// Patterns before this one are done with.
    at: usize,
    matched: Option<PoolGuard<'s, PatternSet, MakeSet>>,
}

impl Matches<'_> {
    /// The next matching route that is not below `floor` and is below `limit`; `None` means no limit.
    pub(super) fn next_below(&mut self, floor: u32, limit: Option<u32>) -> Option<u32> {
        loop {
            let (route, pattern) = self.set.routes.get(self.at)?;
            if limit.is_some_and(|limit| *route >= limit) {
                return None;
            }
            let hit = *route >= floor && self.is_match(self.at, pattern);
            self.at += 1;
            if hit {
                return Some(*route);
            }
        }
    }

    fn is_match(&mut self, at: usize, pattern: &Pattern) -> bool {
        let Some(together) = &self.set.together else { return pattern.is_match(self.path) };
        let path = self.path;
        let matched = self.matched.get_or_insert_with(|| {
            let mut matched = together.scratch.get();
            matched.clear();
            let input = Input::new(path).anchored(Anchored::Yes);
            together.regex.which_overlapping_matches(&input, &mut matched);
            matched
        });
        PatternID::new(at).is_ok_and(|id| matched.contains(id))
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
        assert!(matches.matched.is_some(), "/x was tried, it stands before the limit");
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
        assert_eq!(all(&set, "/b"), []);
    }
}
