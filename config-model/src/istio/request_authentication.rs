//! `RequestAuthentication` (`security.istio.io`): which tokens are taken, where they are looked for, what is passed on of them.

use serde::Deserialize;

use super::{PolicyTargetReference, WorkloadSelector, attachment};
use crate::scalar::Duration;

/// A RequestAuthentication's spec.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct RequestAuthentication {
    /// The pods this is for; absent is all of the namespace, and in the root namespace all of the mesh.
    pub selector: Option<WorkloadSelector>,
    /// One resource that this is for in place of pods.
    pub target_ref: Option<PolicyTargetReference>,
    /// Resources that this is for in place of pods.
    pub target_refs: Vec<PolicyTargetReference>,
    /// The tokens that are taken.
    pub jwt_rules: Vec<JwtRule>,
}

impl RequestAuthentication {
    /// Whether it is for pods, and not for resources of the Gateway API.
    pub fn is_for_pods(&self) -> bool {
        self.targets().is_empty()
    }

    /// The resources that it is for; the old single field counts where the list is empty.
    pub fn targets(&self) -> &[PolicyTargetReference] {
        attachment(self.target_ref.as_ref(), &self.target_refs)
    }
}

/// Tokens of one issuer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct JwtRule {
    /// Who must have issued it; empty is anybody whose key signed it.
    pub issuer: String,
    /// It must be meant for one of these; empty: for anybody.
    pub audiences: Vec<String>,
    /// Where the issuer's keys are fetched; empty: by discovery, from the issuer.
    #[serde(alias = "jwks_uri")]
    pub jwks_uri: String,
    /// The issuer's keys themselves.
    pub jwks: String,
    /// Headers that it is looked for in.
    pub from_headers: Vec<JwtHeader>,
    /// Query parameters that it is looked for in.
    pub from_params: Vec<String>,
    /// Cookies that it is looked for in.
    pub from_cookies: Vec<String>,
    /// Header that the payload is passed on in, as it stands in the token.
    pub output_payload_to_header: String,
    /// Claims that are passed on in headers.
    pub output_claim_to_headers: Vec<ClaimToHeader>,
    /// Whether the token itself is passed on.
    pub forward_original_token: bool,
    /// Time to fetch the keys; absent is 5 s.
    pub timeout: Option<Duration>,
    /// Claims whose text is a list with spaces between, besides `scope` and `permission`.
    pub space_delimited_claims: Vec<String>,
    /// Whether a request may come without a token.
    pub presence: Presence,
}

/// Whether a request may come without a token.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[allow(missing_docs, reason = "each arm is the API's own value")]
pub enum Presence {
    #[default]
    Optional,
    Required,
}

/// A header that a token is looked for in.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct JwtHeader {
    /// Name of the header.
    pub name: String,
    /// What stands in front of the token.
    pub prefix: String,
}

/// A claim that is passed on in a header.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ClaimToHeader {
    /// Name of the header.
    pub header: String,
    /// Name of the claim; dots lead into objects.
    pub claim: String,
}
