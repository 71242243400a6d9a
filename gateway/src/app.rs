//! A gateway as a whole: what a program says of it, how it starts, where it serves, how it ends.
//!
//! Invariant: only connections run on the data plane's runtime. Reading configuration and answering the admin port have runtimes of their
//! own, so neither a large configuration nor a scrape delays a request.

mod builder;
mod gateway;
pub mod launch;
mod live;
mod observed;
pub mod panics;
mod service;
mod start;
mod telemetry;
#[cfg(test)]
mod tests;

pub use builder::{GatewayBuilder, Panics, Signals};
pub use gateway::{Gateway, GatewayHandle};
pub use service::GatewayService;

use std::{io, sync::Arc, time::Duration};

use tokio::runtime;

use crate::{
    drain::DrainController,
    listener::ListenerManager,
    shutdown::{self, DrainTimes, Exit},
};

/// How long tasks that were cut may take to unwind.
pub(crate) const UNWIND: Duration = Duration::from_secs(1);

/// What keeps a gateway from starting, in one sentence.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct StartError(String);

impl From<String> for StartError {
    fn from(sentence: String) -> StartError {
        StartError(sentence)
    }
}

/// Serves until drained. Blocks the calling thread.
fn serve(
    threads: usize,
    listeners: &ListenerManager,
    drain: &Arc<DrainController>,
    times: DrainTimes,
    signals: Signals,
) -> io::Result<Exit> {
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
        let signalled = async {
            match signals {
                Signals::Follow => shutdown::follow_signals(drain.clone()).await,
                Signals::Ignore => std::future::pending().await,
            }
        };
        let exit = tokio::select! {
            exit = shutdown::drained(drain, listeners, times) => Ok(exit),
            Err(error) = signalled => Err(error),
        };
        listening.abort();
        exit
    });
    runtime.shutdown_timeout(UNWIND);
    exit
}
