//! `RequestAuthentication` (`security.istio.io`): which pods check tokens.
//!
//! Invariant: whom it is for is read, and what the tokens must be is not: matches of claims need the one, and nothing here can do
//! the other yet. That is said of every resource that is used.

use serde::{Deserialize, de::IgnoredAny};

use super::WorkloadSelector;

/// A RequestAuthentication's spec.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct RequestAuthentication {
    /// The pods this is for; absent is all of the namespace, and in the root namespace all of the mesh.
    pub selector: Option<WorkloadSelector>,
    /// One resource that this is for in place of pods.
    pub target_ref: Option<IgnoredAny>,
    /// Resources that this is for in place of pods.
    pub target_refs: Vec<IgnoredAny>,
    /// The tokens that are taken.
    pub jwt_rules: Vec<IgnoredAny>,
}

impl RequestAuthentication {
    /// Whether it is for pods, and not for resources of the Gateway API.
    pub fn is_for_pods(&self) -> bool {
        self.target_ref.is_none() && self.target_refs.is_empty()
    }
}
