//! The resources of one kind, in one list.
//!
//! Invariant: in the order of their keys, and no key twice. A large configuration is copied for each change of one resource, which for a
//! list is one pass over it.

use std::sync::Arc;

use crate::meta::{Resource, ResourceKey};

/// The resources of one kind, by key.
#[derive(Debug, PartialEq)]
pub struct Resources<T>(Vec<Arc<Resource<T>>>);

impl<T> Default for Resources<T> {
    fn default() -> Resources<T> {
        Resources(Vec::new())
    }
}

impl<T> Clone for Resources<T> {
    fn clone(&self) -> Resources<T> {
        Resources(self.0.clone())
    }
}

impl<T> Resources<T> {
    /// Where a key is, or would be.
    fn find(&self, key: &ResourceKey) -> Result<usize, usize> {
        match self.0.last() {
            // Most are put in in their order.
            Some(last) if last.key < *key => Err(self.0.len()),
            _ => self.0.binary_search_by(|resource| resource.key.cmp(key)),
        }
    }

    /// The resource with this key.
    pub fn get(&self, key: &ResourceKey) -> Option<&Arc<Resource<T>>> {
        self.0.get(self.find(key).ok()?)
    }

    /// Whether there is one with this key.
    pub fn contains_key(&self, key: &ResourceKey) -> bool {
        self.find(key).is_ok()
    }

    /// All of them, in the order of their keys.
    pub fn values(&self) -> std::slice::Iter<'_, Arc<Resource<T>>> {
        self.0.iter()
    }

    /// The keys, in their order.
    pub fn keys(&self) -> impl ExactSizeIterator<Item = &ResourceKey> + DoubleEndedIterator {
        self.0.iter().map(|resource| &resource.key)
    }

    /// All of them with their keys.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&ResourceKey, &Arc<Resource<T>>)> {
        self.0.iter().map(|resource| (&resource.key, resource))
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Puts a resource in and hands back the one that had its key.
    pub(super) fn insert(&mut self, resource: Arc<Resource<T>>) -> Option<Arc<Resource<T>>> {
        match self.find(&resource.key) {
            Ok(at) => self.0.get_mut(at).map(|old| std::mem::replace(old, resource)),
            Err(at) => {
                self.0.insert(at, resource);
                None
            }
        }
    }

    /// Takes a resource out.
    pub(super) fn remove(&mut self, key: &ResourceKey) -> Option<Arc<Resource<T>>> {
        self.find(key).ok().map(|at| self.0.remove(at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        kubernetes::Namespace,
        meta::{Kind, Metadata, Origin},
    };

    fn namespace(name: &str, line: u32) -> Arc<Resource<Namespace>> {
        Arc::new(Resource {
            key: ResourceKey::new(Kind::Namespace, "", name),
            meta: Metadata::default(),
            origin: Origin::new("a.yaml", line, 1),
            content_hash: 0,
            spec: Namespace::default(),
        })
    }

    #[test]
    fn keys_are_in_order_and_unique_however_they_come() {
        let mut resources = Resources::default();
        for (line, name) in (1..).zip(["m", "z", "a", "m", "b"]) {
            let before = resources.insert(namespace(name, line));
            assert_eq!(before.map(|old| old.origin.line), (line == 4).then_some(1));
        }
        let names: Vec<&str> = resources.keys().map(|key| key.name.as_str()).collect();
        assert_eq!(names, ["a", "b", "m", "z"]);
        let key = |name: &str| ResourceKey::new(Kind::Namespace, "", name);
        assert_eq!(resources.get(&key("m")).unwrap().origin.line, 4);
        assert!(resources.remove(&key("m")).is_some() && resources.remove(&key("n")).is_none());
        assert!(!resources.contains_key(&key("m")) && resources.len() == 3);
    }
}
