//! What is compiled, beside what was compiled before it.
//!
//! Invariant: what it says of sameness is about identity: where it says that something is the same, nothing of it has changed.

use super::Identity;
use config_model::{meta::Kind, validate::Validated};

/// A configuration, and the one before it.
pub(super) struct Input<'a> {
    /// What is to be compiled.
    pub(super) now: &'a Validated,
    /// For whom.
    pub(super) identity: &'a Identity,
    before: Option<&'a Validated>,
    same_mesh: bool,
}

impl<'a> Input<'a> {
    pub(super) fn new(now: &'a Validated, identity: &'a Identity, before: Option<&'a Validated>) -> Self {
        let same_mesh = before.is_some_and(|before| before.mesh() == now.mesh());
        Self { now, identity, before, same_mesh }
    }

    /// Whether what the whole mesh says is what it said.
    pub(super) fn is_of_the_same_mesh(&self) -> bool {
        self.same_mesh
    }

    /// Whether nothing of these kinds has changed, nor what the whole mesh says.
    pub(super) fn shares(&self, kinds: &[Kind]) -> bool {
        self.same_mesh
            && self
                .before
                .is_some_and(|before| kinds.iter().all(|kind| self.now.set().shares(before.set(), *kind)))
    }
}
