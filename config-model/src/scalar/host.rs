//! Host names and host patterns: `a.foo.com`, `*.foo.com`, `*`.
//!
//! Invariant: lower case, no longer than a DNS name may be (253, plus a `*.`). A pattern's star is its first byte. Which kinds
//! demand a fully qualified name is for validation: short names such as `reviews` are patterns too.

use std::{fmt, str::FromStr, sync::Arc};

use serde::{Deserialize, Deserializer, de};

use super::InvalidScalar;

/// One exact host name, lower case: a DNS name of one or more labels, or an IP address.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Hostname(Arc<str>);

/// A host as rules write it: exact, a suffix wildcard, or any.
///
/// Compares and sorts by its text. Istio treats `*-foo.com` as a suffix too, so the suffix need not begin with a dot.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostPattern(Arc<str>);

impl Default for HostPattern {
    fn default() -> HostPattern {
        HostPattern::unset()
    }
}

/// A host of a Gateway server: an optional namespace that filters VirtualServices, and a pattern.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServerHost {
    namespace: Option<Arc<str>>,
    host: HostPattern,
}

const MAX_LEN: usize = 255;
const WANTS: &str = "write a DNS name, an IP address, \"*.suffix\" or \"*\"";

impl Hostname {
    /// The name in lower case.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl HostPattern {
    /// The pattern `*`, which covers every name.
    pub fn any() -> HostPattern {
        HostPattern("*".into())
    }

    /// Stands where a document gives no host and needs one: the empty text, which covers no name. Validation refuses it.
    pub fn unset() -> HostPattern {
        HostPattern("".into())
    }

    /// Whether no host was given.
    pub fn is_unset(&self) -> bool {
        self.0.is_empty()
    }

    /// The pattern as written, in lower case.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The text in shared form, for keeping without a copy.
    pub fn to_shared(&self) -> Arc<str> {
        Arc::clone(&self.0)
    }

    /// True for `*` alone.
    pub fn is_any(&self) -> bool {
        &*self.0 == "*"
    }

    /// True for `*` and for `*.suffix`.
    pub fn is_wildcard(&self) -> bool {
        self.0.starts_with('*')
    }

    /// What follows the star (`.foo.com`); `None` for an exact name, empty for `*`.
    pub fn suffix(&self) -> Option<&str> {
        self.0.strip_prefix('*')
    }

    /// The exact name; `None` for a wildcard.
    pub fn exact(&self) -> Option<&str> {
        if self.is_wildcard() { None } else { Some(&self.0) }
    }

    /// Whether every name that `other` stands for is one that `self` stands for. `*.foo.com` covers `a.b.foo.com` and
    /// `*.b.foo.com` but not `foo.com`.
    pub fn covers(&self, other: &HostPattern) -> bool {
        match (self.suffix(), other.suffix()) {
            (Some(mine), Some(theirs)) => theirs.ends_with(mine),
            (Some(_), None) => self.covers_name(&other.0),
            (None, Some(_)) => false,
            (None, None) => self.0 == other.0,
        }
    }

    /// Whether a name (lower case, without port) is one that this pattern stands for.
    pub fn covers_name(&self, name: &str) -> bool {
        match self.suffix() {
            // A suffix needs something in the place of its star: `*.foo.com` is not for `.foo.com`.
            Some(suffix) => suffix.is_empty() || (name.len() > suffix.len() && name.ends_with(suffix)),
            None => *self.0 == *name,
        }
    }

    /// Whether some name is meant by both: one covers the other.
    pub fn overlaps(&self, other: &HostPattern) -> bool {
        self.covers(other) || other.covers(self)
    }

    /// The more specific of the two where one covers the other (Istio: host.Names.Intersection); else `None`.
    pub fn intersect<'a>(&'a self, other: &'a HostPattern) -> Option<&'a HostPattern> {
        if self.covers(other) {
            Some(other)
        } else if other.covers(self) {
            Some(self)
        } else {
            None
        }
    }

    /// Whether this is a name of more than one label, a wildcard, or an IP address: what Istio calls fully qualified here.
    pub fn is_qualified(&self) -> bool {
        self.is_wildcard() || self.0.contains('.') || self.0.contains(':')
    }
}

impl ServerHost {
    /// The namespace that a VirtualService must be in, as written: `None` for any (`host`, `*/host`), `.` for the Gateway's own.
    pub fn namespace(&self) -> Option<&str> {
        self.namespace.as_deref()
    }

    /// The host part.
    pub fn host(&self) -> &HostPattern {
        &self.host
    }
}

impl FromStr for Hostname {
    type Err = InvalidScalar;

    fn from_str(text: &str) -> Result<Hostname, InvalidScalar> {
        check("host name", text, text)?;
        Ok(Hostname(text.to_ascii_lowercase().into()))
    }
}

impl FromStr for HostPattern {
    type Err = InvalidScalar;

    fn from_str(text: &str) -> Result<HostPattern, InvalidScalar> {
        match text.strip_prefix('*') {
            Some("") => {}
            Some(rest) => check("host", text, rest)?,
            None => check("host", text, text)?,
        }
        Ok(HostPattern(text.to_ascii_lowercase().into()))
    }
}

impl FromStr for ServerHost {
    type Err = InvalidScalar;

    fn from_str(text: &str) -> Result<ServerHost, InvalidScalar> {
        let Some((namespace, host)) = text.split_once('/') else {
            return Ok(ServerHost { namespace: None, host: text.parse()? });
        };
        let known = matches!(namespace, "*" | ".")
            || (!namespace.is_empty()
                && namespace.len() <= 63
                && namespace.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-'));
        if !known {
            return Err(InvalidScalar::new(
                "host",
                text,
                "before the slash stands a namespace, \".\" or \"*\"",
            ));
        }
        let namespace = if namespace == "*" { None } else { Some(namespace.into()) };
        Ok(ServerHost { namespace, host: host.parse()? })
    }
}

/// The bytes of names and addresses, in any order that cannot be mistaken for something else.
fn check(what: &'static str, whole: &str, name: &str) -> Result<(), InvalidScalar> {
    let well_formed = !name.is_empty()
        && whole.len() <= MAX_LEN
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b':'));
    if well_formed { Ok(()) } else { Err(InvalidScalar::new(what, whole, WANTS)) }
}

impl fmt::Display for Hostname {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Display for ServerHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.namespace {
            Some(namespace) => write!(f, "{namespace}/{}", self.host),
            None => self.host.fmt(f),
        }
    }
}

impl<'de> Deserialize<'de> for Hostname {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Hostname, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

impl<'de> Deserialize<'de> for HostPattern {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<HostPattern, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

impl<'de> Deserialize<'de> for ServerHost {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<ServerHost, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(text: &str) -> HostPattern {
        text.parse().unwrap()
    }

    #[test]
    fn covering_follows_istio() {
        for (a, b, covers) in [
            ("*", "*", true),
            ("*", "a", true),
            ("*.foo.com", "a.b.foo.com", true),
            ("*.foo.com", "*.b.foo.com", true),
            ("*.foo.com", "*.foo.com", true),
            ("*.foo.com", "foo.com", false),
            ("*.foo.com", "*", false),
            ("*.foo.com", "xfoo.com", false),
            ("A.foo.com", "a.FOO.com", true),
            ("a.foo.com", "*.foo.com", false),
        ] {
            assert_eq!(pattern(a).covers(&pattern(b)), covers, "{a} covers {b}");
        }
    }

    #[test]
    fn intersection_keeps_the_narrower() {
        assert_eq!(pattern("*.foo.com").intersect(&pattern("*")), Some(&pattern("*.foo.com")));
        assert_eq!(pattern("a.foo.com").intersect(&pattern("*.foo.com")), Some(&pattern("a.foo.com")));
        assert_eq!(pattern("*.bar.com").intersect(&pattern("*.foo.com")), None);
    }

    #[test]
    fn server_hosts_split_at_the_slash() {
        let host: ServerHost = "shop/*.foo.com".parse().unwrap();
        assert_eq!((host.namespace(), host.host().as_str()), (Some("shop"), "*.foo.com"));
        assert_eq!("*/a.com".parse::<ServerHost>().unwrap().namespace(), None);
        assert_eq!("./a.com".parse::<ServerHost>().unwrap().namespace(), Some("."));
        for bad in ["/a.com", "a_b/c.com", "ns/", "a/b/c"] {
            assert!(bad.parse::<ServerHost>().is_err(), "{bad}");
        }
    }

    #[test]
    fn nonsense_is_refused() {
        for bad in ["", "a b", "a/b", "**", "a*.com", "https://a.com", "é.com"] {
            assert!(bad.parse::<HostPattern>().is_err(), "{bad}");
        }
    }
}
