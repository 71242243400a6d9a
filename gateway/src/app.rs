//! The data plane's runtime: starts the listeners, follows the signals, ends by drain.
//!
//! Invariant: only connections run here. Reading configuration and answering the admin port have runtimes of their own, so
//! neither a large configuration nor a scrape delays a request.

pub mod launch;
pub mod panics;
mod telemetry;

use std::{io, sync::Arc, time::Duration};

use tokio::runtime;

use crate::{
    drain::DrainController,
    listener::ListenerManager,
    shutdown::{self, DrainTimes, Exit},
};

/// How long tasks that were cut may take to unwind.
pub(crate) const UNWIND: Duration = Duration::from_secs(1);

/// Serves until drained. Blocks the calling thread.
///
/// # Errors
/// When the runtime or the signal handlers cannot be had.
pub fn serve(
    threads: usize,
    listeners: &ListenerManager,
    drain: &Arc<DrainController>,
    times: DrainTimes,
) -> io::Result<Exit> {
    let threads = threads.max(1);
    let runtime = runtime::Builder::new_multi_thread()
        .worker_threads(threads)
        .thread_name("edge")
        .enable_all()
        .build()?;
    let exit = runtime.block_on(async {
        let listening = tokio::spawn({
            let listeners = listeners.clone();
            async move { listeners.run(threads).await }
        });
        let exit = tokio::select! {
            exit = shutdown::drained(drain, listeners, times) => Ok(exit),
            Err(error) = shutdown::follow_signals(drain.clone()) => Err(error),
        };
        listening.abort();
        exit
    });
    runtime.shutdown_timeout(UNWIND);
    exit
}
