//! From a path to the routes whose path condition it meets, in list order.
//!
//! Invariant: the candidates are exactly the routes whose `PathMatch::is_match` holds, each once, ascending. They are
//! found one by one, so that what comes after the route that is taken costs nothing; regexes run only when they could
//! come first.

use super::{
    radix::{Builder, Found, Radix},
    regexes::{Matches, RegexSet},
};
use crate::path::PathMatch;
use foldhash::fast::FixedState;
use std::collections::HashMap;

/// Which routes can take which path.
#[derive(Debug)]
pub(super) struct PathIndex {
    /// Whole paths, case-sensitive.
    exact: HashMap<Box<str>, Box<[u32]>, FixedState>,
    /// Prefixes, case-sensitive.
    prefixes: Radix,
    /// Whole paths and prefixes in any case.
    any_case: Radix,
    /// Routes for every path.
    any: Box<[u32]>,
    /// Regexes.
    regexes: RegexSet,
}

impl PathIndex {
    /// Indexes paths; a route's number is its place in the iterator.
    pub(super) fn new<'p>(paths: impl IntoIterator<Item = &'p PathMatch>) -> Self {
        let mut exact: HashMap<Box<str>, Vec<u32>, FixedState> = HashMap::with_hasher(FixedState::default());
        let mut prefixes = Builder::default();
        let mut any_case = Builder::default();
        let mut any = Vec::new();
        let mut regexes = Vec::new();
        for (index, path) in (0_u32..).zip(paths) {
            match path {
                PathMatch::Any => any.push(index),
                PathMatch::Exact { text, ignore_case: false } => {
                    exact.entry(text.clone()).or_default().push(index);
                }
                PathMatch::Exact { text, ignore_case: true } => {
                    any_case.insert_exact(text.to_ascii_lowercase().as_bytes(), index);
                }
                PathMatch::Prefix { text, ignore_case: false } => {
                    prefixes.insert_prefix(text.as_bytes(), index)
                }
                PathMatch::Prefix { text, ignore_case: true } => {
                    any_case.insert_prefix(text.to_ascii_lowercase().as_bytes(), index);
                }
                PathMatch::Regex(pattern) => regexes.push((index, pattern.clone())),
            }
        }
        Self {
            exact: exact.into_iter().map(|(text, routes)| (text, routes.into())).collect(),
            prefixes: prefixes.finish(),
            any_case: any_case.finish(),
            any: any.into(),
            regexes: RegexSet::new(regexes),
        }
    }

    /// The routes that a path can take.
    pub(super) fn candidates<'i>(&'i self, path: &'i str) -> Candidates<'i> {
        let bytes = path.as_bytes();
        Candidates {
            index: self,
            floor: 0,
            exact: if self.exact.is_empty() {
                &[]
            } else {
                self.exact.get(path).map_or(&[], |routes| routes)
            },
            prefixes: self.prefixes.find::<false>(bytes),
            any_case: self.any_case.find::<true>(bytes),
            regexes: self.regexes.matches(bytes),
        }
    }
}

/// Candidates in list order.
pub(super) struct Candidates<'i> {
    index: &'i PathIndex,
    /// Everything below has been given out.
    floor: u32,
    exact: &'i [u32],
    prefixes: Found<'i>,
    any_case: Found<'i>,
    regexes: Matches<'i>,
}

impl Candidates<'_> {
    /// The next route; a merge of sorted lists that needs no memory of its own.
    pub(super) fn next(&mut self) -> Option<u32> {
        let floor = self.floor;
        let lists = [self.exact, self.any_case.exact, &self.index.any];
        let mut best = lists.into_iter().filter_map(|list| first_from(list, floor)).min();
        for list in self.prefixes.lists().chain(self.any_case.lists()) {
            best = match (best, first_from(list, floor)) {
                (Some(a), Some(b)) => Some(a.min(b)),
                (a, b) => a.or(b),
            };
        }
        let next = self.regexes.next_below(floor, best).or(best)?;
        self.floor = next.checked_add(1)?;
        Some(next)
    }
}

/// The least element that is not below `floor`.
fn first_from(list: &[u32], floor: u32) -> Option<u32> {
    match list.first() {
        Some(first) if *first < floor => list.get(list.partition_point(|index| *index < floor)).copied(),
        first => first.copied(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::matcher::Pattern;

    fn all(paths: &[PathMatch], path: &str) -> Vec<u32> {
        let index = PathIndex::new(paths);
        let mut candidates = index.candidates(path);
        std::iter::from_fn(|| candidates.next()).collect()
    }

    #[test]
    fn every_kind_in_one_order() {
        let exact = |text: &str, ignore_case| PathMatch::Exact { text: text.into(), ignore_case };
        let prefix = |text: &str, ignore_case| PathMatch::Prefix { text: text.into(), ignore_case };
        let regex = |text: &str| PathMatch::Regex(Pattern::new(text).unwrap());
        let paths = [
            regex("/a.*"),
            prefix("/a", false),
            exact("/A/B", true),
            exact("/a/b", false),
            prefix("/A", false),
            PathMatch::Any,
            prefix("/A/", true),
            regex(".*/b"),
            prefix("", false),
            exact("/a/b", false),
            regex("/b"),
            prefix("/a/b", false),
        ];
        assert_eq!(all(&paths, "/a/b"), [0, 1, 2, 3, 5, 6, 7, 8, 9, 11]);
        assert_eq!(all(&paths, "/A/b"), [2, 4, 5, 6, 7, 8]);
        assert_eq!(all(&paths, "/b"), [5, 7, 8, 10]);
        assert_eq!(all(&paths, ""), [5, 8]);
        assert_eq!(all(&[], "/"), [0_u32; 0]);
    }
}
