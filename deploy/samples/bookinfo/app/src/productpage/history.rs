//! Which version of reviews answered the last page views, so that a weighted split can be seen and not only believed.
//! In memory, bounded, and shared by all visitors.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

const KEPT: usize = 60;

/// One page view, as far as reviews is concerned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    Version(String),
    Failed,
}

#[derive(Debug, Default)]
pub(crate) struct History(Mutex<VecDeque<Seen>>);

impl History {
    /// Adds one view and returns the kept ones, oldest first.
    pub(crate) fn note(&self, version: Option<&str>) -> Vec<Seen> {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.len() == KEPT {
            seen.pop_front();
        }
        seen.push_back(version.map_or(Seen::Failed, |version| Seen::Version(version.to_owned())));
        seen.iter().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_view_makes_room() {
        let history = History::default();
        history.note(None);
        for _ in 1..KEPT {
            history.note(Some("v1"));
        }
        let recent = history.note(Some("v2"));
        assert_eq!(recent.len(), KEPT);
        assert_eq!(recent.first(), Some(&Seen::Version("v1".to_owned())));
        assert_eq!(recent.last(), Some(&Seen::Version("v2".to_owned())));
    }
}
