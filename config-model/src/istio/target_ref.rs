//! `PolicyTargetReference`: a resource that a policy is for, in place of pods.

use serde::Deserialize;

/// A resource that a policy is for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct PolicyTargetReference {
    /// API group; empty and `core` are the core group.
    pub group: String,
    /// Kind.
    pub kind: String,
    /// Name.
    pub name: String,
    /// Namespace; another than the policy's own is refused.
    pub namespace: String,
}

impl PolicyTargetReference {
    /// Whether it names something of this kind and group; `core` is the empty group's other name.
    pub fn is(&self, group: &str, kind: &str) -> bool {
        let own = if self.group.is_empty() { "core" } else { &self.group };
        own == group && self.kind == kind
    }
}
