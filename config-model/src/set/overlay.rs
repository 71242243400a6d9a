//! A set with some of its resources replaced or left out.
//!
//! Invariant: of a kind in which neither the set nor the edits have changed it has the very same resources as before, so that whoever
//! asks what has changed is told: nothing.

use std::collections::BTreeMap;

use super::{AnyResource, ResourceSet};
use crate::meta::{Kind, ResourceKey};

/// What stands at a key in place of what the set has there; `None`: nothing.
pub type Edits = BTreeMap<ResourceKey, Option<AnyResource>>;

/// A set with edits.
#[derive(Debug, Clone, Default)]
pub struct Overlay {
    base: ResourceSet,
    edits: Edits,
    set: ResourceSet,
}

impl Overlay {
    /// Takes up the next state of the set and of the edits.
    pub fn follow(&mut self, base: &ResourceSet, edits: Edits) -> &ResourceSet {
        let mut set = base.clone();
        for kind in Kind::ALL {
            if base.shares(&self.base, kind) && same(of_kind(&self.edits, kind), of_kind(&edits, kind)) {
                set.take_kind(&self.set, kind);
                continue;
            }
            for (key, edit) in of_kind(&edits, kind) {
                match edit {
                    Some(resource) => set.insert(resource.clone()),
                    None => set.remove(key),
                };
            }
        }
        (self.base, self.edits, self.set) = (base.clone(), edits, set);
        &self.set
    }
}

type Edit<'e> = (&'e ResourceKey, &'e Option<AnyResource>);

fn of_kind(edits: &Edits, kind: Kind) -> impl Iterator<Item = Edit<'_>> {
    edits.iter().filter(move |(key, _)| key.kind == kind)
}

fn same<'e>(mut a: impl Iterator<Item = Edit<'e>>, mut b: impl Iterator<Item = Edit<'e>>) -> bool {
    loop {
        match (a.next(), b.next()) {
            (None, None) => return true,
            (Some((key, edit)), Some((other_key, other))) if key == other_key => match (edit, other) {
                (None, None) => {}
                (Some(edit), Some(other)) if edit.is(other) => {}
                _ => return false,
            },
            _ => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse::parse;

    fn services(names: &[&str]) -> ResourceSet {
        let mut set = ResourceSet::new();
        for name in names {
            let yaml = format!(
                "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\nspec: {{ports: [{{port: 80}}]}}\n"
            );
            set.extend(parse("a.yaml", yaml).resources);
        }
        set
    }

    #[test]
    fn the_same_edits_of_the_same_set_give_the_same() {
        let key = |name: &str| ResourceKey::new(Kind::Service, "default", name);
        let (base, other) = (services(&["a", "b"]), services(&["a", "c"]));
        let stand_in = other.get(&key("a"));
        let edits = || Edits::from([(key("a"), stand_in.clone()), (key("b"), None)]);
        let mut overlay = Overlay::default();
        let first = overlay.follow(&base, edits()).clone();
        assert_eq!(first.len(), 1);
        assert!(first.get(&key("a")).unwrap().is(stand_in.as_ref().unwrap()));
        let second = overlay.follow(&base, edits()).clone();
        assert!(second.shares(&first, Kind::Service));
        let none = overlay.follow(&base, Edits::new()).clone();
        assert!(none.shares(&base, Kind::Service) && !none.shares(&first, Kind::Service));
        assert!(!overlay.follow(&other, edits()).shares(&first, Kind::Service));
    }
}
