//! One file: what it gave, and what it gives when it has changed.
//!
//! Invariant: a document that did not change is not read again, and a resource whose document did not change keeps its `Arc`. What cannot
//! be read just now stays as it last was.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    hash::{BuildHasher as _, Hasher as _},
    io::{self, Read as _},
    mem,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use config_model::{
    diagnostic::{Code, Diagnostic, Diagnostics, Severity},
    meta::{Origin, ResourceKey},
    parse::{self, Document, Parsed},
    set::AnyResource,
};

use super::{parallel, scan::Stamp};

/// A file this young may change again within the resolution of its time stamp, so the stamp does not prove it unchanged.
const STAMP_RESOLUTION: Duration = Duration::from_secs(2);

/// A file as last read.
#[derive(Debug)]
pub(super) struct File {
    pub(super) path: PathBuf,
    pub(super) stamp: Stamp,
    /// `None`: it could not be read the last time.
    read_at: Option<SystemTime>,
    /// Of what was read last, if it ever was.
    hash: Option<u64>,
    /// The documents with what each gave, where there are several.
    documents: Vec<(Document, Arc<Parsed>)>,
    pub(super) contents: Contents,
    /// Why it cannot be read, which leaves its contents as they were.
    pub(super) trouble: Option<String>,
    /// Its folder cannot be listed, so it is not known whether it is still there.
    pub(super) lost: bool,
}

/// What a file gave.
#[derive(Debug, Default)]
pub(super) struct Contents {
    pub(super) resources: Vec<AnyResource>,
    /// Resources of an earlier content, in place of documents that cannot be read now.
    pub(super) kept: Vec<AnyResource>,
    pub(super) diagnostics: Diagnostics,
    pub(super) unparsable: usize,
    pub(super) ignored: Vec<(String, Origin)>,
}

/// What a document gave.
pub(super) enum Gave {
    /// When it was read before.
    Before(Arc<Parsed>),
    /// Now.
    Now(Parsed),
}

/// Whether other files are opened at the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub(super) enum Alone {
    Yes,
    No,
}

/// A file that was opened.
pub(super) enum Opened {
    /// It is as it was.
    Same { read_at: SystemTime },
    /// It has another content.
    Changed { read_at: SystemTime, hash: u64, documents: Result<Vec<(Document, Gave)>, Box<Parsed>> },
    /// Nothing is in it any more: somebody is about to write it, or a disk is full. Who means it deletes the file.
    Emptied { read_at: SystemTime, hash: u64 },
    /// It is not there any more.
    Gone,
    /// It cannot be read.
    Failed(io::Error),
}

impl File {
    /// A file that was not read yet.
    pub(super) fn new(path: PathBuf, stamp: Stamp) -> File {
        File {
            path,
            stamp,
            read_at: None,
            hash: None,
            documents: Vec::new(),
            contents: Contents::default(),
            trouble: None,
            lost: false,
        }
    }

    /// Whether a look at the file proves that it is the one that was read.
    pub(super) fn is_surely(&self, stamp: Stamp) -> bool {
        self.stamp == stamp && self.read_at.is_some_and(|at| stamp.is_older_than(at, STAMP_RESOLUTION))
    }

    /// Reads it, and of it the documents that were not there before.
    pub(super) fn open(&self, alone: Alone) -> Opened {
        let read_at = SystemTime::now();
        let bytes = match read_capped(&self.path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Opened::Gone,
            Err(error) => return Opened::Failed(error),
        };
        let mut hasher = foldhash::fast::FixedState::with_seed(0).build_hasher();
        hasher.write(&bytes);
        let hash = hasher.finish();
        if self.hash == Some(hash) {
            return Opened::Same { read_at };
        }
        if self.has_been_read() && bytes.iter().all(u8::is_ascii_whitespace) {
            return Opened::Emptied { read_at, hash };
        }
        let documents = parse::documents(&self.path.to_string_lossy(), &bytes)
            .map(|documents| self.read(documents, alone))
            .map_err(Box::new);
        Opened::Changed { read_at, hash, documents }
    }

    /// Whether it could be read at some time.
    pub(super) fn has_been_read(&self) -> bool {
        self.hash.is_some()
    }

    /// Takes up how opening it went; `false`: there is no such file.
    pub(super) fn take_up(&mut self, stamp: Stamp, opened: Opened) -> bool {
        (self.stamp, self.trouble, self.lost) = (stamp, None, false);
        match opened {
            Opened::Same { read_at } => self.read_at = Some(read_at),
            Opened::Changed { read_at, hash, documents } => {
                (self.read_at, self.hash) = (Some(read_at), Some(hash));
                self.change(documents);
            }
            Opened::Emptied { read_at, hash } => {
                (self.read_at, self.hash) = (Some(read_at), Some(hash));
                self.empty();
            }
            // It stays as it was, and is tried again at the next look.
            Opened::Failed(error) => (self.read_at, self.trouble) = (None, Some(error.to_string())),
            Opened::Gone => return false,
        }
        true
    }

    fn change(&mut self, documents: Result<Vec<(Document, Gave)>, Box<Parsed>>) {
        let (before, old) = (mem::take(&mut self.documents), mem::take(&mut self.contents));
        let documents = match documents {
            Ok(documents) => documents,
            // It is no text at all.
            Err(parsed) => vec![(Document::default(), Gave::Now(*parsed))],
        };
        let kept: HashSet<*const Parsed> = documents
            .iter()
            .filter_map(|(_, gave)| match gave {
                Gave::Before(parsed) => Some(Arc::as_ptr(parsed)),
                Gave::Now(_) => None,
            })
            .collect();
        // Of a file with one document nothing is kept but what it gave.
        let mut replaced = if before.is_empty() { old.resources } else { Vec::new() };
        let gone = before.iter().filter(|(_, parsed)| !kept.contains(&Arc::as_ptr(parsed)));
        replaced.extend(gone.flat_map(|(_, parsed)| parsed.resources.iter().cloned()));
        replaced.extend(old.kept);
        let mut known = Known::new(replaced);
        let documents: Vec<(Document, Arc<Parsed>)> = documents
            .into_iter()
            .map(|(document, gave)| match gave {
                Gave::Before(parsed) => (document, parsed),
                Gave::Now(parsed) => (document, Arc::new(known.keep(parsed))),
            })
            .collect();
        self.contents = contents(&documents, known);
        if documents.len() > 1 {
            self.documents = documents;
        }
    }

    /// Keeps what it gave.
    fn empty(&mut self) {
        self.documents.clear();
        let Contents { mut resources, kept, .. } = mem::take(&mut self.contents);
        resources.extend(kept);
        self.contents.kept = Known::new(resources).0.into_values().collect();
        if self.contents.kept.is_empty() {
            return;
        }
        let message = format!("the file is empty; kept as last read: {}", names(&self.contents.kept));
        self.contents.diagnostics.push(
            Diagnostic::new(Code::UNREADABLE, message)
                .severity(Severity::Warning)
                .hint("delete the file to remove them")
                .from_origin(Origin::new(self.path.to_string_lossy().as_ref(), 1, 1)),
        );
    }

    /// What each document gave when it was read before, or gives now.
    fn read(&self, documents: Vec<Document>, alone: Alone) -> Vec<(Document, Gave)> {
        // A document that moved has its findings on other lines, so that it is another.
        let old: HashMap<u32, &(Document, Arc<Parsed>)> =
            self.documents.iter().map(|old| (old.0.first_line(), old)).collect();
        let before = |document: &Document| {
            let (_, parsed) = old.get(&document.first_line()).filter(|(known, _)| known == document)?;
            Some(Arc::clone(parsed))
        };
        let before: Vec<Option<Arc<Parsed>>> = documents.iter().map(before).collect();
        let new: Vec<&Document> = documents
            .iter()
            .zip(&before)
            .filter(|(_, before)| before.is_none())
            .map(|(new, _)| new)
            .collect();
        let mut read = match alone {
            Alone::Yes => parallel::each(&new, |document| document.read()),
            Alone::No => new.into_iter().map(Document::read).collect(),
        }
        .into_iter();
        let gave = before.into_iter().map(|before| match before {
            Some(parsed) => Gave::Before(parsed),
            None => Gave::Now(read.next().unwrap_or_default()),
        });
        let gave: Vec<Gave> = gave.collect();
        documents.into_iter().zip(gave).collect()
    }
}

/// Resources of before that are not there any more, or not yet again.
struct Known(BTreeMap<ResourceKey, AnyResource>);

impl Known {
    /// The first of each key.
    fn new(resources: Vec<AnyResource>) -> Known {
        let mut known = BTreeMap::new();
        for resource in resources {
            known.entry(resource.key().clone()).or_insert(resource);
        }
        Known(known)
    }

    /// Puts the resource of before in the place of one that is equal to it.
    fn keep(&mut self, mut parsed: Parsed) -> Parsed {
        for resource in &mut parsed.resources {
            if let Some(old) = self.0.remove(resource.key())
                && old.content_hash() == resource.content_hash()
                && old.origin() == resource.origin()
            {
                *resource = old;
            }
        }
        parsed
    }
}

/// All documents together.
fn contents(documents: &[(Document, Arc<Parsed>)], known: Known) -> Contents {
    let mut contents = Contents::default();
    let mut objects = 0;
    let mut read = Vec::with_capacity(documents.len());
    let beyond;
    for (document, parsed) in documents {
        objects += parsed.objects();
        if objects > parse::MAX_OBJECTS {
            beyond = document.beyond_limit();
            contents.add(&beyond);
            read.push(&beyond);
            break;
        }
        contents.add(parsed);
        read.push(&**parsed);
    }
    contents.keep(read, known);
    contents.resources.shrink_to_fit();
    contents
}

impl Contents {
    fn add(&mut self, parsed: &Parsed) {
        self.resources.extend(parsed.resources.iter().cloned());
        self.diagnostics.share(&parsed.diagnostics);
        self.unparsable += parsed.failed.len();
        let ignored = parsed.ignored.iter();
        self.ignored.extend(ignored.map(|document| (document.kind.clone(), document.origin.clone())));
    }

    /// Keeps the resources of before in whose place there is a document that cannot be read.
    fn keep<'p>(&mut self, parsed: impl IntoIterator<Item = &'p Parsed>, known: Known) {
        let failed: Vec<_> = parsed.into_iter().flat_map(|parsed| &parsed.failed).collect();
        let Some(first) = failed.first() else { return };
        let last_good = self.resources.iter().map(|resource| resource.origin().line).max().unwrap_or(0);
        // A text that ends in a document that cannot be read may have been cut there: then everything that is missing is
        // missing for that reason. Otherwise only the documents that failed are.
        let cut = failed.iter().any(|failed| failed.key.is_none() || failed.origin.line > last_good);
        let keys: BTreeSet<&ResourceKey> = failed.iter().filter_map(|failed| failed.key.as_ref()).collect();
        let there: BTreeSet<&ResourceKey> = self.resources.iter().map(AnyResource::key).collect();
        let missing = known.0.into_values().filter(|old| !there.contains(old.key()));
        self.kept = missing.filter(|old| cut || keys.contains(old.key())).collect();
        if self.kept.is_empty() {
            return;
        }
        let message =
            format!("a document of this file cannot be read; kept as last read: {}", names(&self.kept));
        self.diagnostics.push(
            Diagnostic::new(Code::SYNTAX, message)
                .severity(Severity::Warning)
                .from_origin(first.origin.clone()),
        );
    }
}

fn names(resources: &[AnyResource]) -> String {
    let names: Vec<_> = resources.iter().map(|resource| resource.key().to_string()).collect();
    names.join(", ")
}

/// Reads no more than the parser takes; one byte above tells it that there is more.
fn read_capped(path: &Path) -> io::Result<Vec<u8>> {
    let limit = parse::MAX_FILE_BYTES as u64 + 1;
    let file = std::fs::File::open(path)?;
    let expected = file.metadata().map_or(0, |metadata| metadata.len().min(limit));
    let mut bytes = Vec::with_capacity(usize::try_from(expected).unwrap_or(0) + 1);
    file.take(limit).read_to_end(&mut bytes)?;
    Ok(bytes)
}
