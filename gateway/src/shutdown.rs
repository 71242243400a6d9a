//! The order in which a process goes away.
//!
//! Invariant: not ready first, so that load balancers stop sending; still accepting until they have noticed; then no new
//! connections, and an end as soon as the last one is done or the time is up.

use std::{io, sync::Arc, time::Duration};

use tokio::{
    signal::unix::{SignalKind, signal},
    time::{Instant, timeout_at},
};

use crate::{
    drain::{DrainController, DrainState},
    listener::ListenerManager,
};

/// How long a drain takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DrainTimes {
    /// How long new connections are accepted after the drain has begun.
    pub min: Duration,
    /// How long the whole drain may take; what is open then is cut.
    pub max: Duration,
}

/// Why serving ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Exit {
    /// Every connection had ended.
    Drained,
    /// The time was up with this many connections open.
    TimeUp(usize),
    /// Somebody asked to end at once.
    Quit,
}

/// SIGTERM and SIGINT begin the drain, a second one ends it. Returns after the second.
///
/// # Errors
/// When the handlers cannot be installed.
pub async fn follow_signals(drain: Arc<DrainController>) -> io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    loop {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        match drain.state() {
            DrainState::Live => {
                tracing::info!("draining; a second signal ends at once");
                drain.start();
            }
            DrainState::Draining | DrainState::Quitting => {
                tracing::warn!("second signal: ending now");
                drain.quit();
                return Ok(());
            }
        }
    }
}

/// Waits for the drain to begin and carries it out.
pub async fn drained(drain: &DrainController, listeners: &ListenerManager, times: DrainTimes) -> Exit {
    drain.reached(DrainState::Draining).await;
    let began = Instant::now();
    tokio::select! {
        biased;
        () = drain.reached(DrainState::Quitting) => {
            listeners.stop_accepting();
            Exit::Quit
        }
        exit = drain_in_order(listeners, began, times) => exit,
    }
}

async fn drain_in_order(listeners: &ListenerManager, began: Instant, times: DrainTimes) -> Exit {
    listeners.drain();
    tokio::time::sleep_until(began + times.min.min(times.max)).await;
    listeners.stop_accepting();
    match timeout_at(began + times.max, listeners.none_left()).await {
        Ok(()) => Exit::Drained,
        Err(_) => Exit::TimeUp(listeners.connections()),
    }
}
