//! One switch for going away: signals, `POST /drain` and `POST /quitquitquit` all turn it, and everybody watches it.
//!
//! Invariant: it only moves forward: live, draining, quitting.

use tokio::sync::watch;

/// Whether the process takes part in serving.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[must_use]
pub enum DrainState {
    /// Serving.
    Live,
    /// Not ready; serving what comes, asking it to go.
    Draining,
    /// Going now, whatever is open.
    Quitting,
}

/// The switch.
#[derive(Debug)]
pub struct DrainController {
    state: watch::Sender<DrainState>,
}

impl Default for DrainController {
    fn default() -> Self {
        DrainController::new()
    }
}

impl DrainController {
    /// Live.
    pub fn new() -> DrainController {
        DrainController { state: watch::Sender::new(DrainState::Live) }
    }

    /// Begins to drain; nothing when it has begun.
    pub fn start(&self) {
        self.advance(DrainState::Draining);
    }

    /// Ends the process without waiting for connections.
    pub fn quit(&self) {
        self.advance(DrainState::Quitting);
    }

    /// Where it is.
    pub fn state(&self) -> DrainState {
        *self.state.borrow()
    }

    /// Returns once the state is `state` or beyond.
    pub async fn reached(&self, state: DrainState) {
        // The sender is in `self`, so waiting cannot fail.
        let _ = self.state.subscribe().wait_for(|now| *now >= state).await;
    }

    fn advance(&self, to: DrainState) {
        self.state.send_if_modified(|state| {
            let forward = to > *state;
            if forward {
                *state = to;
            }
            forward
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn moves_forward_only() {
        let drain = DrainController::new();
        assert_eq!(drain.state(), DrainState::Live);
        drain.quit();
        drain.start();
        assert_eq!(drain.state(), DrainState::Quitting);
        drain.reached(DrainState::Draining).await;
    }
}
