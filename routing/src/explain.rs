//! Why a request gets the route it gets, and why each other route lost.
//!
//! Invariant: the answer comes from the hot path's own lookup and matcher; nothing is decided a second time here.

use crate::{
    request::{RequestHead, Scheme},
    route::{Outcome, RouteOrigin},
    table::{RouteTable, VirtualHost},
};
use std::sync::Arc;

/// What a lookup looked at.
#[derive(Clone, Debug)]
pub struct Explanation {
    /// Virtual host that took the request; `None`: no domain fits.
    pub host: Option<Arc<VirtualHost>>,
    /// Whether the host sends the request to https before any route; then no candidate is chosen.
    pub requires_tls: bool,
    /// Every route of the host, in the order in which they are tried.
    pub candidates: Vec<Candidate>,
    /// The candidate that was taken.
    pub chosen: Option<usize>,
    /// Candidates that match too, but stand after the chosen one.
    pub shadowed: Vec<usize>,
}

/// One route as the request met it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Where it stands in the configuration.
    pub origin: RouteOrigin,
    /// Whether all its conditions hold.
    pub matched: bool,
    /// Why it was taken or not, in one line.
    pub reason: String,
}

/// Explains a lookup. Slow, and allocates: for people, not for requests.
#[must_use]
pub fn explain(table: &RouteTable, head: &RequestHead<'_>) -> Explanation {
    let Some(host) = table.host(head.authority) else {
        return Explanation {
            host: None,
            requires_tls: false,
            candidates: Vec::new(),
            chosen: None,
            shadowed: Vec::new(),
        };
    };
    let requires_tls = host.require_tls() && head.scheme == Scheme::Http;
    let found = if requires_tls { None } else { host.find(head) };
    let chosen = found.and_then(|found| host.routes().iter().position(|route| Arc::ptr_eq(route, found)));
    let mut shadowed = Vec::new();
    let mut candidates = Vec::with_capacity(host.routes().len());
    for (index, route) in host.routes().iter().enumerate() {
        let (matched, reason) = match route.matcher.evaluate(head) {
            Outcome::Fails(failure) => (false, failure.reason(head)),
            Outcome::Matches if requires_tls => {
                (true, "matches, but the host requires https first".to_owned())
            }
            Outcome::Matches if chosen == Some(index) => (true, "first route that matches".to_owned()),
            Outcome::Matches => {
                shadowed.push(index);
                let first = chosen.and_then(|chosen| host.routes().get(chosen));
                let first = first.map_or_else(String::new, |first| first.origin.to_string());
                (true, format!("matches, but {first} stands before it"))
            }
        };
        candidates.push(Candidate { origin: route.origin.clone(), matched, reason });
    }
    Explanation { host: Some(Arc::clone(host)), requires_tls, candidates, chosen, shadowed }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        action::reply::DirectReply,
        header::HeaderKey,
        matcher::StringMatcher,
        path::PathMatch,
        route::{Action, Condition, Route, RouteMatch},
    };

    fn route(index: u32, prefix: &str, conditions: Vec<Condition>) -> Arc<Route> {
        Arc::new(Route {
            origin: RouteOrigin {
                virtual_service: "default/shop".into(),
                name: None,
                index,
                match_index: 0,
                delegate: None,
                metadata: Arc::default(),
            },
            matcher: RouteMatch {
                path: PathMatch::Prefix { text: prefix.into(), ignore_case: false },
                conditions: conditions.into(),
            },
            action: Action::Reply(DirectReply { status: 200, body: [].into() }),
            response_headers: Default::default(),
            taken: Default::default(),
            operation: Default::default(),
        })
    }

    fn explained(require_tls: bool, authority: &str) -> Explanation {
        let canary = Condition::Header {
            name: HeaderKey::parse("x-canary").unwrap(),
            matcher: StringMatcher::Exact("2".into()),
        };
        let routes = vec![
            route(0, "/api", vec![]),
            route(1, "/", vec![canary]),
            route(2, "/nope", vec![]),
            route(3, "/", vec![]),
        ];
        let host = Arc::new(VirtualHost::new("a.com:80", "a.com", require_tls, routes));
        let table = RouteTable::new("http.80", [host]);
        let mut headers = http::HeaderMap::new();
        headers.insert("x-canary", http::HeaderValue::from_static("1"));
        explain(
            &table,
            &RequestHead {
                method: "GET",
                scheme: Scheme::Http,
                authority,
                path: "/nope",
                query: None,
                headers: &headers,
                claims: None,
            },
        )
    }

    #[test]
    fn every_candidate_has_a_reason() {
        let got = explained(false, "a.com");
        let reasons: Vec<_> = got.candidates.iter().map(|c| c.reason.as_str()).collect();
        assert_eq!(
            reasons,
            [
                r#"path: wants prefix "/api", got "/nope""#,
                r#"header x-canary: wants exact "2", got "1""#,
                "first route that matches",
                "matches, but default/shop http[2] stands before it",
            ]
        );
        assert_eq!((got.chosen, got.shadowed.as_slice()), (Some(2), &[3][..]));
    }

    #[test]
    fn tls_comes_first() {
        let got = explained(true, "a.com");
        assert!(got.requires_tls);
        assert_eq!(got.chosen, None);
        assert!(got.candidates[3].matched);
    }

    #[test]
    fn no_host_no_candidates() {
        let got = explained(false, "b.com");
        assert!(got.host.is_none() && got.candidates.is_empty());
    }
}
