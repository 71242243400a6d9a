//! One state of the source to one compiled configuration. Pure but for what it remembers: the versions last accepted.
//!
//! Invariant: what it makes depends on the states given so far and on nothing else; what it says also depends on the clock, by
//! which certificates are judged. Of two documents with one key the first
//! stays. A refused resource is replaced by the version of it that was accepted last, if there is one.

use std::{
    collections::BTreeSet,
    hash::{BuildHasher as _, Hash as _, Hasher as _},
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use config_model::{
    diagnostic::{Code, Diagnostic, Diagnostics},
    meta::ResourceKey,
    parse::locate,
    scalar::Timestamp,
    set::ResourceSet,
    validate::{Deployment, Validated, validate_for},
};
use routing::compile::{Compiled, Identity, compile};

use crate::source::Loaded;

/// A configuration ready to be put in force.
#[derive(Debug)]
pub struct Built {
    /// Counts the configurations with different content, from 1.
    pub generation: u64,
    /// What is listened on, how requests are routed, where they go.
    pub compiled: Arc<Compiled>,
    /// What it was compiled from.
    pub validated: Validated,
    /// What is wrong with it, in the order of files and lines.
    pub diagnostics: Arc<Diagnostics>,
    /// Resources read, the refused ones among them.
    pub resources: usize,
    /// Documents that could not be read.
    pub unparsable: usize,
    /// Equal content has equal numbers.
    pub(super) content: u64,
}

/// Makes one configuration after the other.
#[derive(Debug)]
pub struct Builder {
    identity: Identity,
    accepted: ResourceSet,
    previous: Option<(Arc<Compiled>, u64)>,
    generation: u64,
}

impl Builder {
    /// A builder for the gateway that this identity describes.
    #[must_use]
    pub fn new(identity: Identity) -> Builder {
        Builder { identity, accepted: ResourceSet::new(), previous: None, generation: 0 }
    }

    /// Makes the next configuration. It shares with the one before what did not change.
    #[must_use]
    pub fn build(&mut self, loaded: &Loaded) -> Built {
        let mut diagnostics = loaded.diagnostics.clone();
        let set = merge(loaded, &mut diagnostics);
        let resources = set.len();
        let validated = self.validate(set, &mut diagnostics);
        let previous = self.previous.as_ref().map(|(compiled, _)| &**compiled);
        let (compiled, findings) = compile(&validated, &self.identity, previous);
        let compiled = Arc::new(compiled);
        diagnostics.extend(findings);
        locate::place(&mut diagnostics);
        diagnostics.sort();
        let content = content(validated.set());
        if self.previous.as_ref().is_none_or(|(_, before)| *before != content) {
            self.generation += 1;
        }
        self.accepted = validated.set().clone();
        self.previous = Some((Arc::clone(&compiled), content));
        Built {
            generation: self.generation,
            compiled,
            validated,
            diagnostics: Arc::new(diagnostics),
            resources,
            unparsable: loaded.unparsable,
            content,
        }
    }

    /// Where it will be served, and when: a certificate has its dates.
    fn deployment(&self) -> Deployment {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).ok();
        let seconds = since.and_then(|since| i64::try_from(since.as_secs()).ok());
        Deployment {
            namespace: self.identity.namespace.clone(),
            labels: self.identity.labels.clone(),
            now: seconds.map(|seconds| Timestamp::from_unix(seconds, 0)),
        }
    }

    /// Validates, and where a resource is refused and was accepted before, goes on with that version.
    fn validate(&self, mut set: ResourceSet, diagnostics: &mut Diagnostics) -> Validated {
        let deployment = self.deployment();
        let (validated, findings) = validate_for(set.clone(), &deployment);
        let rejected: BTreeSet<ResourceKey> = validated.rejected().cloned().collect();
        let stand_ins: Vec<_> = rejected.iter().filter_map(|key| self.accepted.get(key)).collect();
        if stand_ins.is_empty() {
            diagnostics.extend(findings);
            return validated;
        }
        let mut kept = BTreeSet::new();
        for stand_in in stand_ins {
            kept.insert(stand_in.key().clone());
            set.insert(stand_in);
        }
        // References are checked against what will be served, so they are taken from the second pass.
        let (validated, second) = validate_for(set, &deployment);
        let refused =
            |finding: &Diagnostic| finding.resource.as_ref().is_some_and(|key| rejected.contains(key));
        for mut finding in findings.into_iter().filter(refused) {
            if finding.resource.as_ref().is_some_and(|key| kept.contains(key)) {
                finding.message.push_str("; the resource keeps its last accepted version");
            }
            diagnostics.push(finding);
        }
        diagnostics.extend(second.into_iter().filter(|finding| !refused(finding)));
        validated
    }
}

/// Puts the documents of all files together.
fn merge(loaded: &Loaded, diagnostics: &mut Diagnostics) -> ResourceSet {
    let mut set = ResourceSet::new();
    for duplicate in set.extend(loaded.resources.iter().cloned()) {
        let first = set.get(duplicate.key()).map(|first| first.origin().to_string()).unwrap_or_default();
        let message = format!("{} is already written at {first}, which is used", duplicate.key());
        diagnostics.push(
            Diagnostic::new(Code::DUPLICATE_RESOURCE, message)
                .about(duplicate.key(), duplicate.origin())
                .at("metadata.name")
                .hint("remove one of the two, or give it another name"),
        );
    }
    // What was moved to another file, and is fresh there, needs no stand-in.
    let _fresh = set.extend(loaded.kept.iter().cloned());
    set
}

fn content(set: &ResourceSet) -> u64 {
    let mut hasher = foldhash::fast::FixedState::with_seed(0).build_hasher();
    for resource in set.iter() {
        resource.key().hash(&mut hasher);
        hasher.write_u64(resource.content_hash());
    }
    hasher.finish()
}
