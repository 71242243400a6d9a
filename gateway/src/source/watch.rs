//! When to look again: file system events, and a slow poll for those that events miss.
//!
//! Invariant: any number of events in between make one signal, which says where to look, or, in doubt and after many of them, that
//! everything has to be looked at; so a storm of writes costs no memory. An event system that is missing or full only makes changes
//! later, by the poll interval.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use notify::{RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::{
    sync::Notify,
    time::{Instant, timeout, timeout_at},
};

/// How quickly changes are taken up.
#[derive(Debug, Clone, Copy)]
pub struct Timing {
    /// A change is read when nothing has happened for this long (100 ms).
    pub quiet: Duration,
    /// A change is read at the latest after this long, however much is going on (10 s).
    pub longest: Duration,
    /// The folder is looked at this often even without an event (2 s).
    pub poll: Duration,
}

impl Default for Timing {
    fn default() -> Timing {
        Timing {
            quiet: Duration::from_millis(100),
            longest: Duration::from_secs(10),
            poll: Duration::from_secs(2),
        }
    }
}

/// Why the wait ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub(super) enum Wake {
    /// Something was written.
    Event,
    /// It is time for a look.
    Poll,
}

/// Paths that are remembered between two looks; looking at more of them costs as much as looking at everything.
const MOST_PATHS: usize = 512;

/// Where something was written.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub(super) enum Touched {
    /// At these paths, and at no other.
    Paths(BTreeSet<PathBuf>),
    /// Nobody knows.
    Anything,
}

impl Touched {
    fn add(&mut self, event: &notify::Result<notify::Event>) {
        match (event, &mut *self) {
            (Ok(event), Touched::Paths(paths)) if !event.need_rescan() && !event.paths.is_empty() => {
                paths.extend(event.paths.iter().cloned());
                if paths.len() > MOST_PATHS {
                    *self = Touched::Anything;
                }
            }
            _ => *self = Touched::Anything,
        }
    }
}

/// Watches some roots.
pub(super) struct Watch {
    signal: Arc<Notify>,
    touched: Arc<Mutex<Touched>>,
    watcher: Option<RecommendedWatcher>,
    roots: Vec<Root>,
    timing: Timing,
}

struct Root {
    path: PathBuf,
    /// Identity of the folder that the watcher holds; a folder that was replaced must be watched anew.
    watched: Option<(u64, u64)>,
}

impl Watch {
    pub(super) fn new(roots: &[PathBuf], timing: Timing) -> Watch {
        let signal = Arc::new(Notify::new());
        let touched = Arc::new(Mutex::new(Touched::Paths(BTreeSet::new())));
        let (on_event, noted) = (Arc::clone(&signal), Arc::clone(&touched));
        let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            // Reading the files is itself an event; taking it for a change would never end.
            if !matches!(&event, Ok(event) if event.kind.is_access()) {
                noted.lock().unwrap_or_else(PoisonError::into_inner).add(&event);
                on_event.notify_one();
            }
        });
        let watcher = match watcher {
            Ok(watcher) => Some(watcher),
            Err(error) => {
                tracing::warn!(%error, "file events are not available: folders are polled");
                None
            }
        };
        let roots = roots.iter().map(|path| Root { path: path.clone(), watched: None }).collect();
        let mut watch = Watch { signal, touched, watcher, roots, timing };
        watch.attach();
        watch
    }

    /// Waits for an event or for the next poll, which comes after `least` at the earliest.
    pub(super) async fn wait(&mut self, least: Duration) -> Wake {
        let wake = match timeout(self.timing.poll.max(least), self.signal.notified()).await {
            Ok(()) => Wake::Event,
            Err(_) => Wake::Poll,
        };
        self.attach();
        wake
    }

    /// Where something was written since this was asked for the last time.
    pub(super) fn touched(&self) -> Touched {
        let none = Touched::Paths(BTreeSet::new());
        std::mem::replace(&mut *self.touched.lock().unwrap_or_else(PoisonError::into_inner), none)
    }

    /// Lets a burst of writes end.
    pub(super) async fn settle(&self) {
        let latest = Instant::now() + self.timing.longest;
        loop {
            let quiet = latest.min(Instant::now() + self.timing.quiet);
            if timeout_at(quiet, self.signal.notified()).await.is_err() || Instant::now() >= latest {
                return;
            }
        }
    }

    /// Watches every root that is not watched yet or that another folder has taken the place of.
    fn attach(&mut self) {
        let Some(watcher) = &mut self.watcher else { return };
        for root in &mut self.roots {
            let now = identity(&root.path);
            if now == root.watched {
                continue;
            }
            // What happened in a folder that nobody watched is not known.
            *self.touched.lock().unwrap_or_else(PoisonError::into_inner) = Touched::Anything;
            if root.watched.take().is_some() {
                // The old folder may be gone, and its watch with it: that is what is wanted.
                let _gone = watcher.unwatch(watch_point(&root.path));
            }
            if now.is_none() {
                continue;
            }
            match watcher.watch(watch_point(&root.path), RecursiveMode::Recursive) {
                Ok(()) => root.watched = now,
                Err(error) => {
                    tracing::warn!(path = %root.path.display(), %error, "cannot watch; the folder is polled");
                    // Not tried again until the folder is another one: the poll does the work.
                    root.watched = now;
                }
            }
        }
    }
}

/// A single file is watched through its folder: an editor replaces the file and a watch on it would be left behind.
fn watch_point(root: &Path) -> &Path {
    match root.parent() {
        Some(parent) if !root.is_dir() => {
            if parent.as_os_str().is_empty() {
                Path::new(".")
            } else {
                parent
            }
        }
        _ => root,
    }
}

#[cfg(unix)]
fn identity(path: &Path) -> Option<(u64, u64)> {
    use std::os::unix::fs::MetadataExt as _;
    let metadata = fs::metadata(watch_point(path)).ok()?;
    Some((metadata.dev(), metadata.ino()))
}

#[cfg(not(unix))]
fn identity(path: &Path) -> Option<(u64, u64)> {
    fs::metadata(watch_point(path)).ok().map(|_| (0, 0))
}
