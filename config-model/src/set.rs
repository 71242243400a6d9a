//! All resources of one configuration, by key.
//!
//! Invariant: iteration is in the order of [`ResourceKey`], so every output made from a set is deterministic. A key holds one
//! resource; whoever fills the set decides what a duplicate means, because `insert` and `extend` hand it back.

use std::{collections::BTreeMap, sync::Arc};

use crate::{
    istio, kubernetes,
    meta::{Kind, Metadata, Origin, Resource, ResourceKey},
};

/// The resources of one kind.
pub type Resources<T> = BTreeMap<ResourceKey, Arc<Resource<T>>>;

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
        }

        $(impl From<Resource<$spec>> for AnyResource {
            fn from(resource: Resource<$spec>) -> AnyResource {
                AnyResource::$kind(Arc::new(resource))
            }
        })*

        /// The resources of one configuration. Cloning shares them.
        #[derive(Debug, Clone, Default, PartialEq)]
        pub struct ResourceSet {
            $($plural: Resources<$spec>,)*
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
                        self.$plural.insert(resource.key.clone(), resource).map(AnyResource::$kind)
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
                    $(Kind::$kind => self.$plural.remove(key).map(AnyResource::$kind),)*
                }
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
        let mut duplicates = Vec::new();
        for resource in resources {
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
}
