//! Brings the statuses in the cluster to what is judged, as long as it is let.
//!
//! Invariant: a status is read before it is written, and written only where it says something else. What could not be written is
//! tried again; what may not be written is left alone for a while, and said once.

use std::{
    collections::{BTreeMap, HashMap},
    convert::Infallible,
    sync::Arc,
    time::Duration,
};

use config_model::meta::{Kind, ResourceKey};
use k8s_openapi::jiff;
use kube::Client;
use serde_json::Value;
use tokio::{
    sync::watch,
    task::spawn_blocking,
    time::{Instant, sleep},
};

use super::{
    Failures, Timing,
    api::{Failure, Resources},
    document,
    event::Events,
    judgement::{Judgement, judge},
    metrics::{Metrics, Outcome},
    pace::Pace,
};
use crate::pipeline::{Built, Status, Synchronization};

/// Attempts at a status that somebody else writes too.
const ATTEMPTS: usize = 5;
/// More of a kind than these are read by its list.
const FEW: usize = 20;
/// A pass goes on for this long, whatever changes.
const AT_LEAST: Duration = Duration::from_secs(2);
/// Failures in a row, after which the API server is left alone for a while.
const FAILURES: u32 = 3;

pub(super) struct Scribe {
    status: Arc<Status>,
    failures: Arc<Failures>,
    resources: Resources,
    events: Events,
    pace: Pace,
    timing: Timing,
    metrics: Metrics,
    /// What each resource says, as far as it was read or written since the beginning.
    known: HashMap<ResourceKey, Judgement>,
    /// Kinds that may not be written, and until when they are left alone.
    refused: HashMap<Kind, Instant>,
}

type Judgements = BTreeMap<ResourceKey, Judgement>;

/// What came of going over all resources once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
enum Pass {
    /// All is as it should be.
    Done,
    /// There is something newer to judge.
    Overtaken,
    /// Something is to be tried again.
    Failed,
}

impl Scribe {
    pub(super) fn new(
        client: Client,
        process: &str,
        status: Arc<Status>,
        failures: Failures,
        metrics: Metrics,
        timing: Timing,
    ) -> Scribe {
        let (write_every, write_burst) = timing.writes;
        let (event_every, event_burst) = timing.events;
        let pace = Pace::new(event_every, event_burst);
        Scribe {
            status,
            failures: Arc::new(failures),
            resources: Resources::new(client),
            events: Events::new(process.to_owned(), pace, timing.refused, metrics.clone()),
            pace: Pace::new(write_every, write_burst),
            timing,
            metrics,
            known: HashMap::new(),
            refused: HashMap::new(),
        }
    }

    /// Writes until it is stopped. Whatever was known is read anew: others may have written in the meantime.
    pub(super) async fn write(&mut self) -> Infallible {
        self.known.clear();
        self.events.begin();
        let mut changes = self.status.changes();
        let mut pass = Pass::Done;
        loop {
            changes.mark_unchanged();
            if let Some((built, judgements)) = self.judge().await {
                self.events.note(&judgements);
                pass = self.pass(&built, &judgements, &changes).await;
            }
            self.wait(pass, &mut changes).await;
        }
    }

    /// Waits for a change, or until something is to be looked at again.
    async fn wait(&mut self, pass: Pass, changes: &mut watch::Receiver<u64>) {
        let pause = match pass {
            Pass::Overtaken => return,
            Pass::Failed => self.timing.retry,
            Pass::Done => self.timing.recheck,
        };
        let until = Instant::now() + pause;
        while Instant::now() < until {
            self.events.flush(&mut self.resources).await;
            let (every, _) = self.timing.events;
            let tick = if self.events.is_waiting() { every.min(pause) } else { until - Instant::now() };
            tokio::select! {
                // The sender is in `self.status`: this does not fail.
                _ = changes.changed() => return sleep(self.timing.quiet).await,
                () = sleep(tick) => {}
            }
        }
    }

    /// What is to be said; `None` while what is in force is not what the cluster says.
    async fn judge(&self) -> Option<(Arc<Built>, Judgements)> {
        if self.status.synchronization() != Synchronization::Current {
            return None;
        }
        let (built, findings) = (self.status.built()?, self.status.findings());
        let failures = Arc::clone(&self.failures);
        // Every route is looked at: not on a thread that others wait for.
        let judged = spawn_blocking(move || {
            let judgements = judge(&built, &findings, &failures());
            (built, judgements)
        });
        judged.await.inspect_err(|error| tracing::error!(%error, "statuses cannot be judged")).ok()
    }

    async fn pass(&mut self, built: &Built, judgements: &Judgements, changes: &watch::Receiver<u64>) -> Pass {
        let now = Instant::now();
        self.refused.retain(|_, until| *until > now);
        let mut todo: BTreeMap<Kind, Vec<&ResourceKey>> = BTreeMap::new();
        let changed = judgements.iter().filter(|(key, judgement)| self.known.get(key) != Some(judgement));
        for (key, _) in changed.filter(|(key, _)| !self.refused.contains_key(&key.kind)) {
            todo.entry(key.kind).or_default().push(key);
        }
        let dropped: Vec<ResourceKey> =
            self.known.keys().filter(|key| !judgements.contains_key(key)).cloned().collect();
        let mut tally = Tally::begin(changes);
        for (kind, keys) in todo {
            if keys.len() > FEW {
                self.write_list(kind, judgements, &mut tally).await;
            } else {
                for key in keys {
                    if tally.is_over() {
                        break;
                    }
                    self.write_one(key, judgements.get(key), None, &mut tally).await;
                }
            }
        }
        for key in dropped {
            if tally.is_over() {
                break;
            }
            if built.validated.set().contains(&key) {
                self.write_one(&key, None, None, &mut tally).await;
            } else {
                self.known.remove(&key);
            }
        }
        tally.pass()
    }

    /// Goes over a kind by its list.
    async fn write_list(&mut self, kind: Kind, judgements: &Judgements, tally: &mut Tally<'_>) {
        let mut next = None;
        loop {
            self.pace.take().await;
            let page = match self.resources.list(kind, next.as_deref()).await {
                Ok(page) => page,
                Err(failure) => return self.tell_of_kind(kind, &failure, tally),
            };
            for (key, object) in page.objects {
                if tally.is_over() || self.refused.contains_key(&kind) {
                    return;
                }
                let judgement = judgements.get(&key);
                if judgement.is_some() && self.known.get(&key) != judgement {
                    self.write_one(&key, judgement, Some(object), tally).await;
                }
            }
            next = page.next;
            if next.is_none() {
                return;
            }
        }
    }

    /// Brings one status to what is judged, or takes back what was written.
    async fn write_one(
        &mut self,
        key: &ResourceKey,
        judgement: Option<&Judgement>,
        object: Option<Value>,
        tally: &mut Tally<'_>,
    ) {
        if self.refused.contains_key(&key.kind) {
            return;
        }
        self.events.flush(&mut self.resources).await;
        match self.bring(key, judgement, object).await {
            Ok(outcome) => {
                tally.in_a_row = 0;
                self.metrics.count_write(outcome);
                self.note(key, judgement);
            }
            // Deleted in the meantime: that is going to be told.
            Err(Failure::Absent) => self.note(key, judgement),
            Err(Failure::Invalid(why)) => {
                tracing::warn!(resource = %key, "its status is not taken by the API server: {why}");
                self.metrics.count_write(Outcome::Failed);
                self.note(key, judgement);
            }
            Err(failure) => self.tell_of_kind(key.kind, &failure, tally),
        }
    }

    fn note(&mut self, key: &ResourceKey, judgement: Option<&Judgement>) {
        match judgement {
            Some(judgement) => self.known.insert(key.clone(), judgement.clone()),
            None => self.known.remove(key),
        };
    }

    async fn bring(
        &mut self,
        key: &ResourceKey,
        judgement: Option<&Judgement>,
        mut object: Option<Value>,
    ) -> Result<Outcome, Failure> {
        for _ in 0..ATTEMPTS {
            let object = match object.take() {
                Some(object) => object,
                None => {
                    self.pace.take().await;
                    self.resources.get(key).await?
                }
            };
            let patch = match judgement {
                Some(judgement) => document::change(&object, judgement, &now()),
                None => {
                    let judged = self.known.get(key).and_then(|judgement| judgement.generation);
                    document::withdrawal(&object, judged)
                }
            };
            let Some(patch) = patch else { return Ok(Outcome::Unchanged) };
            self.pace.take().await;
            match self.resources.patch_status(key, &patch).await {
                Ok(()) => return Ok(Outcome::Written),
                Err(Failure::Conflict) => self.metrics.count_write(Outcome::Conflict),
                Err(failure) => return Err(failure),
            }
        }
        Err(Failure::Failed("its status is written by others all the time".to_owned()))
    }

    /// A failure that is not the object's.
    fn tell_of_kind(&mut self, kind: Kind, failure: &Failure, tally: &mut Tally<'_>) {
        match failure {
            Failure::Refused(why) => {
                tracing::warn!("the status of every {kind} is left alone: {why}");
                self.metrics.count_write(Outcome::Refused);
                self.refused.insert(kind, Instant::now() + self.timing.refused);
            }
            Failure::Absent => {}
            failure => {
                tracing::debug!("the status of a {kind} is tried again: {failure}");
                self.metrics.count_write(Outcome::Failed);
                tally.failed = true;
                tally.in_a_row += 1;
            }
        }
    }
}

/// How a pass goes.
struct Tally<'a> {
    changes: &'a watch::Receiver<u64>,
    begun: Instant,
    failed: bool,
    in_a_row: u32,
}

impl Tally<'_> {
    fn begin(changes: &watch::Receiver<u64>) -> Tally<'_> {
        Tally { changes, begun: Instant::now(), failed: false, in_a_row: 0 }
    }

    /// Whether there is no sense in going on.
    fn is_over(&self) -> bool {
        self.in_a_row >= FAILURES || self.is_overtaken()
    }

    /// Where something changes all the time, each pass gets on a little.
    fn is_overtaken(&self) -> bool {
        self.changes.has_changed().unwrap_or(false) && self.begun.elapsed() >= AT_LEAST
    }

    fn pass(&self) -> Pass {
        match self.failed {
            true => Pass::Failed,
            false if self.is_overtaken() => Pass::Overtaken,
            false => Pass::Done,
        }
    }
}

/// As the API server writes times in metadata: to the second.
fn now() -> String {
    let now = jiff::Timestamp::now();
    jiff::Timestamp::from_second(now.as_second()).unwrap_or(now).to_string()
}
