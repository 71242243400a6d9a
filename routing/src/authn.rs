//! Whose tokens are taken: the rules of `RequestAuthentication`, compiled, and what a request must show by them.
//!
//! Invariant: a token that is shown must be good; one that is not shown is missed only by a rule that requires it. Tokens are
//! verified elsewhere: nothing here knows a key or the time. What a client sends under the names of headers that verified claims are
//! passed on in is never believed.

mod failure;
mod place;

pub use failure::Failure;
pub(crate) use place::Places;
pub use place::{Place, Token, without_parameter};

use http::HeaderName;
use std::{sync::Arc, time::Duration};

use crate::request::RequestHead;

/// The rules that are for this gateway, in the order of their issuers.
#[derive(Clone, Debug, Default)]
pub struct Authentication {
    rules: Box<[TokenRule]>,
}

/// Tokens of one issuer.
#[derive(Clone, Debug)]
pub struct TokenRule {
    /// `namespace/name` of the RequestAuthentication.
    pub policy: Arc<str>,
    /// Who must have issued it; empty: anybody whose key signed it.
    pub issuer: Box<str>,
    /// Whom it must be meant for; empty: anybody.
    pub audiences: Audiences,
    /// Where the issuer's keys are.
    pub keys: KeySource,
    /// Time to fetch them.
    pub timeout: Duration,
    /// Whether a request without one is refused.
    pub required: bool,
    /// Whether the token stays in the request.
    pub forward: bool,
    /// Header that the payload is passed on in, as it stands in the token.
    pub payload_header: Option<HeaderName>,
    /// Claims that are passed on, each with its header.
    pub claim_headers: Box<[ClaimHeader]>,
    /// Claims whose text is a list with spaces between.
    pub space_delimited: Box<[Box<str>]>,
    /// Where it is looked for.
    pub(crate) places: Places,
}

/// A claim that is passed on in a header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimHeader {
    /// The names that lead to the claim, outermost first.
    pub path: Box<[Box<str>]>,
    /// The header.
    pub header: HeaderName,
}

/// Where an issuer's keys are.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum KeySource {
    /// Here: a set of keys as JSON.
    Inline(Arc<str>),
    /// At this address.
    Remote(Arc<str>),
    /// Where this issuer's OpenID configuration says.
    Discovery(Arc<str>),
}

/// Whom tokens are meant for.
///
/// Scheme and final slash make no difference (Envoy: `sanitizeAudience`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Audiences(Box<[Box<str>]>);

impl Audiences {
    /// From what a rule says.
    pub(crate) fn new(list: &[String]) -> Self {
        Self(list.iter().map(|audience| bare(audience).into()).collect())
    }

    /// Whether a token for these is taken.
    #[must_use]
    pub fn allow<'t>(&self, mut of_token: impl Iterator<Item = &'t str>) -> bool {
        self.0.is_empty() || of_token.any(|audience| self.0.iter().any(|known| **known == *bare(audience)))
    }
}

fn bare(audience: &str) -> &str {
    let rest = audience.strip_prefix("https://").or_else(|| audience.strip_prefix("http://"));
    let rest = rest.unwrap_or(audience);
    rest.strip_suffix('/').unwrap_or(rest)
}

impl Authentication {
    /// Rules in the order in which they are given; of one issuer the earlier comes first.
    pub(crate) fn new(mut rules: Vec<TokenRule>) -> Self {
        rules.sort_by(|a, b| a.issuer.cmp(&b.issuer));
        Self { rules: rules.into() }
    }

    /// Whether nobody's tokens are asked for.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// The rules.
    #[must_use]
    pub fn rules(&self) -> &[TokenRule] {
        &self.rules
    }

    /// Headers that only verified tokens may bring.
    pub fn reserved(&self) -> impl Iterator<Item = &HeaderName> {
        self.rules.iter().flat_map(|rule| {
            rule.payload_header.iter().chain(rule.claim_headers.iter().map(|claim| &claim.header))
        })
    }

    /// Judges a request. `verify` says of one token whether it is good by a rule; what it makes of good ones is returned, last
    /// verified last, with the number of the rule.
    ///
    /// One rule is enough. Where none is satisfied, each must at least have missed its token (Istio: policy_applier.go
    /// `convertToEnvoyJwtConfig`; Envoy: verifier.cc).
    ///
    /// # Errors
    /// What the client is told.
    pub fn judge<T>(
        &self,
        head: &RequestHead<'_>,
        mut verify: impl FnMut(usize, &TokenRule, &Token<'_>) -> Result<T, Failure>,
    ) -> Result<Option<(usize, Vec<T>)>, Failure> {
        let mut of_all = None;
        let mut final_failure = Failure::Missing;
        for (index, rule) in self.rules.iter().enumerate() {
            let failure = match rule.judge(index, head, &mut verify) {
                Ok(verified) => return Ok(Some((index, verified))),
                Err(failure) => failure,
            };
            if of_all.is_none() && (failure != Failure::Missing || rule.required) {
                of_all = Some(failure);
            }
            final_failure = worse(final_failure, failure);
        }
        match of_all {
            None => Ok(None),
            Some(failure) => Err(worse(final_failure, failure)),
        }
    }
}

/// That there is no token, or none of this issuer, says less than anything else.
fn worse(before: Failure, failure: Failure) -> Failure {
    match failure {
        Failure::Missing | Failure::UnknownIssuer if before != Failure::Missing => before,
        failure => failure,
    }
}

impl TokenRule {
    /// All tokens in the rule's places must be good. The last found is verified first, as in Envoy.
    fn judge<T>(
        &self,
        index: usize,
        head: &RequestHead<'_>,
        verify: &mut impl FnMut(usize, &TokenRule, &Token<'_>) -> Result<T, Failure>,
    ) -> Result<Vec<T>, Failure> {
        let mut tokens = self.places.tokens(head);
        if tokens.is_empty() {
            return Err(Failure::Missing);
        }
        tokens.reverse();
        tokens.iter().map(|token| verify(index, self, token)).collect()
    }
}

#[cfg(test)]
mod tests;
