//! One state of the source to one compiled configuration. Pure but for what it remembers: the versions last accepted.
//!
//! Invariant: what it makes depends on the states given so far and on nothing else; what it says also depends on the clock, by
//! which certificates are judged. Of two documents with one key the first
//! stays. A refused resource is replaced by the version of it that was accepted last, if there is one.

use std::{
    collections::BTreeSet,
    hash::BuildHasher as _,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use config_model::{
    diagnostic::{Diagnostic, Diagnostics},
    meta::{Kind, ResourceKey},
    parse::locate,
    scalar::Timestamp,
    set::{Edits, Overlay, ResourceSet},
    support::is_of_sidecars,
    validate::{Deployment, Validated, Validator},
};
use routing::compile::{Compiled, Compiler, Identity};

use super::merge::Merged;
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
    merged: Merged,
    validator: Validator,
    /// What checks the resources with those that stand in for refused ones, while there are any.
    with_stand_ins: Option<WithStandIns>,
    compiler: Compiler,
    accepted: ResourceSet,
    contents: Contents,
    generation: u64,
}

impl Builder {
    /// A builder for the gateway that this identity describes.
    #[must_use]
    pub fn new(identity: Identity) -> Builder {
        Builder {
            merged: Merged::default(),
            validator: Validator::default(),
            with_stand_ins: None,
            compiler: Compiler::new(identity.clone()),
            identity,
            accepted: ResourceSet::new(),
            contents: Contents::default(),
            generation: 0,
        }
    }

    /// Makes the next configuration. It shares with the one before what did not change.
    #[must_use]
    pub fn build(&mut self, loaded: &Loaded) -> Built {
        let mut diagnostics = loaded.diagnostics.clone();
        let set = self.merged.follow(loaded, &mut diagnostics).clone();
        let resources = set.len();
        let validated = self.validate(&set, &mut diagnostics);
        let (compiled, findings) = self.compiler.compile(&validated);
        diagnostics.extend(findings);
        if self.identity.role.workload().is_some() {
            diagnostics = diagnostics.into_iter().filter(|finding| !is_of_sidecars(finding)).collect();
        }
        locate::place(&mut diagnostics);
        diagnostics.sort();
        let before = self.contents.number();
        let content = self.contents.follow(validated.set(), &self.accepted);
        if self.generation == 0 || before != content {
            self.generation += 1;
        }
        self.accepted = validated.set().clone();
        Built {
            generation: self.generation,
            compiled: Arc::new(compiled),
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
    fn validate(&mut self, set: &ResourceSet, diagnostics: &mut Diagnostics) -> Validated {
        let deployment = self.deployment();
        let (validated, findings) = self.validator.validate(set.clone(), &deployment);
        let rejected: BTreeSet<ResourceKey> = validated.rejected().cloned().collect();
        let stand_ins: Edits =
            rejected.iter().filter_map(|key| Some((key.clone(), Some(self.accepted.get(key)?)))).collect();
        if stand_ins.is_empty() {
            self.with_stand_ins = None;
            diagnostics.share(&findings);
            return validated;
        }
        let kept: BTreeSet<ResourceKey> = stand_ins.keys().cloned().collect();
        let WithStandIns { set: with, validator } = self.with_stand_ins.get_or_insert_default();
        // References are checked against what will be served, so they are taken from the second pass.
        let (validated, second) = validator.validate(with.follow(set, stand_ins).clone(), &deployment);
        let refused =
            |finding: &Diagnostic| finding.resource.as_ref().is_some_and(|key| rejected.contains(key));
        for finding in findings.into_iter().filter(|finding| refused(finding)) {
            let mut finding = Arc::unwrap_or_clone(finding);
            if finding.resource.as_ref().is_some_and(|key| kept.contains(key)) {
                finding.message.push_str("; the resource keeps its last accepted version");
            }
            diagnostics.push(finding);
        }
        diagnostics.extend(second.into_iter().filter(|finding| !refused(finding)));
        validated
    }
}

#[derive(Debug, Default)]
struct WithStandIns {
    set: Overlay,
    validator: Validator,
}

/// A number for the content of a set, put together of one for each kind.
#[derive(Debug, Default)]
struct Contents([u64; Kind::ALL.len()]);

impl Contents {
    /// Takes up a set. Of the kinds that it shares with the one before nothing is looked at.
    fn follow(&mut self, set: &ResourceSet, before: &ResourceSet) -> u64 {
        for (kind, number) in Kind::ALL.into_iter().zip(&mut self.0) {
            if !set.shares(before, kind) {
                *number = set.content_hash(kind);
            }
        }
        self.number()
    }

    fn number(&self) -> u64 {
        foldhash::fast::FixedState::with_seed(0).hash_one(self.0)
    }
}
