//! Which files there are: the walk below the roots.
//!
//! Invariant: every file is there once, whatever links lead to it, and no loop of links is followed. Names of editors' temporary
//! files and of ConfigMap mounts' own folders (`..data`, `..2024_01_01…`) are passed over. Reads no file's content.

use std::{
    collections::HashMap,
    ffi::OsString,
    fs, io,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

/// Folders deeper than this below a root are not entered.
pub(super) const MAX_DEPTH: usize = 32;

/// What tells that a file is the one seen before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Stamp {
    modified: Option<SystemTime>,
    length: u64,
    inode: u64,
}

impl Stamp {
    /// Of what a look at a file gave.
    pub(super) fn of(metadata: &fs::Metadata) -> Stamp {
        let (_, inode) = identity(metadata);
        Stamp { modified: metadata.modified().ok(), length: metadata.len(), inode }
    }

    /// Whether the file was at rest for `margin` when it was read at `at`.
    pub(super) fn is_older_than(&self, at: SystemTime, margin: Duration) -> bool {
        self.modified.is_some_and(|modified| at.duration_since(modified).is_ok_and(|age| age > margin))
    }
}

/// Whether the way to a file is the file's own place alone.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[must_use]
pub(super) enum Ways {
    /// No link was met, and nothing twice: what happens at a path concerns that path and no other.
    #[default]
    Plain,
    /// A change at one path may change what is at another.
    Linked,
}

/// What a walk found.
#[derive(Debug, Default)]
pub(super) struct Scan {
    /// The files to read, each once, in the order of their paths.
    pub(super) files: Vec<(PathBuf, Stamp)>,
    /// Folders (and roots) that could not be listed.
    pub(super) unreadable: Vec<(PathBuf, io::Error)>,
    pub(super) ways: Ways,
    /// What was met, by its identity, with the way to it.
    met: HashMap<(u64, u64), PathBuf>,
}

impl Scan {
    fn folder(&mut self, path: &Path, metadata: &fs::Metadata, depth: usize) {
        if depth > MAX_DEPTH || !self.is_new(path, metadata) {
            return;
        }
        let named = |entry: io::Result<fs::DirEntry>| entry.map(|entry| (entry.file_name(), entry));
        let listed =
            fs::read_dir(path).and_then(|entries| entries.map(named).collect::<io::Result<Vec<_>>>());
        let mut entries: Vec<(OsString, fs::DirEntry)> = match listed {
            Ok(entries) => entries,
            // Gone since its parent was listed: a deletion, unless it is a root.
            Err(error) if error.kind() == io::ErrorKind::NotFound && depth > 0 => return,
            Err(error) => {
                self.unreadable.push((path.to_owned(), error));
                return;
            }
        };
        entries.sort_by(|(a, _), (b, _)| a.cmp(b));
        for (name, entry) in entries {
            if is_passed_over(&name.to_string_lossy()) {
                continue;
            }
            let path = path.join(&name);
            // Follows links; a link to nothing is a file that is not there.
            let metadata = match entry.file_type() {
                Ok(kind) if !kind.is_symlink() => entry.metadata(),
                _ => {
                    self.ways = Ways::Linked;
                    fs::metadata(&path)
                }
            };
            let Ok(metadata) = metadata else { continue };
            if metadata.is_dir() {
                self.folder(&path, &metadata, depth + 1);
            } else if metadata.is_file() && is_configuration(&path) {
                self.file(path, &metadata);
            }
        }
    }

    fn file(&mut self, path: PathBuf, metadata: &fs::Metadata) {
        if self.is_new(&path, metadata) {
            self.files.push((path, Stamp::of(metadata)));
        }
    }

    /// Whether this was not met before, by whatever way. Two with one identity need not be one: not every file system gives each
    /// file its own, and a hard link is another file. The real path decides, which is asked for only then.
    fn is_new(&mut self, path: &Path, metadata: &fs::Metadata) -> bool {
        let real = |path: &Path| fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        let other = self.met.insert(identity(metadata), path.to_owned());
        let Some(other) = other else { return true };
        self.ways = Ways::Linked;
        real(&other) != real(path)
    }
}

/// Walks all roots. A root that is a file is read whatever its name.
pub(super) fn scan(roots: &[PathBuf]) -> Scan {
    let mut scan = Scan::default();
    for root in roots {
        match fs::metadata(root) {
            Ok(metadata) if metadata.is_dir() => scan.folder(root, &metadata, 0),
            Ok(metadata) if metadata.is_file() => {
                scan.ways = Ways::Linked;
                scan.file(root.clone(), &metadata);
            }
            Ok(_) => {
                let error = io::Error::new(io::ErrorKind::InvalidInput, "neither a file nor a folder");
                scan.unreadable.push((root.clone(), error));
            }
            Err(error) => scan.unreadable.push((root.clone(), error)),
        }
    }
    // One root is walked in order.
    if roots.len() > 1 {
        scan.files.sort_by(|(a, _), (b, _)| a.cmp(b));
    }
    scan.met = HashMap::new();
    scan
}

/// Hidden files and folders, and what vi and emacs leave while they write.
pub(super) fn is_passed_over(name: &str) -> bool {
    name.starts_with('.') || name.ends_with('~') || name.starts_with('#') || name == "4913"
}

/// Whether a file of this name is read.
pub(super) fn is_configuration(path: &Path) -> bool {
    let extension = path.extension().map(|extension| extension.to_string_lossy().to_ascii_lowercase());
    matches!(extension.as_deref(), Some("yaml" | "yml" | "json"))
}

#[cfg(unix)]
fn identity(metadata: &fs::Metadata) -> (u64, u64) {
    use std::os::unix::fs::MetadataExt as _;
    (metadata.dev(), metadata.ino())
}

#[cfg(not(unix))]
fn identity(_: &fs::Metadata) -> (u64, u64) {
    (0, 0)
}
