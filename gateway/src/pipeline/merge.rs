//! The documents of all files put together: one resource for each key.
//!
//! Invariant: the set depends on the latest state alone, but is made of the one before: a kind in which nothing changed is the very
//! same, which is how everything behind tells what it need not do again. Of two documents with one key the first stays.

use std::collections::HashSet;

use config_model::{
    diagnostic::{Code, Diagnostic, Diagnostics},
    set::{AnyResource, ResourceSet},
};

use crate::source::Loaded;

/// The latest state.
#[derive(Debug, Default)]
pub(super) struct Merged {
    resources: Vec<AnyResource>,
    set: ResourceSet,
    /// Whether the set is the list and nothing else: no key was there twice, and nothing was kept.
    plain: bool,
}

impl Merged {
    /// Takes up a state, and says which keys are there twice.
    pub(super) fn follow(&mut self, loaded: &Loaded, diagnostics: &mut Diagnostics) -> &ResourceSet {
        if !self.change(loaded) {
            self.collect(loaded, diagnostics);
        }
        self.resources.clone_from(&loaded.resources);
        &self.set
    }

    /// Takes out what has gone and puts in what has come; `false` when that does not give the whole state.
    fn change(&mut self, loaded: &Loaded) -> bool {
        if !self.plain || !loaded.kept.is_empty() {
            return false;
        }
        let (gone, come) = without_common_ends(&self.resources, &loaded.resources, AnyResource::is);
        let (old, new): (HashSet<_>, HashSet<_>) = (
            gone.iter().map(AnyResource::address).collect(),
            come.iter().map(AnyResource::address).collect(),
        );
        for resource in gone.iter().filter(|resource| !new.contains(&resource.address())) {
            self.set.remove(resource.key());
        }
        for resource in come.iter().filter(|resource| !old.contains(&resource.address())) {
            if self.set.insert(resource.clone()).is_some() {
                return false;
            }
        }
        self.set.len() == loaded.resources.len()
    }

    /// Puts all of it together.
    fn collect(&mut self, loaded: &Loaded, diagnostics: &mut Diagnostics) {
        let mut set = ResourceSet::new();
        let duplicates = set.extend(loaded.resources.iter().cloned());
        for duplicate in &duplicates {
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
        set.share_with(&self.set);
        self.plain = duplicates.is_empty() && loaded.kept.is_empty();
        self.set = set;
    }
}

/// Two lists without what they begin and end with alike.
pub(super) fn without_common_ends<'l, T>(
    mut a: &'l [T],
    mut b: &'l [T],
    same: impl Fn(&T, &T) -> bool,
) -> (&'l [T], &'l [T]) {
    while let ([first, rest @ ..], [other, others @ ..]) = (a, b)
        && same(first, other)
    {
        (a, b) = (rest, others);
    }
    while let ([rest @ .., last], [others @ .., other]) = (a, b)
        && same(last, other)
    {
        (a, b) = (rest, others);
    }
    (a, b)
}
