//! What the pipeline has come to, for those who only look: admin endpoints, the writer of statuses, and tests.
//!
//! Invariant: one writer, the pipeline; a reader never waits and never sees half a state.

use std::sync::Arc;

use arc_swap::ArcSwap;
use config_model::diagnostic::Diagnostics;
use tokio::sync::watch;

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
pub struct Status {
    state: ArcSwap<State>,
    changes: watch::Sender<u64>,
}

#[derive(Debug)]
struct State {
    built: Option<Arc<Built>>,
    findings: Arc<Diagnostics>,
    synchronization: Synchronization,
}

impl Default for Status {
    fn default() -> Status {
        let synchronization = Synchronization::Waiting;
        let state = State { built: None, findings: Arc::default(), synchronization };
        Status { state: ArcSwap::from_pointee(state), changes: watch::Sender::new(0) }
    }
}

impl Status {
    /// What is in force; `None` before the first.
    #[must_use]
    pub fn built(&self) -> Option<Arc<Built>> {
        self.state.load().built.clone()
    }

    /// Everything that is wrong with it, what was found when it was put in force included.
    #[must_use]
    pub fn findings(&self) -> Arc<Diagnostics> {
        Arc::clone(&self.state.load().findings)
    }

    /// Whether it is up to date.
    pub fn synchronization(&self) -> Synchronization {
        self.state.load().synchronization
    }

    /// Tells each time that the pipeline has taken something up.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    pub(super) fn set(
        &self,
        built: Arc<Built>,
        findings: Arc<Diagnostics>,
        synchronization: Synchronization,
    ) {
        self.state.store(Arc::new(State { built: Some(built), findings, synchronization }));
        self.changes.send_modify(|count| *count = count.wrapping_add(1));
    }
}
