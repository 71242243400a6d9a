//! All resources of one configuration, by key.
//!
//! Invariant: iteration is in the order of [`ResourceKey`], so every output made from a set is deterministic. A key holds one
//! resource; whoever fills the set decides what a duplicate means, because `insert` and `extend` hand it back.

mod overlay;
mod resources;

pub use overlay::{Edits, Overlay};
pub use resources::Resources;

use std::{
    cmp::Ordering,
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
};

use crate::{
    istio, kubernetes,
    meta::{Kind, Metadata, Origin, Resource, ResourceKey},
};

macro_rules! kinds {
    ($($kind:ident $plural:ident $spec:ty,)*) => {
        /// A resource of any kind.
        #[derive(Debug, Clone, PartialEq)]
        #[allow(missing_docs, reason = "each arm is the API's own kind name")]
        pub enum AnyResource {
            $($kind(Arc<Resource<$spec>>),)*
        }

        impl AnyResource {
            /// Its identity.
            pub fn key(&self) -> &ResourceKey {
                match self { $(AnyResource::$kind(resource) => &resource.key,)* }
            }

            /// Its metadata.
            pub fn meta(&self) -> &Metadata {
                match self { $(AnyResource::$kind(resource) => &resource.meta,)* }
            }

            /// Where it was written.
            pub fn origin(&self) -> &Origin {
                match self { $(AnyResource::$kind(resource) => &resource.origin,)* }
            }

            /// The hash of what was written.
            pub fn content_hash(&self) -> u64 {
                match self { $(AnyResource::$kind(resource) => resource.content_hash,)* }
            }

            /// Where it is in memory: what tells it, while it is held, from every other.
            pub fn address(&self) -> usize {
                match self { $(AnyResource::$kind(resource) => Arc::as_ptr(resource).addr(),)* }
            }

            /// Whether both are the very same resource, not only an equal one.
            pub fn is(&self, other: &AnyResource) -> bool {
                match (self, other) {
                    $((AnyResource::$kind(a), AnyResource::$kind(b)) => Arc::ptr_eq(a, b),)*
                    _ => false,
                }
            }
        }

        $(impl From<Resource<$spec>> for AnyResource {
            fn from(resource: Resource<$spec>) -> AnyResource {
                AnyResource::$kind(Arc::new(resource))
            }
        })*

        /// The resources of one configuration. Cloning shares them, kind by kind.
        #[derive(Debug, Clone, Default, PartialEq)]
        pub struct ResourceSet {
            $($plural: Arc<Resources<$spec>>,)*
        }

        impl ResourceSet {
            $(
                #[doc = concat!("All resources of kind ", stringify!($kind), ".")]
                pub fn $plural(&self) -> &Resources<$spec> {
                    &self.$plural
                }
            )*

            /// Puts a resource in and hands back the one that had its key.
            pub fn insert(&mut self, resource: AnyResource) -> Option<AnyResource> {
                match resource {
                    $(AnyResource::$kind(resource) => {
                        Arc::make_mut(&mut self.$plural).insert(resource).map(AnyResource::$kind)
                    })*
                }
            }

            /// The resource with this key.
            pub fn get(&self, key: &ResourceKey) -> Option<AnyResource> {
                match key.kind {
                    $(Kind::$kind => self.$plural.get(key).cloned().map(AnyResource::$kind),)*
                }
            }

            /// Whether there is a resource with this key.
            pub fn contains(&self, key: &ResourceKey) -> bool {
                match key.kind {
                    $(Kind::$kind => self.$plural.contains_key(key),)*
                }
            }

            /// Takes a resource out.
            pub fn remove(&mut self, key: &ResourceKey) -> Option<AnyResource> {
                match key.kind {
                    $(Kind::$kind => {
                        // A kind that is shared is not copied for nothing.
                        self.$plural.contains_key(key).then_some(())?;
                        Arc::make_mut(&mut self.$plural).remove(key).map(AnyResource::$kind)
                    })*
                }
            }

            /// Whether all resources of a kind are the very same in another set, not only equal. Costs nothing, and is told only of
            /// sets of which one was made from the other: of others it may be denied wrongly.
            pub fn shares(&self, other: &ResourceSet, kind: Kind) -> bool {
                match kind {
                    $(Kind::$kind => Arc::ptr_eq(&self.$plural, &other.$plural),)*
                }
            }

            /// Shares with another set every kind that has the very same resources in both.
            pub fn share_with(&mut self, other: &ResourceSet) {
                $(
                    let (own, of_other) = (&self.$plural, &other.$plural);
                    if own.len() == of_other.len()
                        && own.values().zip(of_other.values()).all(|(a, b)| Arc::ptr_eq(a, b))
                    {
                        self.$plural = Arc::clone(of_other);
                    }
                )*
            }

            /// Has of a kind what another set has of it.
            fn take_kind(&mut self, other: &ResourceSet, kind: Kind) {
                match kind {
                    $(Kind::$kind => self.$plural = Arc::clone(&other.$plural),)*
                }
            }

            /// What is different in an earlier set, by kind and key. Resources that are the very same cost next to nothing.
            pub fn changes_since(&self, before: &ResourceSet) -> Vec<Change> {
                let mut changes = Vec::new();
                $(
                    if !Arc::ptr_eq(&self.$plural, &before.$plural) {
                        let pairs = differences(&before.$plural, &self.$plural);
                        changes.extend(pairs.into_iter().map(|(before, after)| Change {
                            before: before.map(AnyResource::$kind),
                            after: after.map(AnyResource::$kind),
                        }));
                    }
                )*
                changes
            }

            /// A number for what was written of a kind: equal content has an equal one within one process.
            pub fn content_hash(&self, kind: Kind) -> u64 {
                let mut hasher = DefaultHasher::new();
                match kind {
                    $(Kind::$kind => {
                        for resource in self.$plural.values() {
                            (&resource.key, resource.content_hash).hash(&mut hasher);
                        }
                    })*
                }
                hasher.finish()
            }

            /// How many resources there are.
            pub fn len(&self) -> usize {
                0 $(+ self.$plural.len())*
            }

            /// All resources, in the order of their keys.
            pub fn iter(&self) -> impl Iterator<Item = AnyResource> + '_ {
                std::iter::empty()
                    $(.chain(self.$plural.values().cloned().map(AnyResource::$kind)))*
            }
        }
    };
}

kinds! {
    Gateway gateways istio::Gateway,
    VirtualService virtual_services istio::VirtualService,
    DestinationRule destination_rules istio::DestinationRule,
    ServiceEntry service_entries istio::ServiceEntry,
    WorkloadEntry workload_entries istio::WorkloadEntry,
    Sidecar sidecars istio::Sidecar,
    WorkloadGroup workload_groups istio::WorkloadGroup,
    Service services kubernetes::Service,
    EndpointSlice endpoint_slices kubernetes::EndpointSlice,
    Endpoints endpoints kubernetes::Endpoints,
    Secret secrets kubernetes::Secret,
    ConfigMap config_maps kubernetes::ConfigMap,
    Namespace namespaces kubernetes::Namespace,
    Pod pods kubernetes::Pod,
    RequestAuthentication request_authentications istio::RequestAuthentication,
    Telemetry telemetries istio::Telemetry,
    AuthorizationPolicy authorization_policies istio::AuthorizationPolicy,
    PeerAuthentication peer_authentications istio::PeerAuthentication,
}

/// A resource that is not the one it was.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    /// As it was; `None` when it is new.
    pub before: Option<AnyResource>,
    /// As it is; `None` when it is gone.
    pub after: Option<AnyResource>,
}

pub(crate) type Difference<T> = (Option<Arc<Resource<T>>>, Option<Arc<Resource<T>>>);

/// The resources of two sets that are not the same, side by side.
pub(crate) fn differences<T>(before: &Resources<T>, after: &Resources<T>) -> Vec<Difference<T>> {
    let (mut old, mut new) = (before.values().peekable(), after.values().peekable());
    let mut found = Vec::new();
    loop {
        let order = match (old.peek(), new.peek()) {
            (None, None) => return found,
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            // The same resource has the same key: no need to compare.
            (Some(a), Some(b)) if Arc::ptr_eq(a, b) => {
                old.next();
                new.next();
                continue;
            }
            (Some(a), Some(b)) => a.key.cmp(&b.key),
        };
        let before = if order == Ordering::Greater { None } else { old.next().cloned() };
        let after = if order == Ordering::Less { None } else { new.next().cloned() };
        found.push((before, after));
    }
}

impl ResourceSet {
    /// An empty set.
    pub fn new() -> ResourceSet {
        ResourceSet::default()
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Puts all resources in whose key is free; hands back those whose key was taken, for the caller to report. The first
    /// one written stays.
    pub fn extend(&mut self, resources: impl IntoIterator<Item = AnyResource>) -> Vec<AnyResource> {
        let mut all: Vec<AnyResource> = resources.into_iter().collect();
        // In the order of their keys each comes behind those before, and of two with one key the first stays the first.
        all.sort_by_key(|resource| resource.key().kind);
        for of_kind in all.chunk_by_mut(|a, b| a.key().kind == b.key().kind) {
            of_kind.sort_by(|a, b| a.key().cmp(b.key()));
        }
        let mut duplicates = Vec::new();
        for resource in all {
            if self.contains(resource.key()) {
                duplicates.push(resource);
            } else {
                self.insert(resource);
            }
        }
        duplicates
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config_map(name: &str) -> AnyResource {
        Resource {
            key: ResourceKey::new(Kind::ConfigMap, "default", name),
            meta: Metadata::default(),
            origin: Origin::new("a.yaml", 1, 1),
            content_hash: 0,
            spec: kubernetes::ConfigMap::default(),
        }
        .into()
    }

    #[test]
    fn the_first_of_a_key_stays_and_order_is_by_key() {
        let mut set = ResourceSet::new();
        let duplicates = set.extend([config_map("b"), config_map("a"), config_map("b")]);
        assert_eq!(duplicates.len(), 1);
        assert_eq!(set.iter().map(|r| r.key().name.clone()).collect::<Vec<_>>(), ["a", "b"]);
        assert!(set.remove(&ResourceKey::new(Kind::ConfigMap, "default", "a")).is_some());
        assert_eq!(set.len(), 1);
    }

    #[test]
    fn what_did_not_change_is_shared_and_what_did_is_told() {
        let mut before = ResourceSet::new();
        before.extend([config_map("a"), config_map("b"), config_map("c")]);
        let mut after = before.clone();
        assert!(after.shares(&before, Kind::ConfigMap) && after.changes_since(&before).is_empty());
        let key = |name: &str| ResourceKey::new(Kind::ConfigMap, "default", name);
        after.remove(&key("a"));
        after.insert(config_map("b"));
        after.insert(config_map("d"));
        assert!(!after.shares(&before, Kind::ConfigMap) && after.shares(&before, Kind::Secret));
        let told = after.changes_since(&before);
        let name = |side: &Option<AnyResource>| side.as_ref().map(|resource| resource.key().name.clone());
        let told: Vec<_> = told.iter().map(|change| (name(&change.before), name(&change.after))).collect();
        let some = |name: &str| Some(name.to_owned());
        assert_eq!(told, [(some("a"), None), (some("b"), some("b")), (None, some("d"))]);
        assert_ne!(after.content_hash(Kind::ConfigMap), before.content_hash(Kind::ConfigMap));

        let mut again = ResourceSet::new();
        again.extend(before.iter());
        assert!(!again.shares(&before, Kind::ConfigMap));
        again.share_with(&before);
        assert!(again.shares(&before, Kind::ConfigMap) && !after.shares(&again, Kind::ConfigMap));
    }
}
