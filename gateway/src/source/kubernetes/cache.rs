//! The last state on disk, for a start while the API is away.
//!
//! Invariant: the file is replaced as one, so a reader finds the old state or the new one; it holds Secrets and is readable for its owner
//! only. Neither reading nor writing it can fail the gateway: what goes wrong is logged.

use std::{
    fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use config_model::parse::Object;
use tokio::{runtime::Handle, task::spawn_blocking};

use super::store::{Entry, Store};
use crate::source::{Health, Loaded};

/// First line of the file: what follows is one object a line.
const HEADER: &str = "limen-snapshot 1";
const FILE: &str = "snapshot.jsonl";
/// What was begun when the process was killed; replaced by the next one.
const PARTIAL: &str = "snapshot.jsonl.partial";

/// A folder with one file.
#[derive(Debug)]
pub(super) struct Cache {
    folder: PathBuf,
    every: Duration,
    writing: Option<tokio::task::JoinHandle<()>>,
}

impl Cache {
    pub(super) fn new(folder: PathBuf, every: Duration) -> Cache {
        Cache { folder, every, writing: None }
    }

    pub(super) fn exists(&self) -> bool {
        self.folder.join(FILE).is_file()
    }

    /// What was kept, called stale; `None` when it cannot be used.
    pub(super) fn load(&self) -> Option<Loaded> {
        let path = self.folder.join(FILE);
        let read = fs::read_to_string(&path).and_then(|text| {
            let mut lines = text.lines();
            if lines.next() != Some(HEADER) {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "it is of another version"));
            }
            let mut loaded = Loaded { health: Health::Stale, ..Loaded::default() };
            for line in lines {
                let object: Object = serde_json::from_str(line)
                    .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "it is broken"))?;
                Entry::read(object, None, None).give(&mut loaded);
            }
            Ok(loaded)
        });
        match read {
            Ok(loaded) => {
                let objects = loaded.resources.len();
                tracing::warn!(objects, path = %path.display(), "serving the state that was kept on disk, until the API answers");
                Some(loaded)
            }
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "what was kept on disk cannot be used");
                None
            }
        }
    }

    /// Keeps what the store holds once the time has come, unless that is on its way already.
    pub(super) fn keep(&mut self, store: &Arc<Store>, runtime: &Handle) {
        if self.writing.as_ref().is_some_and(|writing| !writing.is_finished()) {
            return;
        }
        let (store, folder, every) = (Arc::clone(store), self.folder.clone(), self.every);
        self.writing = Some(runtime.spawn(async move {
            // One task at a time: what changes until it is done is in what it writes, or it writes again.
            loop {
                let generation = store.generation();
                let (from, to) = (Arc::clone(&store), folder.clone());
                let written = spawn_blocking(move || write(&to, &from.texts())).await;
                if let Err(error) = written.unwrap_or_else(|panicked| Err(io::Error::other(panicked))) {
                    tracing::warn!(folder = %folder.display(), %error, "the state cannot be kept on disk");
                    return;
                }
                // On the runtime's clock: a thread that slept would hold up the process's end.
                tokio::time::sleep(every).await;
                if store.generation() == generation {
                    return;
                }
            }
        }));
    }
}

fn write(folder: &Path, texts: &[u8]) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    let partial = folder.join(PARTIAL);
    // A file left behind may have other permissions than this one is made with.
    match fs::remove_file(&partial) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(&partial)?;
    writeln!(file, "{HEADER}")?;
    file.write_all(texts)?;
    file.sync_all()?;
    fs::rename(&partial, folder.join(FILE))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_whole_or_of_another_version_is_not_served() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::new(folder.path().to_owned(), Duration::ZERO);
        assert!(!cache.exists());
        for broken in ["", "limen-snapshot 0\n{}", "limen-snapshot 1\n{\"kind\":\"Serv"] {
            fs::write(folder.path().join(FILE), broken).unwrap();
            assert!(cache.load().is_none(), "{broken:?}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn what_is_kept_is_for_its_owner_only() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(PARTIAL), "left behind").unwrap();
        write(folder.path(), b"{\"apiVersion\":\"v1\",\"kind\":\"Service\",\"metadata\":{\"name\":\"a\"}}\n")
            .unwrap();
        let path = folder.path().join(FILE);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let loaded = Cache::new(folder.path().to_owned(), Duration::ZERO).load().unwrap();
        assert_eq!((loaded.resources.len(), loaded.health), (1, Health::Stale));
    }
}
