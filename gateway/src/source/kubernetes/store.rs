//! What was read so far, part by part, and whether it is whole.
//!
//! Invariant: a part is replaced as one; a reader sees it before or after, never between. An object that cannot be read keeps its last
//! version that could. An object whose content did not change keeps its `Arc` and is no change.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Mutex, MutexGuard, PoisonError},
};

use config_model::{
    diagnostic::Diagnostics,
    meta::{Kind, ResourceKey},
    parse::Object,
    set::AnyResource,
};
use tokio::sync::watch;

use crate::source::{Health, Loaded};

/// What is listed and watched by itself.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Part {
    /// All objects of a kind, in all namespaces.
    Kind(Kind),
    /// One object.
    Named(ResourceKey),
}

impl Part {
    pub(super) fn named(kind: Kind, namespace: &str, name: &str) -> Part {
        Part::Named(ResourceKey::new(kind, namespace, name))
    }

    pub(super) fn kind(&self) -> Kind {
        match self {
            Part::Kind(kind) => *kind,
            Part::Named(key) => key.kind,
        }
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Part::Kind(kind) => write!(f, "every {kind}"),
            Part::Named(key) => key.fmt(f),
        }
    }
}

/// Objects by namespace and name.
pub(super) type Batch = BTreeMap<(String, String), Entry>;

/// An object as last read.
#[derive(Debug)]
pub(super) struct Entry {
    /// The last version that could be read.
    resource: Option<AnyResource>,
    /// Whether the newest version could.
    fresh: bool,
    diagnostics: Diagnostics,
    /// Its text, when it is to be kept on disk.
    text: Option<Box<str>>,
}

/// Whether the API server answers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[must_use]
pub(super) enum Reach {
    #[default]
    Reached,
    Lost,
}

/// All that was read.
#[derive(Debug)]
pub(super) struct Store {
    inner: Mutex<Inner>,
    changes: watch::Sender<u64>,
    keeps_text: bool,
}

#[derive(Debug, Default)]
struct Inner {
    parts: BTreeMap<Part, Contents>,
    generation: u64,
    /// Whether every part was asked for that is there from the start.
    begun: bool,
    reach: Reach,
    /// Whether something changed since the last look that is more than endpoints and what they carry.
    others_changed: bool,
}

#[derive(Debug, Default)]
struct Contents {
    listed: bool,
    objects: Batch,
    trouble: Option<String>,
}

impl Store {
    pub(super) fn new(keeps_text: bool) -> Store {
        Store { inner: Mutex::default(), changes: watch::Sender::new(0), keeps_text }
    }

    pub(super) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn changed(&self, mut inner: MutexGuard<'_, Inner>, kind: Option<Kind>) {
        let of_endpoints =
            matches!(kind, Some(Kind::EndpointSlice | Kind::Endpoints | Kind::Pod | Kind::WorkloadEntry));
        inner.others_changed |= !of_endpoints;
        inner.generation += 1;
        self.changes.send_replace(inner.generation);
    }

    /// Nothing is whole before this part was listed.
    pub(super) fn expect(&self, part: Part) {
        self.inner().parts.entry(part).or_default();
    }

    /// Every part was expected that is there from the start.
    pub(super) fn begin(&self) {
        self.inner().begun = true;
    }

    /// Whether every part was listed.
    pub(super) fn is_listed(&self) -> bool {
        let inner = self.inner();
        inner.begun && inner.parts.values().all(|contents| contents.listed)
    }

    pub(super) fn is_reached(&self) -> bool {
        self.inner().reach == Reach::Reached
    }

    pub(super) fn set_reach(&self, reach: Reach) {
        let mut inner = self.inner();
        if inner.reach != reach {
            inner.reach = reach;
            match reach {
                Reach::Reached => tracing::info!("the Kubernetes API answers again"),
                Reach::Lost => {
                    tracing::warn!("the Kubernetes API does not answer: what was read last stays in force")
                }
            }
            self.changed(inner, None);
        }
    }

    pub(super) fn generation(&self) -> u64 {
        self.inner().generation
    }

    pub(super) fn only_endpoints_changed(&self) -> bool {
        !self.inner().others_changed
    }

    /// Lets what is read look at every resource.
    pub(super) fn with_resources<T>(
        &self,
        read: impl FnOnce(Box<dyn Iterator<Item = &AnyResource> + '_>) -> T,
    ) -> T {
        let inner = self.inner();
        let named_in = [Kind::Gateway, Kind::DestinationRule];
        let contents = named_in.into_iter().filter_map(|kind| inner.parts.get(&Part::Kind(kind)));
        read(Box::new(
            contents
                .flat_map(|contents| contents.objects.values().filter_map(|entry| entry.resource.as_ref())),
        ))
    }

    /// Puts an object of a list aside.
    pub(super) fn add(&self, part: &Part, batch: &mut Batch, object: Object) {
        let name = name(&object);
        let text = self.text(part, &object);
        let before = {
            let inner = self.inner();
            let entry = inner.parts.get(part).and_then(|contents| contents.objects.get(&name));
            entry.and_then(|entry| entry.resource.clone())
        };
        batch.insert(name, Entry::read(object, before, text));
    }

    /// The list is whole: it takes the place of the one before.
    pub(super) fn replace(&self, part: &Part, batch: Batch) {
        let mut inner = self.inner();
        let Some(contents) = inner.parts.get_mut(part) else { return };
        let same = contents.listed
            && contents.objects.len() == batch.len()
            && contents.objects.iter().zip(&batch).all(|(old, new)| old.0 == new.0 && old.1.is_same(new.1));
        contents.listed = true;
        contents.trouble = None;
        contents.objects = batch;
        if !same {
            self.changed(inner, Some(part.kind()));
        }
    }

    pub(super) fn apply(&self, part: &Part, object: Object) {
        let name = name(&object);
        let text = self.text(part, &object);
        let mut inner = self.inner();
        let Some(contents) = inner.parts.get_mut(part) else { return };
        contents.trouble = None;
        let before = contents.objects.get(&name).and_then(|entry| entry.resource.clone());
        let entry = Entry::read(object, before, text);
        let same = contents.objects.get(&name).is_some_and(|old| old.is_same(&entry));
        contents.objects.insert(name, entry);
        if !same {
            self.changed(inner, Some(part.kind()));
        }
    }

    pub(super) fn delete(&self, part: &Part, object: &Object) {
        let mut inner = self.inner();
        let Some(contents) = inner.parts.get_mut(part) else { return };
        contents.trouble = None;
        if contents.objects.remove(&name(object)).is_some() {
            self.changed(inner, Some(part.kind()));
        }
    }

    /// The server has said that there is no such kind.
    pub(super) fn absent(&self, part: &Part) {
        self.replace(part, Batch::new());
    }

    /// Nobody asks for this part any more.
    pub(super) fn forget(&self, part: &Part) {
        let mut inner = self.inner();
        if inner.parts.remove(part).is_some_and(|contents| !contents.objects.is_empty()) {
            self.changed(inner, Some(part.kind()));
        }
    }

    /// Reading a part fails. Told once, until it is another trouble.
    pub(super) fn trouble(&self, part: &Part, message: &str) {
        let mut inner = self.inner();
        let Some(contents) = inner.parts.get_mut(part) else { return };
        if contents.trouble.as_deref() == Some(message) {
            return;
        }
        contents.trouble = Some(message.to_owned());
        if contents.listed {
            tracing::warn!(%part, "cannot be followed just now, and is tried again: {message}");
        } else {
            tracing::warn!(%part, "cannot be listed yet, and is tried again: {message}");
        }
    }

    /// What cannot be read just now, and why.
    pub(super) fn troubles(&self) -> Vec<String> {
        let inner = self.inner();
        let troubled =
            inner.parts.iter().filter_map(|(part, contents)| Some((part, contents.trouble.as_ref()?)));
        troubled.map(|(part, trouble)| format!("{part}: {trouble}")).collect()
    }

    /// The whole state, and the generation it is of.
    pub(super) fn loaded(&self) -> (Loaded, u64) {
        let mut inner = self.inner();
        let mut loaded = Loaded::default();
        for contents in inner.parts.values() {
            for entry in contents.objects.values() {
                entry.give(&mut loaded);
            }
        }
        if inner.reach == Reach::Lost {
            loaded.health = Health::Stale;
        }
        inner.others_changed = false;
        (loaded, inner.generation)
    }

    /// The text of every object, one a line; as told, for a file.
    pub(super) fn texts(&self) -> Vec<u8> {
        let inner = self.inner();
        let texts = inner.parts.values().flat_map(|contents| contents.objects.values());
        let mut out = Vec::new();
        for text in texts.filter_map(|entry| entry.text.as_deref()) {
            out.extend_from_slice(text.as_bytes());
            out.push(b'\n');
        }
        out
    }

    fn text(&self, part: &Part, object: &Object) -> Option<Box<str>> {
        if !self.keeps_text {
            return None;
        }
        match serde_json::to_string(&object.clone().trimmed()) {
            Ok(text) => Some(text.into()),
            Err(error) => {
                tracing::debug!(%part, %error, "an object has no text");
                None
            }
        }
    }
}

impl Entry {
    pub(super) fn read(object: Object, before: Option<AnyResource>, text: Option<Box<str>>) -> Entry {
        let parsed = object.read();
        let diagnostics = parsed.diagnostics;
        match parsed.resources.into_iter().next() {
            Some(resource) => {
                let same = before.filter(|old| version(old) == version(&resource));
                Entry { resource: Some(same.unwrap_or(resource)), fresh: true, diagnostics, text }
            }
            None => Entry { resource: before, fresh: false, diagnostics, text },
        }
    }

    /// Adds it to a state.
    pub(super) fn give(&self, loaded: &mut Loaded) {
        loaded.diagnostics.share(&self.diagnostics);
        if self.fresh {
            loaded.resources.extend(self.resource.clone());
        } else {
            loaded.unparsable += 1;
            loaded.kept.extend(self.resource.clone());
        }
    }

    /// Whether nothing has to be done anew for the other one.
    fn is_same(&self, other: &Entry) -> bool {
        let of = |entry: &Entry| entry.resource.as_ref().map(version);
        self.fresh && other.fresh && of(self) == of(other)
    }
}

/// Equal for two versions between which nobody sees a difference: who waits for a generation to be taken up sees one.
fn version(resource: &AnyResource) -> (u64, Option<i64>) {
    (resource.content_hash(), resource.origin().generation())
}

fn name(object: &Object) -> (String, String) {
    (object.metadata("namespace").to_owned(), object.metadata("name").to_owned())
}
