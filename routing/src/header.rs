//! Header conditions: which value a key stands for, and what it means for that value to be there.
//!
//! Invariant: of a repeated header each line is compared by itself and one that matches is enough (asked of Envoy 1.40),
//! but for those that Envoy keeps in one line, and cookies, which HTTP/2 splits (RFC 9113 §8.2.3). Joined lines are
//! compared without being copied together where the comparison allows it.

pub mod lines;

use crate::{matcher::StringMatcher, request::RequestHead};
use smallvec::SmallVec;
use std::fmt;

/// What a key under `headers` or `withoutHeaders` stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HeaderKey {
    /// `:method`.
    Method,
    /// `:scheme`.
    Scheme,
    /// `:authority`, and `host`, which Envoy keeps in the same place.
    Authority,
    /// `:path`: path and query.
    Path,
    /// A regular header: each line is a value.
    Name(http::HeaderName),
    /// A header that counts as one value: its lines, with this between them.
    Joined(http::HeaderName, &'static str),
    /// A pseudo-header that no request has, such as `:status`: always missing.
    Absent(Box<str>),
}

impl HeaderKey {
    /// Reads a key in any case; `None` when it is neither a known pseudo-header nor a token (RFC 9110 §5.1).
    #[must_use]
    pub fn parse(key: &str) -> Option<Self> {
        let lower = key.to_ascii_lowercase();
        Some(match lower.as_str() {
            ":method" => Self::Method,
            ":scheme" => Self::Scheme,
            ":authority" | "host" => Self::Authority,
            ":path" => Self::Path,
            pseudo if pseudo.starts_with(':') => {
                http::HeaderName::from_bytes(pseudo.strip_prefix(':')?.as_bytes()).ok()?;
                Self::Absent(pseudo.into())
            }
            name => {
                let name = http::HeaderName::from_bytes(name.as_bytes()).ok()?;
                match &name {
                    cookie if *cookie == http::header::COOKIE => Self::Joined(name, "; "),
                    single if lines::is_single_in_requests(single) => Self::Joined(name, ","),
                    _ => Self::Name(name),
                }
            }
        })
    }

    /// Whether a request has it.
    #[must_use]
    pub fn is_present(&self, head: &RequestHead<'_>) -> bool {
        match self {
            Self::Method | Self::Scheme | Self::Authority | Self::Path => true,
            Self::Name(name) | Self::Joined(name, _) => head.headers.contains_key(name),
            Self::Absent(_) => false,
        }
    }

    /// Whether the value is there and fits. What is in several parts is put in one piece, on the stack up to 1 KiB.
    pub(crate) fn any(&self, head: &RequestHead<'_>, fits: impl Fn(&[u8]) -> bool) -> bool {
        let joined = |parts: &mut dyn Iterator<Item = &[u8]>| {
            let mut whole: SmallVec<[u8; 1024]> = SmallVec::new();
            parts.for_each(|part| whole.extend_from_slice(part));
            fits(&whole)
        };
        match self {
            Self::Method => fits(head.method.as_bytes()),
            Self::Scheme => fits(head.scheme.as_str().as_bytes()),
            Self::Authority => fits(head.authority.as_bytes()),
            Self::Path => match head.query {
                None => fits(head.path.as_bytes()),
                Some(query) => joined(&mut [head.path.as_bytes(), b"?", query.as_bytes()].into_iter()),
            },
            Self::Name(name) => head.headers.get_all(name).iter().any(|value| fits(value.as_bytes())),
            Self::Joined(name, between) => {
                let mut values = head.headers.get_all(name).iter().map(http::HeaderValue::as_bytes);
                let Some(first) = values.next() else { return false };
                let Some(second) = values.next() else { return fits(first) };
                let rest =
                    std::iter::once(second).chain(values).flat_map(|value| [between.as_bytes(), value]);
                joined(&mut std::iter::once(first).chain(rest))
            }
            Self::Absent(_) => false,
        }
    }

    /// Whether the value is there and matches.
    #[must_use]
    pub fn is_match(&self, head: &RequestHead<'_>, matcher: &StringMatcher) -> bool {
        match self {
            Self::Method => matcher.is_match(head.method.as_bytes()),
            Self::Scheme => matcher.is_match(head.scheme.as_str().as_bytes()),
            Self::Authority => matcher.is_match(head.authority.as_bytes()),
            Self::Path => match head.query {
                None => matcher.is_match(head.path.as_bytes()),
                Some(query) => {
                    matcher.is_match_parts([head.path.as_bytes(), b"?", query.as_bytes()].into_iter())
                }
            },
            Self::Name(name) => {
                head.headers.get_all(name).iter().any(|value| matcher.is_match(value.as_bytes()))
            }
            Self::Joined(name, between) => {
                let mut values = head.headers.get_all(name).iter();
                let Some(first) = values.next() else { return false };
                let rest = values.flat_map(|v| [between.as_bytes(), v.as_bytes()]);
                matcher.is_match_parts(std::iter::once(first.as_bytes()).chain(rest))
            }
            Self::Absent(_) => false,
        }
    }

    /// Whether a `withoutHeaders` entry holds. Presence asks for absence; any other comparison is negated, and a
    /// missing header is compared as the empty text (Istio: `TreatMissingHeaderAsEmpty`).
    #[must_use]
    pub fn is_without(&self, head: &RequestHead<'_>, matcher: &StringMatcher) -> bool {
        match matcher {
            StringMatcher::Present => !self.is_present(head),
            _ if !self.is_present(head) => !matcher.is_match(b""),
            _ => !self.is_match(head, matcher),
        }
    }

    /// The value as a person reads it; `None` when missing. Allocates: for explanations only.
    #[must_use]
    pub fn value(&self, head: &RequestHead<'_>) -> Option<String> {
        match self {
            Self::Method => Some(head.method.to_owned()),
            Self::Scheme => Some(head.scheme.as_str().to_owned()),
            Self::Authority => Some(head.authority.to_owned()),
            Self::Path => Some(head.path_and_query()),
            Self::Name(name) | Self::Joined(name, _) => {
                let between = if let Self::Joined(_, between) = self { *between } else { "," };
                let values: Vec<_> = head
                    .headers
                    .get_all(name)
                    .iter()
                    .map(|v| String::from_utf8_lossy(v.as_bytes()))
                    .collect();
                (!values.is_empty()).then(|| values.join(between))
            }
            Self::Absent(_) => None,
        }
    }
}

impl fmt::Display for HeaderKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Method => ":method",
            Self::Scheme => ":scheme",
            Self::Authority => ":authority",
            Self::Path => ":path",
            Self::Name(name) | Self::Joined(name, _) => name.as_str(),
            Self::Absent(name) => name,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{matcher::Pattern, request::Scheme};

    fn exact(text: &str) -> StringMatcher {
        StringMatcher::Exact(text.into())
    }

    fn regex(text: &str) -> StringMatcher {
        StringMatcher::Regex(Pattern::new(text).unwrap())
    }

    fn with<R>(pairs: &[(&str, &str)], test: impl FnOnce(&RequestHead<'_>) -> R) -> R {
        let mut headers = http::HeaderMap::new();
        for (k, v) in pairs {
            headers.append(http::HeaderName::from_bytes(k.as_bytes()).unwrap(), v.parse().unwrap());
        }
        test(&RequestHead {
            method: "GET",
            scheme: Scheme::Http,
            authority: "a.com:8080",
            path: "/p",
            query: Some("q=1"),
            headers: &headers,
            claims: None,
        })
    }

    fn key(text: &str) -> HeaderKey {
        HeaderKey::parse(text).unwrap()
    }

    #[test]
    fn names_in_any_case_and_each_line_by_itself() {
        with(&[("x-a", "1"), ("x-a", "2")], |head| {
            assert!(key("X-A").is_match(head, &exact("1")) && key("x-a").is_match(head, &exact("2")));
            assert!(!key("x-a").is_match(head, &exact("1,2")));
            assert!(key("x-a").is_match(head, &StringMatcher::Prefix("2".into())));
            assert!(!key("x-a").is_match(head, &regex("1,2")));
            assert!(!key("x-a").is_without(head, &exact("2")) && key("x-a").is_without(head, &exact("1,2")));
            assert_eq!(key("x-a").value(head).unwrap(), "1,2");
        });
    }

    #[test]
    fn what_stands_in_one_line_is_joined() {
        with(&[("accept", "a"), ("accept", "b"), ("cookie", "u=1"), ("cookie", "v=2")], |head| {
            assert!(
                key("Accept").is_match(head, &exact("a,b")) && !key("accept").is_match(head, &exact("a"))
            );
            assert!(key("cookie").is_match(head, &regex("(.*; )?v=2")));
            assert_eq!(key("cookie").value(head).unwrap(), "u=1; v=2");
        });
    }

    #[test]
    fn a_missing_header_matches_nothing() {
        with(&[("x-empty", "")], |head| {
            assert!(!key("x-a").is_match(head, &exact("")));
            assert!(!key("x-a").is_match(head, &regex(".*")));
            assert!(!key("x-a").is_match(head, &StringMatcher::Present));
            assert!(key("x-empty").is_match(head, &StringMatcher::Present));
            assert!(key("x-empty").is_match(head, &exact("")));
        });
    }

    #[test]
    fn pseudo_headers() {
        with(&[], |head| {
            assert!(key(":method").is_match(head, &exact("GET")));
            assert!(!key(":method").is_match(head, &exact("get")));
            assert!(key(":scheme").is_match(head, &exact("http")));
            assert!(key(":authority").is_match(head, &exact("a.com:8080")));
            assert!(key("Host").is_match(head, &exact("a.com:8080")));
            assert!(key(":path").is_match(head, &exact("/p?q=1")));
            assert!(!key(":path").is_match(head, &exact("/p")));
            assert!(!key(":status").is_present(head));
        });
        assert_eq!(HeaderKey::parse("a b"), None);
        assert_eq!(HeaderKey::parse(":"), None);
    }

    #[test]
    fn without_counts_missing_as_empty() {
        with(&[("x-a", "1")], |head| {
            assert!(!key("x-a").is_without(head, &exact("1")));
            assert!(key("x-a").is_without(head, &exact("2")));
            assert!(!key("x-a").is_without(head, &StringMatcher::Present));
            assert!(key("x-no").is_without(head, &exact("1")));
            assert!(!key("x-no").is_without(head, &exact("")));
            assert!(!key("x-no").is_without(head, &regex(".*")));
            assert!(key("x-no").is_without(head, &regex(".+")));
            assert!(key("x-no").is_without(head, &StringMatcher::Prefix("1".into())));
            assert!(key("x-no").is_without(head, &StringMatcher::Present));
        });
    }
}
