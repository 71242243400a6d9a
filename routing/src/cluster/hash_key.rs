//! What of a request is hashed for a sticky choice.
//!
//! Invariant: the same text gives the same number in every process and version, and the number that Envoy gives: XXH64
//! with seed 0, so that gateways side by side agree on the endpoint.

use crate::query;
use http::{HeaderMap, HeaderName, header};
use std::{fmt::Write as _, net::IpAddr, sync::Arc, time::Duration};
use twox_hash::XxHash64;

/// What is hashed.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum HashKey {
    /// A header; of several lines all count, in whatever order.
    Header(HeaderName),
    /// A cookie.
    Cookie(HashCookie),
    /// The address that the connection comes from.
    SourceIp,
    /// The first value of a query parameter.
    Query(Arc<str>),
}

/// A cookie that is hashed, and made where a request has none.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HashCookie {
    /// Its name.
    pub name: Arc<str>,
    /// Its path; may be empty.
    pub path: Arc<str>,
    /// How long a made one lives: zero for a session; `None`: none is made.
    pub ttl: Option<Duration>,
    /// Further attributes of a made one.
    pub attributes: Box<[(Arc<str>, Arc<str>)]>,
}

impl HashKey {
    /// The number of a request; `None` where the request has no such key.
    #[must_use]
    pub fn hash(&self, headers: &HeaderMap, query: Option<&str>, source: Option<IpAddr>) -> Option<u64> {
        match self {
            Self::Header(name) => {
                let mut lines = headers.get_all(name).iter();
                let first = lines.next()?;
                if lines.next().is_none() {
                    return Some(hash(first.as_bytes()));
                }
                // Envoy sorts the lines and hashes them one after the other.
                let mut all: Vec<&[u8]> = headers.get_all(name).iter().map(|v| v.as_bytes()).collect();
                all.sort_unstable();
                Some(hash(&all.concat()))
            }
            Self::Cookie(cookie) => {
                cookie.find(headers).filter(|v| !v.is_empty()).map(|v| hash(v.as_bytes()))
            }
            Self::SourceIp => source.map(hash_ip),
            Self::Query(key) => query::first_value(query, key).map(|value| hash(value.as_bytes())),
        }
    }
}

impl HashCookie {
    fn find<'h>(&self, headers: &'h HeaderMap) -> Option<&'h str> {
        let lines = headers.get_all(header::COOKIE).iter().filter_map(|line| line.to_str().ok());
        lines.flat_map(|line| line.split(';')).find_map(|pair| {
            let (name, value) = pair.trim().split_once('=')?;
            (name.trim_end() == &*self.name).then(|| value.trim().trim_matches('"'))
        })
    }

    /// The value of a `Set-Cookie` that makes this cookie (Envoy: `Utility::makeSetCookieValue`).
    #[must_use]
    pub fn set_cookie(&self, value: &str) -> String {
        let mut text = format!("{}=\"{value}\"", self.name);
        if let Some(ttl) = self.ttl.filter(|ttl| !ttl.is_zero()) {
            // Writing to a String cannot fail.
            let _infallible = write!(text, "; Max-Age={}", ttl.as_secs());
        }
        if !self.path.is_empty() {
            let _infallible = write!(text, "; Path={}", self.path);
        }
        for (name, value) in &self.attributes {
            let _infallible =
                if value.is_empty() { write!(text, "; {name}") } else { write!(text, "; {name}={value}") };
        }
        text.push_str("; HttpOnly");
        text
    }

    /// A value for a request that has no such cookie: of the two ends of its connection, so that requests in flight on
    /// one connection get the same (Envoy: `CookieHashMethod`).
    #[must_use]
    pub fn value_for(ends: &str) -> String {
        format!("{:016x}", hash(ends.as_bytes()))
    }
}

/// One number of those of several keys, in their order; `None` where there is none (Envoy: `HashPolicyImpl`).
#[must_use]
pub fn combined_hash(numbers: impl IntoIterator<Item = u64>) -> Option<u64> {
    numbers.into_iter().reduce(|all, number| all.rotate_left(1) ^ number)
}

fn hash(text: &[u8]) -> u64 {
    hash_key_text(text, 0)
}

/// XXH64, the one hash of keys and of endpoints.
pub(crate) fn hash_key_text(text: &[u8], seed: u64) -> u64 {
    XxHash64::oneshot(seed, text)
}

fn hash_ip(ip: IpAddr) -> u64 {
    struct Text {
        bytes: [u8; 48],
        len: usize,
    }
    impl std::fmt::Write for Text {
        fn write_str(&mut self, s: &str) -> std::fmt::Result {
            let end = self.len + s.len();
            self.bytes.get_mut(self.len..end).ok_or(std::fmt::Error)?.copy_from_slice(s.as_bytes());
            self.len = end;
            Ok(())
        }
    }
    let mut text = Text { bytes: [0; 48], len: 0 };
    // The longest address has 45 characters.
    let _fits = write!(text, "{ip}");
    hash(text.bytes.get(..text.len).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in lines {
            map.append(*name, value.parse().unwrap());
        }
        map
    }

    fn cookie(ttl: Option<u64>) -> HashCookie {
        HashCookie {
            name: "sid".into(),
            path: "/x".into(),
            ttl: ttl.map(Duration::from_secs),
            attributes: [("SameSite".into(), "Lax".into()), ("Secure".into(), "".into())].into(),
        }
    }

    #[test]
    fn the_hash_is_xxh64() {
        // Test vectors of the algorithm's own description.
        assert_eq!(hash(b""), 0xEF46_DB37_51D8_E999);
        assert_eq!(hash(b"a"), 0xD24E_C4F1_A98C_6E5B);
        assert_eq!(hash(b"abc"), 0x44BC_2CF5_AD77_0999);
    }

    #[test]
    fn each_key_reads_its_own_part_and_a_missing_one_is_none() {
        let head = headers(&[("x-user", "ann"), ("cookie", "a=1; sid=\"s1\"; b=2")]);
        let none = HeaderMap::new();
        let by = |key: HashKey, headers: &HeaderMap| key.hash(headers, Some("u=q&u=r"), None);
        let header = HashKey::Header(HeaderName::from_static("x-user"));
        assert_eq!(by(header.clone(), &head), Some(hash(b"ann")));
        assert_eq!(by(header, &none), None);
        assert_eq!(by(HashKey::Cookie(cookie(None)), &head), Some(hash(b"s1")));
        assert_eq!(by(HashKey::Cookie(cookie(None)), &none), None);
        assert_eq!(by(HashKey::Query("u".into()), &none), Some(hash(b"q")));
        assert_eq!(by(HashKey::Query("v".into()), &none), None);
        assert_eq!(by(HashKey::SourceIp, &none), None);
        let ip = "2001:db8::1".parse().unwrap();
        assert_eq!(HashKey::SourceIp.hash(&none, None, Some(ip)), Some(hash(b"2001:db8::1")));
    }

    #[test]
    fn several_keys_make_one_number() {
        assert_eq!(combined_hash([]), None);
        assert_eq!(combined_hash([5]), Some(5));
        assert_eq!(combined_hash([1 << 63, 2]), Some(1 ^ 2));
        assert_ne!(combined_hash([1, 2]), combined_hash([2, 1]));
    }

    #[test]
    fn lines_of_one_header_count_together_in_any_order() {
        let key = HashKey::Header(HeaderName::from_static("x"));
        let of = |lines: &[(&'static str, &'static str)]| key.hash(&headers(lines), None, None);
        assert_eq!(of(&[("x", "a"), ("x", "b")]), of(&[("x", "b"), ("x", "a")]));
        assert_ne!(of(&[("x", "a"), ("x", "b")]), of(&[("x", "a")]));
    }

    #[test]
    fn a_made_cookie_carries_what_the_rule_says() {
        assert_eq!(
            cookie(Some(30)).set_cookie("v"),
            "sid=\"v\"; Max-Age=30; Path=/x; SameSite=Lax; Secure; HttpOnly"
        );
        assert!(!cookie(Some(0)).set_cookie("v").contains("Max-Age"));
    }
}
