//! From what a source gives to what is served: collect, merge, validate, compile, publish.
//!
//! Invariant: this is the only writer of what is in force. A resource that is refused goes on as it was last accepted; a source
//! that fails changes nothing; identical content is counted and not published. Runs on its own thread, never on the data plane's.

mod build;
mod merge;
mod metrics;
#[cfg(test)]
mod property;
mod status;
#[cfg(test)]
pub(crate) mod testing;
mod told;

use std::{io, sync::Arc, thread};

use async_trait::async_trait;
use config_model::diagnostic::Diagnostics;
use tokio::sync::{oneshot, watch};

pub use build::{Builder, Built};
pub use metrics::Metrics;
pub use status::{Status, Synchronization};

use crate::source::{Health, Loaded, Source};
use told::Told;

/// Puts a configuration in force: prepares clusters, certificates and listeners, then swaps.
#[async_trait]
pub trait Publisher: Send {
    /// Puts it in force. Answers what only running it can tell, such as a certificate that cannot be used or a port that
    /// cannot be bound; the rest is in force all the same.
    async fn publish(&mut self, built: &Arc<Built>) -> Diagnostics;
}

/// One source, followed to its end.
pub struct Pipeline {
    source: Box<dyn Source>,
    builder: Builder,
    publisher: Box<dyn Publisher>,
    status: Arc<Status>,
    metrics: Metrics,
    told: Told,
    published_findings: Diagnostics,
}

/// What one state of the source led to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Step {
    /// It is in force.
    Published,
    /// It is what is in force already.
    Identical,
    /// The source has ended.
    Ended,
}

impl Pipeline {
    /// A pipeline that has not read anything yet.
    #[must_use]
    pub fn new(
        source: Box<dyn Source>,
        builder: Builder,
        publisher: Box<dyn Publisher>,
        status: Arc<Status>,
        metrics: Metrics,
    ) -> Pipeline {
        let (told, published_findings) = (Told::default(), Diagnostics::new());
        Pipeline { source, builder, publisher, status, metrics, told, published_findings }
    }

    /// Waits for the next state of the source and takes it up. Must run to its end once a state has come: a caller that
    /// wants to stop waits for [`Source::next`] elsewhere.
    pub async fn step(&mut self) -> Step {
        match self.source.next().await {
            Some(loaded) => self.take_up(&loaded).await,
            None => Step::Ended,
        }
    }

    async fn take_up(&mut self, loaded: &Loaded) -> Step {
        let started = std::time::Instant::now();
        let before = self.status.built();
        let built = Arc::new(self.builder.build(loaded));
        let compiled = started.elapsed();
        let changed = before.as_ref().is_none_or(|before| before.content != built.content);
        if changed {
            self.published_findings = self.publisher.publish(&built).await;
        }
        let mut findings = Diagnostics::clone(&built.diagnostics);
        findings.share(&self.published_findings);
        self.told.follow(&findings);
        let synchronization = match loaded.health {
            Health::Synchronized => Synchronization::Current,
            Health::Stale => Synchronization::Stale,
        };
        self.metrics.set(&built, &findings, synchronization);
        self.status.set(Arc::clone(&built), Arc::new(findings), synchronization);
        if changed {
            self.metrics.count_published(started.elapsed(), compiled);
            tracing::info!(
                generation = built.generation,
                resources = built.resources,
                listeners = built.compiled.listeners.len(),
                clusters = built.compiled.clusters.len(),
                took_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
                "configuration in force"
            );
            Step::Published
        } else {
            self.metrics.count_identical();
            Step::Identical
        }
    }

    /// Runs on a thread of its own until the source ends or `stop` turns true. The receiver gets a message once the first
    /// state is in force.
    ///
    /// # Errors
    /// When the thread or its runtime cannot be made.
    pub fn spawn(
        mut self,
        mut stop: watch::Receiver<bool>,
    ) -> io::Result<(thread::JoinHandle<()>, oneshot::Receiver<Step>)> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (first, started) = oneshot::channel();
        let body = move || {
            runtime.block_on(async move {
                let step = self.step().await;
                // Nobody may be waiting any more: the process is then on its way out.
                let _unheard = first.send(step);
                stand_back();
                while !*stop.borrow_and_update() {
                    let loaded = tokio::select! {
                        loaded = self.source.next() => loaded,
                        changed = stop.changed() => {
                            if changed.is_err() { return }
                            continue;
                        }
                    };
                    let Some(loaded) = loaded else {
                        // Held open: tasks that the publisher started may live on this runtime.
                        let _ended = stop.wait_for(|stop| *stop).await;
                        return;
                    };
                    let _step = self.take_up(&loaded).await;
                }
            });
        };
        let thread = thread::Builder::new().name("limen-config".to_owned()).spawn(body)?;
        Ok((thread, started))
    }
}

/// How far this thread stands back behind those that serve: a change gets a tenth of a core that they want for themselves.
const NICENESS: i32 = 10;

/// Lets the threads that serve go first from now on. Until the first configuration is in force there are none to wait for.
fn stand_back() {
    if let Err(error) = rustix::process::nice(NICENESS) {
        tracing::debug!(%error, "configurations are taken up with the priority of requests");
    }
}

#[cfg(test)]
mod tests;
