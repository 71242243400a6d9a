//! Configuration from folders and files of YAML and JSON, followed while they change.
//!
//! Invariant: only a file whose content changed is parsed again, and a resource whose document did not change keeps its `Arc`.
//! What cannot be read just now (a folder, a file, a half-written document) stays as it last was. Must not interpret resources.

mod scan;

use std::{
    collections::{BTreeMap, BTreeSet},
    hash::{BuildHasher as _, Hasher as _},
    io::Read as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use async_trait::async_trait;
use config_model::{
    diagnostic::{Code, Diagnostic, Diagnostics, Severity},
    meta::{Origin, ResourceKey},
    parse::{self, Parsed},
    set::AnyResource,
};

pub use super::watch::Timing;
use super::{
    Health, Loaded, Source,
    watch::{Wake, Watch},
};
use scan::{Scan, Stamp};

/// A file this young may change again within the resolution of its time stamp, so the stamp does not prove it unchanged.
const STAMP_RESOLUTION: Duration = Duration::from_secs(2);

/// Folders and files as one source.
pub struct Directory {
    roots: Vec<PathBuf>,
    timing: Timing,
    files: BTreeMap<PathBuf, File>,
    hasher: foldhash::fast::FixedState,
    watch: Option<Watch>,
    seen: Option<u64>,
}

/// A file as last read.
struct File {
    stamp: Stamp,
    read_at: SystemTime,
    hash: u64,
    contents: Arc<Contents>,
}

/// What a file gave.
#[derive(Default)]
struct Contents {
    resources: Vec<AnyResource>,
    /// Resources of an earlier content, in place of documents that cannot be read now.
    kept: Vec<AnyResource>,
    diagnostics: Diagnostics,
    unparsable: usize,
    ignored: Vec<(String, Origin)>,
}

impl Directory {
    /// A source of these folders and files, read with the default [`Timing`].
    #[must_use]
    pub fn new(roots: Vec<PathBuf>) -> Directory {
        Directory::with_timing(roots, Timing::default())
    }

    /// The same with another timing.
    #[must_use]
    pub fn with_timing(roots: Vec<PathBuf>, timing: Timing) -> Directory {
        let hasher = foldhash::fast::FixedState::with_seed(0);
        Directory { roots, timing, files: BTreeMap::new(), hasher, watch: None, seen: None }
    }

    /// Reads everything as it is now, without waiting.
    pub fn load(&mut self) -> Loaded {
        let scan = scan::scan(&self.roots);
        self.seen = Some(scan.fingerprint());
        self.read(scan)
    }

    fn read(&mut self, scan: Scan) -> Loaded {
        let mut loaded = Loaded::default();
        let mut ignored: BTreeMap<String, (usize, Origin)> = BTreeMap::new();
        let mut previous = std::mem::take(&mut self.files);
        for (path, stamp) in scan.files {
            let before = previous.remove(&path);
            match self.file(&path, stamp, before) {
                Opened::Read(file) => {
                    take(&mut loaded, &mut ignored, &file.contents);
                    self.files.insert(path, file);
                }
                Opened::Gone => {}
                Opened::Failed(error, before) => {
                    loaded.health = Health::Stale;
                    loaded.diagnostics.push(unreadable(&path, &error, before.is_some()));
                    if let Some(before) = before {
                        take(&mut loaded, &mut ignored, &before.contents);
                        self.files.insert(path, before);
                    }
                }
            }
        }
        for (folder, error) in &scan.unreadable {
            loaded.health = Health::Stale;
            let below: Vec<PathBuf> =
                previous.keys().filter(|file| file.starts_with(folder)).cloned().collect();
            loaded.diagnostics.push(unreadable(folder, error, !below.is_empty()));
            for path in below {
                if let Some(file) = previous.remove(&path) {
                    take(&mut loaded, &mut ignored, &file.contents);
                    self.files.insert(path, file);
                }
            }
        }
        for (kind, (count, origin)) in ignored {
            let times = if count == 1 { String::new() } else { format!(" ({count} documents)") };
            let message = format!("{kind} is not a kind that the gateway reads: ignored{times}");
            loaded.diagnostics.push(
                Diagnostic::new(Code::IGNORED_KIND, message).severity(Severity::Info).from_origin(origin),
            );
        }
        loaded
    }

    /// Reads one file, or finds that it has not changed.
    fn file(&self, path: &Path, stamp: Stamp, before: Option<File>) -> Opened {
        if let Some(before) = before.as_ref().filter(|before| before.stamp == stamp)
            && stamp.is_older_than(before.read_at, STAMP_RESOLUTION)
        {
            return Opened::Read(before.again());
        }
        let read_at = SystemTime::now();
        let bytes = match read_capped(path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Opened::Gone,
            Err(error) => return Opened::Failed(error, before),
        };
        let mut hasher = self.hasher.build_hasher();
        hasher.write(&bytes);
        let hash = hasher.finish();
        let contents = match &before {
            Some(before) if before.hash == hash => Arc::clone(&before.contents),
            _ => {
                let parsed = parse::parse(&path.to_string_lossy(), &bytes);
                Arc::new(follow(parsed, before.as_ref().map(|before| &*before.contents)))
            }
        };
        Opened::Read(File { stamp, read_at, hash, contents })
    }
}

impl File {
    fn again(&self) -> File {
        File {
            stamp: self.stamp,
            read_at: self.read_at,
            hash: self.hash,
            contents: Arc::clone(&self.contents),
        }
    }
}

/// How opening a file went.
enum Opened {
    Read(File),
    Gone,
    Failed(std::io::Error, Option<File>),
}

#[async_trait]
impl Source for Directory {
    fn describe(&self) -> String {
        let roots: Vec<_> = self.roots.iter().map(|root| root.display().to_string()).collect();
        roots.join(", ")
    }

    async fn next(&mut self) -> Option<Loaded> {
        let Some(watch) = &mut self.watch else {
            // Watched before it is read: what changes in between is an event, not a gap.
            self.watch = Some(Watch::new(&self.roots, self.timing));
            return Some(self.load());
        };
        loop {
            match watch.wait().await {
                Wake::Event => {
                    watch.settle().await;
                    return Some(self.load());
                }
                Wake::Poll => {
                    if self.seen != Some(scan::scan(&self.roots).fingerprint()) {
                        watch.settle().await;
                        return Some(self.load());
                    }
                }
            }
        }
    }
}

/// Reads no more than the parser takes; one byte above tells it that there is more.
fn read_capped(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let limit = parse::MAX_FILE_BYTES as u64 + 1;
    std::fs::File::open(path)?.take(limit).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Carries over from the earlier content what did not change and what cannot be read now.
fn follow(parsed: Parsed, before: Option<&Contents>) -> Contents {
    let mut contents = Contents {
        resources: parsed.resources,
        kept: Vec::new(),
        diagnostics: parsed.diagnostics,
        unparsable: parsed.failed.len(),
        ignored: parsed.ignored.into_iter().map(|document| (document.kind, document.origin)).collect(),
    };
    let Some(before) = before else { return contents };
    let mut known: BTreeMap<ResourceKey, AnyResource> = BTreeMap::new();
    for resource in before.resources.iter().chain(&before.kept) {
        known.entry(resource.key().clone()).or_insert_with(|| resource.clone());
    }
    for resource in &mut contents.resources {
        if let Some(old) = known.remove(resource.key())
            && old.content_hash() == resource.content_hash()
            && old.origin() == resource.origin()
        {
            *resource = old;
        }
    }
    let last_good = contents.resources.iter().map(|resource| resource.origin().line).max().unwrap_or(0);
    // A text that ends in a document that cannot be read may have been cut there: then everything that is missing is
    // missing for that reason. Otherwise only the documents that failed are.
    let cut = parsed.failed.iter().any(|failed| failed.key.is_none() || failed.origin.line > last_good);
    let failed: BTreeSet<&ResourceKey> =
        parsed.failed.iter().filter_map(|failed| failed.key.as_ref()).collect();
    contents.kept = known.into_values().filter(|old| cut || failed.contains(old.key())).collect();
    if let (Some(first), false) = (parsed.failed.first(), contents.kept.is_empty()) {
        let names: Vec<_> = contents.kept.iter().map(|resource| resource.key().to_string()).collect();
        let message =
            format!("a document of this file cannot be read; kept as last read: {}", names.join(", "));
        contents.diagnostics.push(
            Diagnostic::new(Code::SYNTAX, message)
                .severity(Severity::Warning)
                .from_origin(first.origin.clone()),
        );
    }
    contents
}

fn take(loaded: &mut Loaded, ignored: &mut BTreeMap<String, (usize, Origin)>, contents: &Contents) {
    loaded.resources.extend(contents.resources.iter().cloned());
    loaded.kept.extend(contents.kept.iter().cloned());
    loaded.diagnostics.extend(contents.diagnostics.iter().cloned());
    loaded.unparsable += contents.unparsable;
    for (kind, origin) in &contents.ignored {
        ignored.entry(kind.clone()).or_insert_with(|| (0, origin.clone())).0 += 1;
    }
}

fn unreadable(path: &Path, error: &std::io::Error, kept: bool) -> Diagnostic {
    let stands = if kept { "; what was last read of it stays" } else { "" };
    Diagnostic::new(Code::UNREADABLE, format!("cannot be read: {error}{stands}")).from_origin(Origin::new(
        path.to_string_lossy().as_ref(),
        1,
        1,
    ))
}

#[cfg(test)]
mod tests;
