//! Configuration from folders and files of YAML and JSON, followed while they change.
//!
//! Invariant: only a file that may have changed is read again, and a resource whose document did not change keeps its `Arc`.
//! What cannot be read just now (a folder, a file, a half-written document) stays as it last was. Must not interpret resources.

mod file;
mod parallel;
mod scan;

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use async_trait::async_trait;
use config_model::{
    diagnostic::{Code, Diagnostic, Severity},
    meta::Origin,
};

pub use super::watch::Timing;
use super::{
    Health, Loaded, Source,
    watch::{Touched, Wake, Watch},
};
use file::{Alone, Contents, File};
use scan::{Scan, Stamp, Ways};

/// Looking at a folder takes no more than this part of the time.
const SHARE_OF_LOOKING: u32 = 200;

/// Folders and files as one source.
pub struct Directory {
    roots: Vec<PathBuf>,
    timing: Timing,
    /// By path, those first that a walk meets first.
    files: Vec<File>,
    unreadable: Vec<(PathBuf, io::Error)>,
    ways: Ways,
    /// How long the last walk took.
    walk: Duration,
    watch: Option<Watch>,
}

/// Whether a look at single paths tells everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
enum Looked {
    Enough,
    TooLittle,
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
        Directory {
            roots,
            timing,
            files: Vec::new(),
            unreadable: Vec::new(),
            ways: Ways::Linked,
            walk: Duration::ZERO,
            watch: None,
        }
    }

    /// Reads everything as it is now, without waiting.
    pub fn load(&mut self) -> Loaded {
        let scan = self.scan();
        self.take_up(scan);
        self.loaded()
    }

    fn scan(&mut self) -> Scan {
        let begin = Instant::now();
        let scan = scan::scan(&self.roots);
        self.walk = begin.elapsed();
        scan
    }

    /// Whether a walk found what is known.
    fn is_as_scanned(&self, scan: &Scan) -> bool {
        let known = self.files.iter().filter(|file| !file.lost).map(|file| (&file.path, file.stamp));
        let same =
            |(a, b): (&(PathBuf, io::Error), &(PathBuf, io::Error))| a.0 == b.0 && a.1.kind() == b.1.kind();
        // Paths that are spelt alike are the same, and cheaper to compare.
        known.clone().count() == scan.files.len()
            && known
                .zip(&scan.files)
                .all(|((path, stamp), (other, now))| path.as_os_str() == other.as_os_str() && stamp == *now)
            && self.unreadable.len() == scan.unreadable.len()
            && self.unreadable.iter().zip(&scan.unreadable).all(same)
    }

    /// Reads what may have changed of all files.
    fn take_up(&mut self, scan: Scan) {
        let mut before = std::mem::take(&mut self.files).into_iter().peekable();
        let mut lost: Vec<File> = Vec::new();
        let mut files: Vec<(File, Stamp)> = Vec::with_capacity(scan.files.len());
        for (path, stamp) in scan.files {
            // Both lists are in one order.
            while let Some(old) =
                before.next_if(|old| old.path.as_os_str() != path.as_os_str() && old.path < path)
            {
                lost.push(old);
            }
            let known = before.next_if(|old| old.path.as_os_str() == path.as_os_str());
            files.push((known.unwrap_or_else(|| File::new(path, stamp)), stamp));
        }
        lost.extend(before);
        // A few files are opened one after the other, and large ones read on all cores.
        let alone = if files.len() < parallel::MANY { Alone::Yes } else { Alone::No };
        let opened =
            parallel::each(&files, |(file, stamp)| (!file.is_surely(*stamp)).then(|| file.open(alone)));
        for ((mut file, stamp), opened) in files.into_iter().zip(opened) {
            file.lost = false;
            if opened.is_none_or(|opened| file.take_up(stamp, opened)) {
                self.files.push(file);
            }
        }
        for mut file in lost {
            if scan.unreadable.iter().any(|(folder, _)| file.path.starts_with(folder)) {
                file.lost = true;
                self.files.push(file);
            }
        }
        if !scan.unreadable.is_empty() {
            self.files.sort_by(|a, b| a.path.cmp(&b.path));
        }
        (self.unreadable, self.ways) = (scan.unreadable, scan.ways);
    }

    /// Looks at the paths where something happened and at nothing else, when that is enough.
    fn look(&mut self, touched: &Touched) -> Looked {
        let Touched::Paths(paths) = touched else { return Looked::TooLittle };
        if self.ways == Ways::Linked || !self.unreadable.is_empty() {
            return Looked::TooLittle;
        }
        for path in paths {
            // Events name a path by the whole way to it, whatever way the root was named by.
            let found = self.roots.iter().find_map(|root| {
                let absolute = std::path::absolute(root).ok();
                let below = path.strip_prefix(root).ok();
                let below = below.or_else(|| path.strip_prefix(absolute.as_deref()?).ok())?;
                Some((root.join(below), below.to_owned()))
            });
            let Some((path, below)) = found else { return Looked::TooLittle };
            let names = || below.iter().map(|name| name.to_string_lossy());
            if names().count() == 0 || names().count() > scan::MAX_DEPTH {
                return Looked::TooLittle;
            }
            // No link leads there, so nothing that is read does.
            if names().any(|name| scan::is_passed_over(&name)) {
                continue;
            }
            if self.look_at(&path) == Looked::TooLittle {
                return Looked::TooLittle;
            }
        }
        Looked::Enough
    }

    fn look_at(&mut self, path: &Path) -> Looked {
        let at = self.files.binary_search_by(|file| file.path.as_path().cmp(path));
        match fs::symlink_metadata(path) {
            Ok(metadata) if metadata.is_file() && !scan::is_configuration(path) => Looked::Enough,
            Ok(metadata) if metadata.is_file() => {
                let stamp = Stamp::of(&metadata);
                let (at, mut file) = match at {
                    Ok(at) => (at, self.files.remove(at)),
                    Err(at) => (at, File::new(path.to_owned(), stamp)),
                };
                let opened = file.open(Alone::Yes);
                if file.take_up(stamp, opened) {
                    self.files.insert(at, file);
                }
                Looked::Enough
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => match at {
                Ok(at) => {
                    self.files.remove(at);
                    Looked::Enough
                }
                // A folder, with files that are gone too.
                Err(at) if self.files.get(at).is_some_and(|next| next.path.starts_with(path)) => {
                    Looked::TooLittle
                }
                Err(_) => Looked::Enough,
            },
            Ok(_) | Err(_) => Looked::TooLittle,
        }
    }

    /// All files together.
    fn loaded(&self) -> Loaded {
        let mut loaded = Loaded::default();
        let mut ignored: BTreeMap<String, (usize, Origin)> = BTreeMap::new();
        for file in &self.files {
            take(&mut loaded, &mut ignored, &file.contents);
            if let Some(trouble) = &file.trouble {
                loaded.health = Health::Stale;
                loaded.diagnostics.push(unreadable(&file.path, trouble, file.has_been_read()));
            }
        }
        for (folder, error) in &self.unreadable {
            loaded.health = Health::Stale;
            let kept = self.files.iter().any(|file| file.path.starts_with(folder));
            loaded.diagnostics.push(unreadable(folder, &error.to_string(), kept));
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
}

#[async_trait]
impl Source for Directory {
    fn describe(&self) -> String {
        let roots: Vec<_> = self.roots.iter().map(|root| root.display().to_string()).collect();
        roots.join(", ")
    }

    async fn next(&mut self) -> Option<Loaded> {
        if self.watch.is_none() {
            // Watched before it is read: what changes in between is an event, not a gap.
            self.watch = Some(Watch::new(&self.roots, self.timing));
            return Some(self.load());
        }
        loop {
            let least = self.walk * SHARE_OF_LOOKING;
            let Some(watch) = &mut self.watch else { continue };
            let wake = watch.wait(least).await;
            if wake == Wake::Poll {
                let scan = self.scan();
                if self.is_as_scanned(&scan) {
                    continue;
                }
            }
            let Some(watch) = &mut self.watch else { continue };
            watch.settle().await;
            // What a walk found and no event told is found by a walk again.
            let touched = watch.touched();
            if wake == Wake::Event && self.look(&touched) == Looked::Enough {
                return Some(self.loaded());
            }
            return Some(self.load());
        }
    }
}

fn take(loaded: &mut Loaded, ignored: &mut BTreeMap<String, (usize, Origin)>, contents: &Contents) {
    loaded.resources.extend(contents.resources.iter().cloned());
    loaded.kept.extend(contents.kept.iter().cloned());
    loaded.diagnostics.share(&contents.diagnostics);
    loaded.unparsable += contents.unparsable;
    for (kind, origin) in &contents.ignored {
        ignored.entry(kind.clone()).or_insert_with(|| (0, origin.clone())).0 += 1;
    }
}

fn unreadable(path: &Path, trouble: &str, kept: bool) -> Diagnostic {
    let stands = if kept { "; what was last read of it stays" } else { "" };
    Diagnostic::new(Code::UNREADABLE, format!("cannot be read: {trouble}{stands}")).from_origin(Origin::new(
        path.to_string_lossy().as_ref(),
        1,
        1,
    ))
}

#[cfg(test)]
mod tests;
