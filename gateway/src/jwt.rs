//! Tokens: read, verified by their issuers' keys, and what is passed on of them.
//!
//! Invariant: nothing of a token is believed before its signature was verified; the order in which it is judged, and the words in
//! which it is refused, are Envoy's. Keys come from [`store`], which fetches them elsewhere: nothing here waits.

mod claims;
mod fetch;
mod keys;
pub mod store;
#[cfg(test)]
pub(crate) mod testing;
mod token;

pub use keys::KeySet;

use http::{HeaderName, HeaderValue};
use routing::{
    authn::{Failure, TokenRule},
    claims::Claims,
};
use token::Jwt;

/// How far the issuer's clock may be off, in seconds (Envoy's default).
const CLOCK_SKEW: u64 = 60;

/// What a good token brings.
#[derive(Debug)]
pub struct Verified {
    /// Its claims.
    pub claims: Claims,
    /// Headers that it is passed on in.
    pub headers: Vec<(HeaderName, HeaderValue)>,
}

/// Judges a token by a rule.
///
/// # Errors
/// What the client is told.
pub fn verify(
    rule: &TokenRule,
    keys: &Result<KeySet, Failure>,
    token: &str,
    now: u64,
) -> Result<Verified, Failure> {
    let jwt = read(rule, token, now)?;
    keys.as_ref().map_err(|failure| *failure)?.verify(&jwt)?;
    Ok(Verified { headers: claims::headers(rule, &jwt), claims: claims::claims(rule, jwt.payload) })
}

/// Judges a token by a rule as if its signature were good: for explanations only.
///
/// # Errors
/// What the client is told.
pub(crate) fn trust(rule: &TokenRule, token: &str, now: u64) -> Result<Verified, Failure> {
    let jwt = read(rule, token, now)?;
    Ok(Verified { headers: claims::headers(rule, &jwt), claims: claims::claims(rule, jwt.payload) })
}

/// All that can be judged without keys.
fn read<'t>(rule: &TokenRule, token: &'t str, now: u64) -> Result<Jwt<'t>, Failure> {
    let jwt = Jwt::parse(token)?;
    if !rule.issuer.is_empty() && *rule.issuer != *jwt.issuer {
        return Err(Failure::UnknownIssuer);
    }
    if now.saturating_add(CLOCK_SKEW) < jwt.not_before {
        return Err(Failure::NotYetValid);
    }
    // An expiry of zero is none.
    if jwt.expiry > 0 && now > jwt.expiry.saturating_add(CLOCK_SKEW) {
        return Err(Failure::Expired);
    }
    if !rule.audiences.allow(jwt.audiences.iter().map(String::as_str)) {
        return Err(Failure::Audience);
    }
    Ok(jwt)
}

#[cfg(test)]
mod tests;
