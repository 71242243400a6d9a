//! What is worked out of each resource of a list, kept while the resource is the very same.
//!
//! Invariant: after [`Derived::follow`] there is a value for each resource of the list, in its order, and each was made of that very
//! resource. Following a list in which little changed costs a comparison of addresses for each resource and the making of what is new.

use std::{collections::HashMap, sync::Arc};

/// A value for each member of a list.
#[derive(Debug, Clone)]
pub struct Derived<R, V> {
    of: Vec<Arc<R>>,
    values: Vec<V>,
}

impl<R, V> Default for Derived<R, V> {
    fn default() -> Self {
        Derived { of: Vec::new(), values: Vec::new() }
    }
}

impl<R, V> Derived<R, V> {
    /// Takes up a list. Values of members that were there stay with them; for each other one `make` is asked, with its place in the
    /// list.
    pub fn follow<'l>(
        &mut self,
        list: impl IntoIterator<Item = &'l Arc<R>, IntoIter: ExactSizeIterator + DoubleEndedIterator + Clone>,
        mut make: impl FnMut(usize, &'l Arc<R>) -> V,
    ) where
        R: 'l,
    {
        let mut rest = list.into_iter();
        let mut first = 0;
        // What both begin and end with stays where it is.
        while let (Some(old), Some(new)) = (self.of.get(first), rest.clone().next()) {
            if !Arc::ptr_eq(old, new) {
                break;
            }
            rest.next();
            first += 1;
        }
        let mut last = self.of.len();
        while last > first {
            let (Some(old), Some(new)) = (self.of.get(last - 1), rest.clone().next_back()) else { break };
            if !Arc::ptr_eq(old, new) {
                break;
            }
            rest.next_back();
            last -= 1;
        }
        if first == last && rest.len() == 0 {
            return;
        }
        // Addresses tell members apart: the old ones are held until all is done.
        let gone: Vec<(Arc<R>, V)> = self.of.drain(first..last).zip(self.values.drain(first..last)).collect();
        let mut known: HashMap<*const R, V> = HashMap::with_capacity(gone.len());
        let held: Vec<Arc<R>> = gone
            .into_iter()
            .map(|(member, value)| {
                known.insert(Arc::as_ptr(&member), value);
                member
            })
            .collect();
        let values: Vec<V> = rest
            .clone()
            .zip(first..)
            .map(|(member, at)| known.remove(&Arc::as_ptr(member)).unwrap_or_else(|| make(at, member)))
            .collect();
        drop(held);
        self.of.splice(first..first, rest.cloned());
        self.values.splice(first..first, values);
    }

    /// Makes the values of some members anew, told by their places.
    pub fn remake(&mut self, which: impl Fn(usize) -> bool, mut make: impl FnMut(usize, &Arc<R>) -> V) {
        for (at, (member, value)) in self.of.iter().zip(&mut self.values).enumerate() {
            if which(at) {
                *value = make(at, member);
            }
        }
    }

    /// Forgets everything, so that all of it is made anew.
    pub fn clear(&mut self) {
        self.of.clear();
        self.values.clear();
    }

    /// The values, in the order of the list.
    pub fn values(&self) -> &[V] {
        &self.values
    }

    /// The members with their values, in the order of the list.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&Arc<R>, &V)> + Clone {
        self.of.iter().zip(&self.values)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_stay_with_their_members_and_only_new_members_are_asked_for() {
        let members: Vec<Arc<u32>> = (0..8).map(Arc::new).collect();
        let pick = |indices: &[usize]| indices.iter().map(|at| Arc::clone(&members[*at])).collect::<Vec<_>>();
        let mut derived: Derived<u32, String> = Derived::default();
        for (list, made) in [
            (&[0, 1, 2, 3, 4][..], &[0, 1, 2, 3, 4][..]),
            (&[0, 1, 2, 3, 4], &[]),
            (&[0, 1, 5, 3, 4], &[5]),
            (&[1, 5, 3, 4], &[]),
            (&[4, 3, 5, 6, 1], &[6]),
            (&[], &[]),
            (&[7, 1], &[7, 1]),
            (&[1, 1, 7], &[1]),
        ] {
            let list = pick(list);
            let mut asked = Vec::new();
            derived.follow(&list, |at, member| {
                assert!(Arc::ptr_eq(&list[at], member));
                asked.push(**member as usize);
                member.to_string()
            });
            assert_eq!(asked, made, "{list:?}");
            let kept: Vec<_> = derived.iter().map(|(member, value)| (**member, value.clone())).collect();
            assert_eq!(kept, list.iter().map(|member| (**member, member.to_string())).collect::<Vec<_>>());
        }
    }
}
