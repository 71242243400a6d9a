//! `AuthorizationPolicy` (`security.istio.io`): who may do what.
//!
//! Invariant: a policy without rules matches nothing, one with an empty rule everything; both are meant by somebody, so the
//! difference is kept.

use serde::Deserialize;

use super::{PolicyTargetReference, WorkloadSelector, attachment};

/// An AuthorizationPolicy's spec.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct AuthorizationPolicy {
    /// The pods this is for; absent is all of the namespace, and in the root namespace all of the mesh.
    pub selector: Option<WorkloadSelector>,
    /// One resource that this is for in place of pods.
    pub target_ref: Option<PolicyTargetReference>,
    /// Resources that this is for in place of pods.
    pub target_refs: Vec<PolicyTargetReference>,
    /// It matches a request that any of these matches.
    pub rules: Vec<Rule>,
    /// What becomes of a request that matches.
    pub action: Action,
    /// Who decides, for `CUSTOM`.
    pub provider: Option<PolicyProvider>,
}

impl AuthorizationPolicy {
    /// The resources that it is for; the old single field counts where the list is empty.
    pub fn targets(&self) -> &[PolicyTargetReference] {
        attachment(self.target_ref.as_ref(), &self.target_refs)
    }
}

/// What becomes of a request that matches.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Action {
    /// It is let in; where there is such a policy, nothing else is.
    #[default]
    Allow,
    /// It is refused.
    Deny,
    /// It is noted.
    Audit,
    /// A provider is asked.
    Custom,
}

impl Action {
    /// As the API writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Action::Allow => "ALLOW",
            Action::Deny => "DENY",
            Action::Audit => "AUDIT",
            Action::Custom => "CUSTOM",
        }
    }
}

/// One of the mesh configuration's extension providers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct PolicyProvider {
    /// Its name.
    pub name: String,
}

/// Matches where a source, an operation and all conditions do; an empty part matches everything.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Rule {
    /// Where requests come from; any of these.
    pub from: Vec<RuleFrom>,
    /// What they ask for; any of these.
    pub to: Vec<RuleTo>,
    /// What else must hold; all of these.
    pub when: Vec<Condition>,
}

/// A source.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct RuleFrom {
    /// The source itself.
    pub source: Option<Source>,
}

/// An operation.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct RuleTo {
    /// The operation itself.
    pub operation: Option<Operation>,
}

/// Where a request comes from. Every field that is given must hold: one of a list's values, none of a `not` list's.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Source {
    /// Peer identities, `TRUST_DOMAIN/ns/NAMESPACE/sa/SERVICE_ACCOUNT`.
    pub principals: Vec<String>,
    /// Peer identities that it must not have.
    pub not_principals: Vec<String>,
    /// Identities of tokens, `ISSUER/SUBJECT`.
    pub request_principals: Vec<String>,
    /// Identities of tokens that it must not have.
    pub not_request_principals: Vec<String>,
    /// Namespaces of the peer.
    pub namespaces: Vec<String>,
    /// Namespaces that the peer must not be of.
    pub not_namespaces: Vec<String>,
    /// Service accounts of the peer, `NAMESPACE/NAME`, or `NAME` in the policy's namespace.
    pub service_accounts: Vec<String>,
    /// Service accounts that the peer must not have.
    pub not_service_accounts: Vec<String>,
    /// Addresses or networks of the connection's other end.
    pub ip_blocks: Vec<String>,
    /// Addresses that the connection's other end must not have.
    pub not_ip_blocks: Vec<String>,
    /// Addresses or networks of the client, as trusted proxies name it.
    pub remote_ip_blocks: Vec<String>,
    /// Addresses that the client must not have.
    pub not_remote_ip_blocks: Vec<String>,
    /// Trust domains of the peer.
    pub trust_domains: Vec<String>,
    /// Trust domains that the peer must not be of.
    pub not_trust_domains: Vec<String>,
}

/// What a request asks for. Every field that is given must hold, as in [`Source`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Operation {
    /// Hosts, in any case.
    pub hosts: Vec<String>,
    /// Hosts that it must not be for.
    pub not_hosts: Vec<String>,
    /// Ports that were connected to.
    pub ports: Vec<String>,
    /// Ports that must not have been connected to.
    pub not_ports: Vec<String>,
    /// Methods.
    pub methods: Vec<String>,
    /// Methods that it must not have.
    pub not_methods: Vec<String>,
    /// Paths, or templates of paths.
    pub paths: Vec<String>,
    /// Paths that it must not ask for.
    pub not_paths: Vec<String>,
}

/// One more attribute that must hold.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Condition {
    /// Name of the attribute, as in `request.headers[x-token]`.
    pub key: String,
    /// Values of which it must have one.
    pub values: Vec<String>,
    /// Values that it must not have.
    pub not_values: Vec<String>,
}
