//! Certificate files that change while a configuration is in force.
//!
//! Invariant: what is read anew goes live for new handshakes only, and only if it is whole; a file that breaks leaves the last good
//! certificate in force and says so once. Files are looked at, not watched: mounts are swapped by rename of a folder above.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use super::{CertificateProblem, Certificates, Effect, SecretReader, material::place};
use crate::snapshot::SnapshotCell;

/// How often files are looked at.
const EVERY: Duration = Duration::from_secs(1);

/// What tells one content of a file from another without reading it; `None`: it cannot be looked at.
type Stamp = Option<(SystemTime, u64, u64)>;

/// Secrets of the configuration in force, which certificates beside files come from.
pub type Latest<S> = Arc<Mutex<Option<Arc<S>>>>;

/// Follows the files of the configuration in force; does not return.
pub async fn follow<S: SecretReader + Send + Sync + 'static>(
    snapshots: Arc<SnapshotCell>,
    latest: Latest<S>,
) {
    let mut seen: Option<(u64, BTreeMap<Arc<str>, Stamp>)> = None;
    loop {
        tokio::time::sleep(EVERY).await;
        let snapshot = snapshots.load();
        let paths = Certificates::files(&snapshot.listeners);
        if paths.is_empty() {
            seen = None;
            continue;
        }
        let stamps: BTreeMap<Arc<str>, Stamp> =
            paths.into_iter().map(|path| (path.clone(), stamp(&path))).collect();
        // A configuration reads its files when it is made; only what changes from then on is news. Both are looked at
        // in the same second at worst, and read once more.
        let changed = match &seen {
            Some((_, before)) => *before != stamps,
            None => true,
        };
        let secrets = latest.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if changed && let Some(secrets) = secrets {
            let (certificates, problems) =
                Certificates::build(&snapshot.listeners, &*secrets, &snapshot.certificates);
            // At the first look, what has broken since the configuration was made; the rest was said then.
            let news =
                |problem: &&CertificateProblem| seen.is_some() || problem.effect == Effect::LastGoodServed;
            for problem in problems.iter().filter(news) {
                tracing::error!("{}", problem.diagnostic().message);
            }
            if seen.is_some() {
                tracing::info!(problems = problems.len(), "certificate files changed");
            }
            snapshots.renew(snapshot.generation, &Arc::new(certificates));
        }
        seen = Some((snapshot.generation, stamps));
    }
}

fn stamp(path: &str) -> Stamp {
    use std::os::unix::fs::MetadataExt;
    let about = std::fs::metadata(place(path)).ok()?;
    Some((about.modified().ok()?, about.len(), about.ino()))
}
