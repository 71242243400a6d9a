//! HTTP header names, and the pseudo-headers that Istio lets a rule set.
//!
//! Invariant: lower case, a token of RFC 9110 §5.1, optionally with a leading colon.

use std::{borrow::Borrow, fmt, str::FromStr, sync::Arc};

use serde::{Deserialize, Deserializer, de};

use super::InvalidScalar;

/// A header name in lower case. `:authority` and its like are allowed: header operations may name them.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HeaderName(Arc<str>);

impl HeaderName {
    /// The name in lower case.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// True for names with a leading colon.
    pub fn is_pseudo(&self) -> bool {
        self.0.starts_with(':')
    }

    /// The `http` crate's type; `None` for a pseudo-header.
    pub fn to_http(&self) -> Option<http::HeaderName> {
        http::HeaderName::from_bytes(self.0.as_bytes()).ok()
    }
}

impl FromStr for HeaderName {
    type Err = InvalidScalar;

    fn from_str(text: &str) -> Result<HeaderName, InvalidScalar> {
        let lower = text.to_ascii_lowercase();
        let token = lower.strip_prefix(':').unwrap_or(&lower);
        // The http crate's limit is 64 KiB; longer than 1 KiB is a mistake in any configuration.
        if token.len() > 1024 || http::HeaderName::from_bytes(token.as_bytes()).is_err() {
            return Err(InvalidScalar::new(
                "header name",
                text,
                "use letters, digits and !#$%&'*+-.^_`|~ only",
            ));
        }
        Ok(HeaderName(lower.into()))
    }
}

impl fmt::Display for HeaderName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Borrow<str> for HeaderName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl<'de> Deserialize<'de> for HeaderName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<HeaderName, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_lower_cased_and_checked() {
        assert_eq!("X-Env".parse::<HeaderName>().unwrap().as_str(), "x-env");
        assert!(":authority".parse::<HeaderName>().unwrap().is_pseudo());
        for bad in ["", ":", "a b", "a:b", "é", "x\n"] {
            assert!(bad.parse::<HeaderName>().is_err(), "{bad:?}");
        }
    }
}
