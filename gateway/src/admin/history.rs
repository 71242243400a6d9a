//! The latest configurations and what each changed, resource by resource.
//!
//! Invariant: so many generations and names, and no more; of resources no more than is in force, which is shared with the pipeline. One
//! that was overtaken before it was looked at is told together with the next.

use std::{
    collections::VecDeque,
    sync::{Mutex, PoisonError},
    time::{SystemTime, UNIX_EPOCH},
};

use config_model::{
    diagnostic::Severity,
    scalar::Timestamp,
    set::{AnyResource, ResourceSet},
};
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
    known: ResourceSet,
    told: VecDeque<Value>,
}

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
        let now = built.validated.set();
        let (mut added, mut changed, mut removed) = (Vec::new(), Vec::new(), Vec::new());
        for change in now.changes_since(&past.known) {
            match (change.before, change.after) {
                (None, Some(new)) => added.push(new),
                (Some(old), None) => removed.push(old),
                // What only stands elsewhere now has not changed.
                (Some(old), Some(new)) if old.content_hash() != new.content_hash() => changed.push(new),
                (Some(_), Some(_)) | (None, None) => {}
            }
        }
        let told = json!({
            "generation": built.generation,
            "at": Timestamp::from_unix(at, 0).to_string(),
            "resources": built.resources,
            "errors": errors,
            "added": names(&added),
            "changed": names(&changed),
            "removed": names(&removed),
        });
        past.told.push_front(told);
        past.told.truncate(MOST_GENERATIONS);
        past.latest = built.generation;
        past.known = now.clone();
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

fn names(resources: &[AnyResource]) -> Value {
    let shown = resources.iter().take(MOST_NAMES).map(|resource| {
        let origin = resource.origin();
        json!({"resource": resource.key().to_string(), "file": &*origin.file, "line": origin.line})
    });
    json!({"count": resources.len(), "shown": shown.collect::<Vec<_>>()})
}
