//! Redirects: where a client is sent.
//!
//! Invariant: whatever can be known without a request was settled when the rule was compiled; the rest follows Envoy's
//! `newUri`, including the cases in which the request's own port stays.

use crate::{
    path::PathMatch,
    request::{RequestHead, Scheme},
};
use config_model::istio::virtual_service::{HttpRedirect, RedirectPortSelection};
use std::{fmt, sync::Arc};

/// A redirect reply; its body is empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redirect {
    /// Status: 301, 302, 303, 307 or 308.
    pub code: u16,
    /// Scheme to go to; `None`: the request's.
    pub scheme: Option<Arc<str>>,
    /// Host, and port where written, to go to; `None`: the request's.
    pub authority: Option<Arc<str>>,
    /// Port to go to; `None`: unspecified, which is not the same as the scheme's own.
    pub port: Option<u16>,
    /// Path to go to.
    pub path: RedirectPath,
}

/// The path of a redirect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RedirectPath {
    /// The request's.
    Keep,
    /// This one; it may bring its own query.
    Full(Arc<str>),
    /// The request's, with the matched prefix replaced.
    Prefix {
        /// Length of the matched prefix in bytes.
        from_len: usize,
        /// What stands there instead.
        to: Arc<str>,
    },
}

/// What a redirect takes from the server that it stands on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServerFacts {
    /// `server.port.number`, as written.
    pub port: u16,
    /// Scheme that its port default is judged by: https where the server has a `tls` block, whatever it says.
    pub scheme: Scheme,
}

impl Redirect {
    /// Compiles a rule's redirect for one entry. Fails on a status that is not a redirect's.
    pub fn compile(
        model: &HttpRedirect,
        matched: &PathMatch,
        server: ServerFacts,
    ) -> Result<Self, RedirectError> {
        let code = match model.redirect_code {
            0 => 301,
            code @ (301 | 302 | 303 | 307 | 308) => code as u16,
            other => return Err(RedirectError::Code(other)),
        };
        let text = |t: &str| (!t.is_empty()).then(|| Arc::from(t));
        let scheme: Option<Arc<str>> = text(&model.scheme);
        let port = match (model.port, model.derive_port) {
            (Some(port), _) => Some(port.get()),
            (None, Some(RedirectPortSelection::FromRequestPort)) => Some(server.port),
            (None, Some(RedirectPortSelection::FromProtocolDefault) | None) => None,
        };
        let judged = scheme.as_deref().unwrap_or(server.scheme.as_str());
        let port = port.filter(|port| !matches!((judged, port), ("http", 80) | ("https", 443)));
        let path = match (model.uri.as_str(), model.prefix_rewrite.as_str()) {
            ("", "") => RedirectPath::Keep,
            ("", to) => match matched {
                PathMatch::Prefix { text, .. } => {
                    RedirectPath::Prefix { from_len: text.len(), to: to.into() }
                }
                PathMatch::Any => RedirectPath::Prefix { from_len: 1, to: to.into() },
                PathMatch::Exact { .. } | PathMatch::Regex(_) => RedirectPath::Full(to.into()),
            },
            (uri, _) => RedirectPath::Full(uri.into()),
        };
        Ok(Self { code, scheme, authority: text(&model.authority), port, path })
    }

    /// The `Location` for a request.
    #[must_use]
    pub fn location(&self, head: &RequestHead<'_>) -> String {
        let scheme = self.scheme.as_deref().unwrap_or(head.scheme.as_str());
        let host = match &self.authority {
            Some(authority) => authority,
            None => request_host(head, scheme, self.port.is_some()),
        };
        let mut location = format!("{scheme}://{host}");
        if let Some(port) = self.port {
            location.push_str(&format!(":{port}"));
        }
        let query = match &self.path {
            RedirectPath::Keep => {
                location.push_str(head.path);
                head.query
            }
            RedirectPath::Full(path) => {
                push_rooted(&mut location, path);
                head.query.filter(|_| !path.contains('?'))
            }
            RedirectPath::Prefix { from_len, to } => {
                push_rooted(&mut location, to);
                location.push_str(head.path.get(*from_len..).unwrap_or_default());
                head.query
            }
        };
        push_query(&mut location, query);
        location
    }
}

/// The `Location` for a host that is for TLS only: the same URL with https, `Host` verbatim (Envoy:
/// `Utility::createSslRedirectPath`).
#[must_use]
pub fn https_redirect_location(head: &RequestHead<'_>) -> String {
    let mut location = ["https://", head.authority, head.path].concat();
    push_query(&mut location, head.query);
    location
}

/// Why a redirect cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RedirectError {
    /// Not one of the five statuses that redirect.
    Code(u32),
}

impl fmt::Display for RedirectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "redirectCode {code}: use 301, 302, 303, 307 or 308"),
        }
    }
}

impl std::error::Error for RedirectError {}

/// The request's host for a redirect (Envoy: `processRequestHost`): its port goes when another is given, or when it
/// was the default of the scheme that is being left.
fn request_host<'a>(head: &RequestHead<'a>, scheme: &str, other_port: bool) -> &'a str {
    let host = crate::host::without_port(head.authority);
    let port = head.authority.get(host.len()..).unwrap_or_default();
    let leaves = scheme != head.scheme.as_str();
    let default = matches!((head.scheme, port), (Scheme::Http, ":80") | (Scheme::Https, ":443"));
    if other_port || (leaves && default) { host } else { head.authority }
}

/// A path that is written without its slash gets one (asked of Envoy 1.40).
fn push_rooted(location: &mut String, path: &str) {
    if !path.starts_with('/') {
        location.push('/');
    }
    location.push_str(path);
}

fn push_query(location: &mut String, query: Option<&str>) {
    if let Some(query) = query {
        location.push('?');
        location.push_str(query);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: ServerFacts = ServerFacts { port: 80, scheme: Scheme::Http };

    fn any() -> PathMatch {
        PathMatch::Prefix { text: "/".into(), ignore_case: false }
    }

    fn redirect(model: HttpRedirect) -> Redirect {
        Redirect::compile(&model, &any(), PLAIN).unwrap()
    }

    fn to(redirect: &Redirect, scheme: Scheme, authority: &str) -> String {
        let headers = http::HeaderMap::new();
        let head = RequestHead {
            method: "GET",
            scheme,
            authority,
            path: "/p/x",
            query: Some("q=1"),
            headers: &headers,
            claims: None,
        };
        redirect.location(&head)
    }

    fn scheme(s: &str) -> HttpRedirect {
        HttpRedirect { scheme: s.to_owned(), ..HttpRedirect::default() }
    }

    fn port(number: u16) -> Option<config_model::scalar::PortNumber> {
        config_model::scalar::PortNumber::new(number).ok()
    }

    #[test]
    fn codes() {
        let with = |redirect_code| HttpRedirect { redirect_code, ..HttpRedirect::default() };
        assert_eq!(redirect(with(0)).code, 301);
        assert_eq!(redirect(with(308)).code, 308);
        assert_eq!(Redirect::compile(&with(304), &any(), PLAIN), Err(RedirectError::Code(304)));
        assert_eq!(Redirect::compile(&with(65837), &any(), PLAIN), Err(RedirectError::Code(65837)));
    }

    #[test]
    fn the_request_port_stays_unless_it_was_the_default_of_the_scheme_left() {
        let https = redirect(scheme("https"));
        assert_eq!(to(&https, Scheme::Http, "a.com"), "https://a.com/p/x?q=1");
        assert_eq!(to(&https, Scheme::Http, "a.com:80"), "https://a.com/p/x?q=1");
        assert_eq!(to(&https, Scheme::Http, "a.com:8080"), "https://a.com:8080/p/x?q=1");
        assert_eq!(to(&https, Scheme::Https, "a.com:443"), "https://a.com:443/p/x?q=1");
        assert_eq!(to(&https, Scheme::Http, "[::1]:80"), "https://[::1]/p/x?q=1");
        let http = redirect(scheme("http"));
        assert_eq!(to(&http, Scheme::Https, "a.com:443"), "http://a.com/p/x?q=1");
    }

    #[test]
    fn a_default_port_counts_as_unspecified() {
        let default = redirect(HttpRedirect { port: port(443), ..scheme("https") });
        assert_eq!(to(&default, Scheme::Http, "a.com:8080"), "https://a.com:8080/p/x?q=1");
        let other = redirect(HttpRedirect { port: port(8443), ..scheme("https") });
        assert_eq!(to(&other, Scheme::Http, "a.com:8080"), "https://a.com:8443/p/x?q=1");
        assert_eq!(to(&other, Scheme::Http, "[::1]"), "https://[::1]:8443/p/x?q=1");
    }

    #[test]
    fn without_a_scheme_the_server_judges_the_default() {
        let model = HttpRedirect { port: port(443), ..HttpRedirect::default() };
        let tls = ServerFacts { port: 443, scheme: Scheme::Https };
        assert_eq!(Redirect::compile(&model, &any(), tls).unwrap().port, None);
        assert_eq!(redirect(model).port, Some(443));
    }

    #[test]
    fn derived_ports() {
        let derive = |derive_port| HttpRedirect { derive_port: Some(derive_port), ..HttpRedirect::default() };
        let server = ServerFacts { port: 8080, scheme: Scheme::Http };
        let request =
            Redirect::compile(&derive(RedirectPortSelection::FromRequestPort), &any(), server).unwrap();
        assert_eq!(to(&request, Scheme::Http, "a.com"), "http://a.com:8080/p/x?q=1");
        let protocol =
            Redirect::compile(&derive(RedirectPortSelection::FromProtocolDefault), &any(), server).unwrap();
        assert_eq!(to(&protocol, Scheme::Http, "a.com:81"), "http://a.com:81/p/x?q=1");
    }

    #[test]
    fn an_authority_replaces_host_and_port() {
        let model = || HttpRedirect { authority: "b.com".to_owned(), ..HttpRedirect::default() };
        assert_eq!(to(&redirect(model()), Scheme::Http, "a.com:8080"), "http://b.com/p/x?q=1");
        let both = redirect(HttpRedirect { port: port(81), ..model() });
        assert_eq!(to(&both, Scheme::Http, "a.com:8080"), "http://b.com:81/p/x?q=1");
    }

    #[test]
    fn paths_and_queries() {
        let uri = |uri: &str| HttpRedirect { uri: uri.to_owned(), ..HttpRedirect::default() };
        assert_eq!(to(&redirect(uri("/n")), Scheme::Http, "a.com"), "http://a.com/n?q=1");
        assert_eq!(to(&redirect(uri("/n?z")), Scheme::Http, "a.com"), "http://a.com/n?z");
        let model = HttpRedirect { prefix_rewrite: "/n".to_owned(), ..HttpRedirect::default() };
        let prefix = PathMatch::Prefix { text: "/p".into(), ignore_case: false };
        let prefix = Redirect::compile(&model, &prefix, PLAIN).unwrap();
        assert_eq!(to(&prefix, Scheme::Http, "a.com"), "http://a.com/n/x?q=1");
    }

    #[test]
    fn to_https_with_the_host_verbatim() {
        let headers = http::HeaderMap::new();
        let head = RequestHead {
            method: "GET",
            scheme: Scheme::Http,
            authority: "A.com:8080",
            path: "/p",
            query: None,
            headers: &headers,
            claims: None,
        };
        assert_eq!(https_redirect_location(&head), "https://A.com:8080/p");
    }
}
