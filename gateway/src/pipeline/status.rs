//! What the pipeline has come to, for those who only look: admin endpoints and tests.
//!
//! Invariant: one writer, the pipeline; a reader never waits and never sees half a state.

use std::sync::Arc;

use arc_swap::ArcSwap;
use config_model::diagnostic::Diagnostics;

use super::Built;

/// Whether what is in force is what the source says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Synchronization {
    /// Nothing was read yet.
    Waiting,
    /// It is.
    Current,
    /// The source cannot be read in full: its last good state is in force.
    Stale,
}

/// The latest state.
#[derive(Debug)]
pub struct Status(ArcSwap<State>);

#[derive(Debug)]
struct State {
    built: Option<Arc<Built>>,
    findings: Arc<Diagnostics>,
    synchronization: Synchronization,
}

impl Default for Status {
    fn default() -> Status {
        let synchronization = Synchronization::Waiting;
        Status(ArcSwap::from_pointee(State { built: None, findings: Arc::default(), synchronization }))
    }
}

impl Status {
    /// What is in force; `None` before the first.
    #[must_use]
    pub fn built(&self) -> Option<Arc<Built>> {
        self.0.load().built.clone()
    }

    /// Everything that is wrong with it, what was found when it was put in force included.
    #[must_use]
    pub fn findings(&self) -> Arc<Diagnostics> {
        Arc::clone(&self.0.load().findings)
    }

    /// Whether it is up to date.
    pub fn synchronization(&self) -> Synchronization {
        self.0.load().synchronization
    }

    pub(super) fn set(
        &self,
        built: Arc<Built>,
        findings: Arc<Diagnostics>,
        synchronization: Synchronization,
    ) {
        self.0.store(Arc::new(State { built: Some(built), findings, synchronization }));
    }
}
