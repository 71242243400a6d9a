//! From an authority, or a TLS server name, to what is configured for it.
//!
//! Invariant: exact beats the longest wildcard, which beats `*`; the choice is made once (Envoy: `findVirtualHost`).
//! A lookup lower-cases on the stack and allocates nothing.

use foldhash::fast::FixedState;
use std::{collections::HashMap, sync::Arc};

/// Longest name DNS allows (RFC 1035 §2.3.4), and the room for lower-casing one. A longer host can equal no domain.
const LONGEST: usize = 253;

/// Values by domain: `a.example.com`, `*.example.com` or `*`.
#[derive(Clone, Debug)]
pub struct HostIndex<T> {
    names: Arc<Names>,
    /// One for each domain, in the same order.
    values: Vec<T>,
}

/// The domains, and where each is in the list of values.
#[derive(Clone, Debug, Default)]
struct Names {
    domains: Vec<Box<str>>,
    exact: HashMap<Box<str>, usize, FixedState>,
    /// Keyed by what follows the star, dot included.
    wildcards: HashMap<Box<str>, usize, FixedState>,
    /// Length of the longest wildcard suffix: longer ends of a host need no look.
    longest_suffix: usize,
    any: Option<usize>,
}

impl<T> Default for HostIndex<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> HostIndex<T> {
    /// An empty index.
    #[must_use]
    pub fn new() -> Self {
        Self { names: Arc::default(), values: Vec::new() }
    }

    /// The same domains with other values, one for each in the order of [`iter`](Self::iter); `None` when there are not so many.
    #[must_use]
    pub fn with_values(&self, values: Vec<T>) -> Option<Self> {
        (values.len() == self.len()).then(|| Self { names: Arc::clone(&self.names), values })
    }

    /// Puts a value under a domain, in any case; gives back the value that was there.
    pub fn insert(&mut self, domain: &str, value: T) -> Option<T> {
        let domain = domain.to_ascii_lowercase();
        if let Some(old) = self.names.find_domain(&domain).and_then(|at| self.values.get_mut(at)) {
            return Some(std::mem::replace(old, value));
        }
        Arc::make_mut(&mut self.names).add(domain);
        self.values.push(value);
        None
    }

    /// The value for a request's authority; its port is ignored (Istio sets `ignore_port_in_host_matching`).
    #[must_use]
    pub fn lookup(&self, authority: &str) -> Option<&T> {
        self.lookup_name(without_port(authority))
    }

    /// The value for an authority whose port counts: domains may have one.
    #[must_use]
    pub fn lookup_as_written(&self, authority: &str) -> Option<&T> {
        self.lookup_name(authority)
    }

    /// The value for a TLS server name; a client that sent none gets the one of `*`.
    #[must_use]
    pub fn lookup_sni(&self, name: Option<&str>) -> Option<&T> {
        match name {
            Some(name) => self.lookup_name(name),
            None => self.at(self.names.any?),
        }
    }

    /// The value put under exactly this domain, the pattern itself and not what it matches.
    #[must_use]
    pub fn get(&self, domain: &str) -> Option<&T> {
        self.at(self.names.find_domain(&domain.to_ascii_lowercase())?)
    }

    /// The value put under exactly this domain, or the one that is made and put there.
    #[expect(clippy::indexing_slicing, reason = "what was not there has just been put")]
    pub(crate) fn get_or_insert_with(&mut self, domain: &str, make: impl FnOnce() -> T) -> &mut T {
        let domain = domain.to_ascii_lowercase();
        let at = self.names.find_domain(&domain).unwrap_or_else(|| {
            Arc::make_mut(&mut self.names).add(domain);
            self.values.push(make());
            self.values.len() - 1
        });
        &mut self.values[at]
    }

    /// All domains and values, in the order in which the domains were first put in.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &T)> {
        self.names.domains.iter().map(|domain| &**domain).zip(&self.values)
    }

    /// Number of domains.
    #[must_use]
    pub fn len(&self) -> usize {
        self.values.len()
    }

    /// Whether there is no domain.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    fn lookup_name(&self, name: &str) -> Option<&T> {
        let mut buffer = [0; LONGEST];
        let names = &*self.names;
        let found = lower(name, &mut buffer).and_then(|name| names.find(name)).or(names.any)?;
        self.at(found)
    }

    fn at(&self, at: usize) -> Option<&T> {
        self.values.get(at)
    }
}

impl Names {
    fn add(&mut self, domain: String) {
        let at = self.domains.len();
        if domain == "*" {
            self.any = Some(at);
        } else if let Some(suffix) = wildcard_suffix(&domain) {
            self.longest_suffix = self.longest_suffix.max(suffix.len());
            self.wildcards.insert(suffix.into(), at);
        } else {
            self.exact.insert(domain.as_str().into(), at);
        }
        self.domains.push(domain.into());
    }

    fn find(&self, name: &str) -> Option<usize> {
        if let Some(at) = self.exact.get(name) {
            return Some(*at);
        }
        if self.wildcards.is_empty() {
            return None;
        }
        // From the left, so that the first hit is the longest suffix. The star stands for at least one byte.
        memchr::memchr_iter(b'.', name.as_bytes())
            .filter(|dot| *dot > 0 && name.len() - dot <= self.longest_suffix)
            .find_map(|dot| self.wildcards.get(name.get(dot..)?).copied())
    }

    fn find_domain(&self, lower_cased: &str) -> Option<usize> {
        if lower_cased == "*" {
            return self.any;
        }
        match wildcard_suffix(lower_cased) {
            Some(suffix) => self.wildcards.get(suffix).copied(),
            None => self.exact.get(lower_cased).copied(),
        }
    }
}

/// An authority without its port; an IPv6 address keeps its brackets (Envoy: `HeaderUtility::getPortStart`).
#[must_use]
pub fn without_port(authority: &str) -> &str {
    match authority.rfind(':') {
        Some(colon) if authority.rfind(']').is_none_or(|bracket| bracket < colon) => {
            authority.get(..colon).unwrap_or(authority)
        }
        _ => authority,
    }
}

fn wildcard_suffix(domain: &str) -> Option<&str> {
    domain.strip_prefix('*').filter(|suffix| suffix.starts_with('.'))
}

fn lower<'b>(name: &str, buffer: &'b mut [u8; LONGEST]) -> Option<&'b str> {
    let room = buffer.get_mut(..name.len())?;
    room.copy_from_slice(name.as_bytes());
    room.make_ascii_lowercase();
    std::str::from_utf8(room).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index(domains: &[&'static str]) -> HostIndex<&'static str> {
        let mut index = HostIndex::new();
        for domain in domains {
            assert_eq!(index.insert(domain, *domain), None);
        }
        index
    }

    #[test]
    fn exact_then_longest_wildcard_then_any() {
        let hosts = index(&["*", "*.com", "*.foo.com", "*.a.foo.com", "a.foo.com"]);
        for (authority, want) in [
            ("a.foo.com", "a.foo.com"),
            ("A.Foo.COM:8080", "a.foo.com"),
            ("b.foo.com", "*.foo.com"),
            ("x.y.foo.com", "*.foo.com"),
            ("b.a.foo.com", "*.a.foo.com"),
            ("foo.com", "*.com"),
            ("bar.org", "*"),
            ("", "*"),
            (".foo.com", "*.com"),
        ] {
            assert_eq!(hosts.lookup(authority), Some(&want), "{authority}");
        }
    }

    #[test]
    fn a_wildcard_does_not_match_its_own_suffix() {
        let hosts = index(&["*.foo.com"]);
        assert_eq!(hosts.lookup("foo.com"), None);
        assert_eq!(hosts.lookup("xfoo.com"), None);
        assert_eq!(hosts.lookup(".foo.com"), None);
    }

    #[test]
    fn ports_go_and_brackets_stay() {
        let hosts = index(&["[::1]", "10.0.0.1"]);
        assert!(hosts.lookup("[::1]").is_some());
        assert!(hosts.lookup("[::1]:8080").is_some());
        assert!(hosts.lookup("10.0.0.1:80").is_some());
        assert!(hosts.lookup("10.0.0.2:80").is_none());
    }

    #[test]
    fn a_name_too_long_for_dns_gets_only_the_star() {
        let long = format!("{}.foo.com", "a.".repeat(200));
        assert_eq!(index(&["*.foo.com"]).lookup(&long), None);
        assert_eq!(index(&["*.foo.com", "*"]).lookup(&long), Some(&"*"));
    }

    #[test]
    fn server_names() {
        let hosts = index(&["*", "*.foo.com"]);
        assert_eq!(hosts.lookup_sni(None), Some(&"*"));
        assert_eq!(hosts.lookup_sni(Some("B.foo.com")), Some(&"*.foo.com"));
        assert_eq!(index(&["a.com"]).lookup_sni(None), None);
    }

    #[test]
    fn domains_are_put_in_once_and_kept_in_order() {
        let mut hosts = index(&["b.com", "*.a.com", "*"]);
        assert_eq!(hosts.insert("B.com", "again"), Some("b.com"));
        assert_eq!(hosts.insert("*", "all"), Some("*"));
        assert_eq!(hosts.get("*.A.com"), Some(&"*.a.com"));
        assert_eq!(hosts.get("x.a.com"), None);
        let order: Vec<_> = hosts.iter().collect();
        assert_eq!(order, [("b.com", &"again"), ("*.a.com", &"*.a.com"), ("*", &"all")]);
    }
}
