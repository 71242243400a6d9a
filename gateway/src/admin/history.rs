//! The latest configurations and what each changed, resource by resource.
//!
//! Invariant: holds names, places and hashes, never a resource; so many generations and names, and no more. One that was
//! overtaken before it was looked at is told together with the next.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Mutex, PoisonError},
    time::{SystemTime, UNIX_EPOCH},
};

use config_model::{diagnostic::Severity, meta::ResourceKey, scalar::Timestamp};
use serde_json::{Value, json};

use super::Admin;
use crate::pipeline::Built;

const MOST_GENERATIONS: usize = 50;
/// Names shown of what one generation added, changed or removed.
const MOST_NAMES: usize = 50;

/// What is remembered.
#[derive(Debug, Default)]
pub struct History(Mutex<Past>);

#[derive(Debug, Default)]
struct Past {
    latest: u64,
    known: BTreeMap<ResourceKey, (u64, Place)>,
    told: VecDeque<Value>,
}

type Place = (String, u32);

impl History {
    /// The generations, newest first.
    pub(super) fn told(&self) -> Vec<Value> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).told.iter().cloned().collect()
    }

    /// Takes note of what is in force; `at`: seconds since the epoch.
    pub(super) fn note(&self, built: &Built, errors: usize, at: i64) {
        let mut past = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if past.latest == built.generation {
            return;
        }
        let now: BTreeMap<ResourceKey, (u64, Place)> = built
            .validated
            .set()
            .iter()
            .map(|resource| {
                let origin = resource.origin();
                let place = (origin.file.to_string(), origin.line);
                (resource.key().clone(), (resource.content_hash(), place))
            })
            .collect();
        let added = now.iter().filter(|(key, _)| !past.known.contains_key(key));
        let changed =
            now.iter().filter(|(key, (hash, _))| past.known.get(key).is_some_and(|(old, _)| old != hash));
        let removed = past.known.iter().filter(|(key, _)| !now.contains_key(key));
        let told = json!({
            "generation": built.generation,
            "at": Timestamp::from_unix(at, 0).to_string(),
            "resources": built.resources,
            "errors": errors,
            "added": names(added),
            "changed": names(changed),
            "removed": names(removed),
        });
        past.told.push_front(told);
        past.told.truncate(MOST_GENERATIONS);
        past.latest = built.generation;
        past.known = now;
    }
}

/// Takes note of each generation as it comes into force.
pub(super) async fn follow(admin: &Admin) {
    let mut changes = admin.snapshots.subscribe();
    loop {
        note(admin);
        if changes.changed().await.is_err() {
            return;
        }
    }
}

/// Takes note of what is in force now. The state of the pipeline follows the snapshot by a moment, so whoever shows the history
/// looks again.
pub(super) fn note(admin: &Admin) {
    if let Some(built) = admin.status.built() {
        let errors = admin.status.findings().count(Severity::Error);
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        admin.history.note(&built, errors, i64::try_from(since.as_secs()).unwrap_or(i64::MAX));
    }
}

fn names<'a>(resources: impl Iterator<Item = (&'a ResourceKey, &'a (u64, Place))>) -> Value {
    let all: Vec<_> = resources.collect();
    let shown = all
        .iter()
        .take(MOST_NAMES)
        .map(|(key, (_, (file, line)))| json!({"resource": key.to_string(), "file": file, "line": line}));
    json!({"count": all.len(), "shown": shown.collect::<Vec<_>>()})
}
