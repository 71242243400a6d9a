//! Events about errors, so that `kubectl describe` and whoever collects Events tells of them.
//!
//! Invariant: an error is told once for as long as it lasts, whoever writes: the name of the Event is made of what it says. One that
//! comes back is counted. What is not told yet waits; nothing waits for it.

use std::{
    collections::{BTreeMap, HashMap, HashSet, VecDeque},
    hash::BuildHasher as _,
    time::Duration,
};

use config_model::meta::ResourceKey;
use k8s_openapi::{
    api::{core::v1::ObjectReference, events::v1::Event},
    apimachinery::pkg::apis::meta::v1::MicroTime,
    jiff,
};
use kube::api::ObjectMeta;
use serde_json::json;
use tokio::time::Instant;

use super::{
    api::{Failure, Resources},
    judgement::{Judgement, Problem, shortened},
    metrics::{Metrics, Outcome},
    pace::Pace,
};

/// Longest note, in bytes; more is refused by the API server.
const LONGEST: usize = 1024;
/// Longest name of an object.
const LONGEST_NAME: usize = 253;
/// The API server forgets an Event after an hour; after that it is told anew.
const REMEMBERED: Duration = Duration::from_secs(3600);

/// Tells of errors.
pub(super) struct Events {
    /// Name of the process.
    instance: String,
    pace: Pace,
    metrics: Metrics,
    /// What was told or is waiting, by what it says.
    said: HashMap<u64, Said>,
    waiting: VecDeque<Pending>,
    /// Nothing is told before.
    refused_until: Option<Instant>,
    refused_for: Duration,
}

#[derive(Debug)]
struct Said {
    /// How often it came up.
    count: i32,
    /// Since when it has been gone.
    gone: Option<Instant>,
}

struct Pending {
    id: u64,
    key: ResourceKey,
    uid: String,
    problem: Problem,
}

impl Events {
    pub(super) fn new(instance: String, pace: Pace, refused_for: Duration, metrics: Metrics) -> Events {
        let (said, waiting) = (HashMap::new(), VecDeque::new());
        Events { instance, pace, metrics, said, waiting, refused_until: None, refused_for }
    }

    /// Forgets what was told: somebody else may have told of other things since.
    pub(super) fn begin(&mut self) {
        self.said.clear();
        self.waiting.clear();
    }

    pub(super) fn is_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Takes up the errors of now.
    pub(super) fn note(&mut self, judgements: &BTreeMap<ResourceKey, Judgement>) {
        let now = Instant::now();
        if self.refused_until.is_some_and(|until| until > now) {
            return;
        }
        let mut present = HashSet::new();
        for (key, judgement) in judgements {
            for problem in &judgement.errors {
                let id = id(key, &judgement.uid, problem);
                present.insert(id);
                let said = self.said.entry(id).or_insert(Said { count: 0, gone: Some(now) });
                if said.gone.take().is_some() {
                    said.count = said.count.saturating_add(1);
                    let (key, uid) = (key.clone(), judgement.uid.clone());
                    self.waiting.push_back(Pending { id, key, uid, problem: problem.clone() });
                }
            }
        }
        self.said.retain(|id, said| {
            if !present.contains(id) {
                said.gone.get_or_insert(now);
            }
            said.gone.is_none_or(|gone| gone.elapsed() < REMEMBERED)
        });
        // What is gone before it was told is not told.
        self.waiting.retain(|pending| present.contains(&pending.id));
    }

    /// Tells as much as may be told now.
    pub(super) async fn flush(&mut self, resources: &mut Resources) {
        while !self.waiting.is_empty() && self.pace.try_take() {
            let Some(pending) = self.waiting.pop_front() else { return };
            let outcome = match self.tell(&pending, resources).await {
                Ok(outcome) => outcome,
                Err(Failure::Refused(why)) => {
                    tracing::warn!("Events about errors are not written: {why}");
                    self.refused_until = Some(Instant::now() + self.refused_for);
                    self.begin();
                    Outcome::Refused
                }
                Err(Failure::Failed(why)) => {
                    tracing::debug!(resource = %pending.key, "an Event is tried again: {why}");
                    self.waiting.push_front(pending);
                    self.metrics.count_event(Outcome::Failed);
                    return;
                }
                Err(failure) => {
                    tracing::debug!(resource = %pending.key, "an Event is given up: {failure}");
                    Outcome::Failed
                }
            };
            self.metrics.count_event(outcome);
        }
    }

    async fn tell(&self, pending: &Pending, resources: &mut Resources) -> Result<Outcome, Failure> {
        let Pending { id, key, .. } = pending;
        let count = self.said.get(id).map_or(1, |said| said.count);
        let name = name(key, *id);
        if count > 1 {
            let series = json!({"series": {"count": count, "lastObservedTime": now()}});
            match resources.patch_event(&key.namespace, &name, &series).await {
                Ok(()) => return Ok(Outcome::Written),
                Err(Failure::Absent) => {}
                Err(failure) => return Err(failure),
            }
        }
        let kind = resources.kind(key.kind).await?;
        match resources.create_event(&key.namespace, &self.event(pending, name, kind.api_version)).await {
            Ok(()) => Ok(Outcome::Written),
            // Whoever wrote before has told it.
            Err(Failure::Conflict) => Ok(Outcome::Unchanged),
            Err(failure) => Err(failure),
        }
    }

    fn event(&self, pending: &Pending, name: String, api_version: String) -> Event {
        let Pending { key, uid, problem, .. } = pending;
        Event {
            metadata: ObjectMeta {
                name: Some(name),
                namespace: Some(key.namespace.clone()),
                ..ObjectMeta::default()
            },
            event_time: Some(now()),
            type_: Some("Warning".to_owned()),
            reason: Some(problem.code.info().title.to_owned()),
            action: Some("Validate".to_owned()),
            note: Some(shortened(&problem.text, LONGEST).to_owned()),
            regarding: Some(ObjectReference {
                api_version: Some(api_version),
                kind: Some(key.kind.to_string()),
                namespace: Some(key.namespace.clone()),
                name: Some(key.name.clone()),
                uid: Some(uid.clone()).filter(|uid| !uid.is_empty()),
                ..ObjectReference::default()
            }),
            reporting_controller: Some("limen".to_owned()),
            reporting_instance: Some(self.instance.clone()),
            ..Event::default()
        }
    }
}

/// The same for the same error, in any process.
fn id(key: &ResourceKey, uid: &str, problem: &Problem) -> u64 {
    let said = (key.kind.as_str(), &key.namespace, &key.name, uid, problem.code.as_str(), &problem.text);
    foldhash::fast::FixedState::with_seed(0).hash_one(said)
}

fn name(key: &ResourceKey, id: u64) -> String {
    let end = format!(".{id:016x}");
    format!("{}{end}", shortened(&key.name, LONGEST_NAME - end.len()))
}

fn now() -> MicroTime {
    MicroTime(jiff::Timestamp::now())
}
