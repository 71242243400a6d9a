//! The borrowed head of one request, as every matcher sees it.
//!
//! Invariant: the path is already normalised; what is matched here is byte for byte what goes upstream
//! unless a rule rewrites it.

use crate::claims::Claims;

/// How the request reached us: the `:scheme` of a request on a gateway is its listener's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// Plain text.
    Http,
    /// After TLS termination.
    Https,
}

impl Scheme {
    /// The scheme as it stands in a URL.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }
}

/// One request's head, borrowed from wherever it was parsed.
#[derive(Clone, Copy, Debug)]
pub struct RequestHead<'a> {
    /// Method, as sent: methods are case-sensitive (RFC 9110 §9.1).
    pub method: &'a str,
    /// Scheme of the listener, or of a trusted proxy in front of it.
    pub scheme: Scheme,
    /// `Host` or `:authority`, as sent, port included.
    pub authority: &'a str,
    /// Normalised path without query; begins with `/`.
    pub path: &'a str,
    /// What follows the first `?`, undecoded.
    pub query: Option<&'a str>,
    /// All regular headers.
    pub headers: &'a http::HeaderMap,
    /// Claims of a token that a policy has verified; `None`: nobody has verified one.
    pub claims: Option<&'a Claims>,
}

impl RequestHead<'_> {
    /// Path and query as they stand in a request line: the value of `:path`.
    #[must_use]
    pub fn path_and_query(&self) -> String {
        crate::action::rewrite::path_and_query(self.path, self.query)
    }
}
