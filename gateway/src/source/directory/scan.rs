//! Which files there are: the walk below the roots.
//!
//! Invariant: every file is there once, whatever links lead to it, and no loop of links is followed. Names of editors' temporary
//! files and of ConfigMap mounts' own folders (`..data`, `..2024_01_01…`) are passed over. Reads no file's content.

use std::{
    collections::{BTreeMap, BTreeSet, hash_map::DefaultHasher},
    fs,
    hash::{Hash, Hasher},
    io,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

/// Folders deeper than this below a root are not entered.
const MAX_DEPTH: usize = 32;

/// What tells that a file is the one seen before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Stamp {
    modified: Option<SystemTime>,
    length: u64,
    inode: u64,
}

impl Stamp {
    /// Whether the file was at rest for `margin` when it was read at `at`.
    pub(super) fn is_older_than(&self, at: SystemTime, margin: Duration) -> bool {
        self.modified.is_some_and(|modified| at.duration_since(modified).is_ok_and(|age| age > margin))
    }
}

/// What a walk found.
#[derive(Debug, Default)]
pub(super) struct Scan {
    /// The files to read, by name.
    pub(super) files: BTreeMap<PathBuf, Stamp>,
    /// Folders (and roots) that could not be listed.
    pub(super) unreadable: Vec<(PathBuf, io::Error)>,
    /// Real paths already met.
    met: BTreeSet<PathBuf>,
}

impl Scan {
    /// A number that changes when a file appears, goes, or is written.
    pub(super) fn fingerprint(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.files.hash(&mut hasher);
        for (path, error) in &self.unreadable {
            (path, error.kind()).hash(&mut hasher);
        }
        hasher.finish()
    }

    fn folder(&mut self, path: &Path, depth: usize) {
        if depth > MAX_DEPTH || !self.is_new(path) {
            return;
        }
        let listed = fs::read_dir(path).and_then(Iterator::collect::<io::Result<Vec<_>>>);
        let mut entries = match listed {
            Ok(entries) => entries,
            // Gone since its parent was listed: a deletion, unless it is a root.
            Err(error) if error.kind() == io::ErrorKind::NotFound && depth > 0 => return,
            Err(error) => {
                self.unreadable.push((path.to_owned(), error));
                return;
            }
        };
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            if is_passed_over(&entry.file_name().to_string_lossy()) {
                continue;
            }
            let path = entry.path();
            // Follows links; a link to nothing is a file that is not there.
            let Ok(metadata) = fs::metadata(&path) else { continue };
            if metadata.is_dir() {
                self.folder(&path, depth + 1);
            } else if metadata.is_file() && is_configuration(&path) {
                self.file(&path, &metadata);
            }
        }
    }

    fn file(&mut self, path: &Path, metadata: &fs::Metadata) {
        if self.is_new(path) {
            self.files.insert(path.to_owned(), stamp(metadata));
        }
    }

    fn is_new(&mut self, path: &Path) -> bool {
        fs::canonicalize(path).map_or(true, |real| self.met.insert(real))
    }
}

/// Walks all roots. A root that is a file is read whatever its name.
pub(super) fn scan(roots: &[PathBuf]) -> Scan {
    let mut scan = Scan::default();
    for root in roots {
        match fs::metadata(root) {
            Ok(metadata) if metadata.is_dir() => scan.folder(root, 0),
            Ok(metadata) if metadata.is_file() => scan.file(root, &metadata),
            Ok(_) => {
                let error = io::Error::new(io::ErrorKind::InvalidInput, "neither a file nor a folder");
                scan.unreadable.push((root.clone(), error));
            }
            Err(error) => scan.unreadable.push((root.clone(), error)),
        }
    }
    scan
}

/// Hidden files and folders, and what vi and emacs leave while they write.
fn is_passed_over(name: &str) -> bool {
    name.starts_with('.') || name.ends_with('~') || name.starts_with('#') || name == "4913"
}

fn is_configuration(path: &Path) -> bool {
    let extension = path.extension().map(|extension| extension.to_string_lossy().to_ascii_lowercase());
    matches!(extension.as_deref(), Some("yaml" | "yml" | "json"))
}

#[cfg(unix)]
fn stamp(metadata: &fs::Metadata) -> Stamp {
    use std::os::unix::fs::MetadataExt as _;
    Stamp { modified: metadata.modified().ok(), length: metadata.len(), inode: metadata.ino() }
}

#[cfg(not(unix))]
fn stamp(metadata: &fs::Metadata) -> Stamp {
    Stamp { modified: metadata.modified().ok(), length: metadata.len(), inode: 0 }
}
