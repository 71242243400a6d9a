//! The index is an optimisation and nothing else: over random tables and requests it gives what a plain scan of the
//! list gives, and `explain` names the same route.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "helpers of tests; a panic is the failure")]

use proptest::prelude::*;
use routing::{
    action::reply::DirectReply,
    claims::{Claim, ClaimPath, Claims},
    decision::{Decision, NotFound},
    explain::explain,
    header::HeaderKey,
    matcher::{Pattern, StringMatcher},
    path::PathMatch,
    precedence,
    request::{RequestHead, Scheme},
    route::{Action, Condition, Outcome, Route, RouteMatch, RouteOrigin},
    table::{RouteTable, VirtualHost},
};
use std::sync::Arc;

/// Few letters, so that paths share beginnings and differ in case.
fn path() -> impl Strategy<Value = String> {
    prop_oneof![
        9 => prop::collection::vec(prop::sample::select(vec!["/", "a", "A", "b", "é"]), 0..7)
            .prop_map(|parts| format!("/{}", parts.concat())),
        1 => prop::sample::select(vec!["", "*", "a"]).prop_map(str::to_owned),
    ]
}

fn path_match() -> impl Strategy<Value = PathMatch> {
    let regexes = vec![".*", "/a+", "/(a|b)*", "/[ab]/.*", ".*b", "/a/?", "(?i)/ab.*", "", r"/\w"];
    prop_oneof![
        1 => Just(PathMatch::Any),
        4 => (path(), any::<bool>()).prop_map(|(text, ignore_case)| PathMatch::Exact { text: text.into(), ignore_case }),
        6 => (path(), any::<bool>()).prop_map(|(text, ignore_case)| PathMatch::Prefix { text: text.into(), ignore_case }),
        3 => prop::sample::select(regexes).prop_map(|text| PathMatch::Regex(Pattern::new(text).unwrap())),
    ]
}

fn string_matcher() -> impl Strategy<Value = StringMatcher> {
    prop_oneof![
        Just(StringMatcher::Present),
        prop::sample::select(vec!["", "1", "2", "GET"]).prop_map(|text| StringMatcher::Exact(text.into())),
        prop::sample::select(vec!["", "1", "P"]).prop_map(|text| StringMatcher::Prefix(text.into())),
        prop::sample::select(vec![".*", "[0-9]+", "G.T"])
            .prop_map(|text| StringMatcher::Regex(Pattern::new(text).unwrap())),
    ]
}

fn condition() -> impl Strategy<Value = Condition> {
    let key = || {
        prop::sample::select(vec!["x-a", "x-b", "cookie", "accept", ":path", ":authority", ":status"])
            .prop_map(|key| HeaderKey::parse(key).unwrap())
    };
    let claim = || {
        prop::sample::select(vec!["@request.auth.claims.a", "@request.auth.claims[b][c]"])
            .prop_map(|key| ClaimPath::parse(key).unwrap())
    };
    prop_oneof![
        string_matcher().prop_map(Condition::Method),
        string_matcher().prop_map(Condition::Scheme),
        string_matcher().prop_map(Condition::Authority),
        (claim(), string_matcher()).prop_map(|(path, matcher)| Condition::Claim { path, matcher }),
        (claim(), string_matcher()).prop_map(|(path, matcher)| Condition::NotClaim { path, matcher }),
        (key(), string_matcher()).prop_map(|(name, matcher)| Condition::Header { name, matcher }),
        (key(), string_matcher()).prop_map(|(name, matcher)| Condition::NotHeader { name, matcher }),
        (prop::sample::select(vec!["k", "l"]), string_matcher())
            .prop_map(|(key, matcher)| Condition::Query { key: key.into(), matcher }),
        Just(Condition::Never { reason: "never".into() }),
    ]
}

fn route() -> impl Strategy<Value = Route> {
    let conditions = prop_oneof![
        3 => Just(Vec::new()),
        1 => prop::collection::vec(condition(), 1..3),
    ];
    (path_match(), conditions).prop_map(|(path, conditions)| Route {
        origin: RouteOrigin {
            virtual_service: "default/random".into(),
            name: None,
            index: 0,
            match_index: 0,
            delegate: None,
            metadata: Arc::default(),
        },
        matcher: RouteMatch { path, conditions: conditions.into() },
        action: Action::Reply(DirectReply { status: 200, body: [].into() }),
        response_headers: Default::default(),
        taken: Arc::default(),
        operation: Default::default(),
    })
}

const DOMAINS: [&str; 7] = ["*", "*.com", "*.a.com", "a.com", "b.a.com", "*.b.a.com", "[::1]"];

#[derive(Debug)]
struct Table {
    hosts: Vec<Arc<VirtualHost>>,
    table: RouteTable,
}

fn table() -> impl Strategy<Value = Table> {
    let host = (any::<bool>(), prop::collection::vec(route(), 0..24));
    let hosts = prop::collection::btree_map(prop::sample::select(DOMAINS.to_vec()), host, 0..5);
    hosts.prop_map(|hosts| {
        let hosts: Vec<_> = hosts
            .into_iter()
            .map(|(domain, (tls, routes))| {
                let routes = routes.into_iter().map(Arc::new).collect();
                Arc::new(VirtualHost::new(format!("{domain}:80"), domain, tls, routes))
            })
            .collect();
        let table = RouteTable::new("http.80", hosts.iter().cloned());
        Table { hosts, table }
    })
}

#[derive(Clone, Debug)]
struct Request {
    method: &'static str,
    scheme: Scheme,
    authority: &'static str,
    path: String,
    query: Option<&'static str>,
    headers: http::HeaderMap,
    claims: Option<Claims>,
}

impl Request {
    fn head(&self) -> RequestHead<'_> {
        RequestHead {
            method: self.method,
            scheme: self.scheme,
            authority: self.authority,
            path: &self.path,
            query: self.query,
            headers: &self.headers,
            claims: self.claims.as_ref(),
        }
    }
}

fn claims() -> impl Strategy<Value = Option<Claims>> {
    let text = || prop::sample::select(vec!["", "1", "2", "GET"]).prop_map(|text| Claim::Text(text.into()));
    let value = prop_oneof![
        text(),
        Just(Claim::Other),
        prop::collection::vec(text(), 0..3).prop_map(|list| Claim::List(list.into())),
    ];
    let claims = (value.clone(), value).prop_map(|(a, c)| {
        let inner = Claim::Object([("c".into(), c)].into());
        Claims::new([("a".into(), a), ("b".into(), inner)].into())
    });
    prop::option::of(claims)
}

fn request() -> impl Strategy<Value = Request> {
    let authorities =
        vec!["a.com", "A.com:80", "b.a.com", "c.b.a.com", "x.com", "com", "[::1]:80", "", ".a.com", "x.org"];
    let headers = prop::collection::vec(
        (
            prop::sample::select(vec!["x-a", "x-b", "cookie", "accept"]),
            prop::sample::select(vec!["", "1", "2"]),
        ),
        0..4,
    );
    (
        prop::sample::select(vec!["GET", "POST"]),
        prop_oneof![Just(Scheme::Http), Just(Scheme::Https), Just(Scheme::Https)],
        prop::sample::select(authorities),
        path(),
        prop::sample::select(vec![None, Some(""), Some("k=1"), Some("l&k=2&k=1")]),
        headers,
        claims(),
    )
        .prop_map(|(method, scheme, authority, path, query, pairs, claims)| {
            let mut headers = http::HeaderMap::new();
            for (name, value) in pairs {
                headers.append(name, http::HeaderValue::from_static(value));
            }
            Request { method, scheme, authority, path, query, headers, claims }
        })
}

/// The host by the rule as it reads: exact, then the longest wildcard, then `*`.
fn scan_hosts<'t>(hosts: &'t [Arc<VirtualHost>], authority: &str) -> Option<&'t Arc<VirtualHost>> {
    let name = authority.to_ascii_lowercase();
    let name = match name.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => host.to_owned(),
        _ => name,
    };
    let fits = |host: &&Arc<VirtualHost>| match host.domain().strip_prefix('*') {
        Some(suffix) => suffix.is_empty() || (name.len() > suffix.len() && name.ends_with(suffix)),
        None => **host.domain() == *name,
    };
    let rank = |host: &&Arc<VirtualHost>| (!host.domain().starts_with('*'), host.domain().len());
    hosts.iter().filter(fits).max_by_key(rank)
}

fn scan<'t>(host: &'t VirtualHost, head: &RequestHead<'_>) -> Option<&'t Arc<Route>> {
    host.routes().iter().find(|route| matches!(route.matcher.evaluate(head), Outcome::Matches))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_index_gives_what_a_scan_gives(table in table(), requests in prop::collection::vec(request(), 1..24)) {
        for request in &requests {
            let head = request.head();
            let decision = table.table.lookup(&head);
            let explained = explain(&table.table, &head);
            let Some(want) = scan_hosts(&table.hosts, request.authority) else {
                prop_assert!(matches!(decision, Decision::NotFound(NotFound::Host)), "{request:?}");
                prop_assert!(explained.host.is_none());
                continue;
            };
            prop_assert!(explained.host.as_ref().is_some_and(|host| Arc::ptr_eq(host, want)));
            if want.require_tls() && request.scheme == Scheme::Http {
                let redirected = matches!(decision, Decision::RequireTls { host } if Arc::ptr_eq(host, want));
                prop_assert!(redirected, "{decision:?}");
                prop_assert_eq!(explained.chosen, None);
                continue;
            }
            let explained = explained.chosen.map(|at| &want.routes()[at]);
            match (scan(want, &head), decision) {
                (None, Decision::NotFound(NotFound::Route(host))) => {
                    prop_assert!(Arc::ptr_eq(host, want));
                    prop_assert!(explained.is_none());
                }
                (Some(first), Decision::Reply { host, route, .. }) => {
                    prop_assert!(Arc::ptr_eq(host, want));
                    prop_assert!(Arc::ptr_eq(route, first), "{:?} is not {:?}", route.matcher, first.matcher);
                    prop_assert!(explained.is_some_and(|route| Arc::ptr_eq(route, first)));
                }
                (first, got) => prop_assert!(false, "{request:?}: wants {first:?}, got {got:?}"),
            }
        }
    }

    #[test]
    fn order_moves_catch_alls_and_nothing_else(lists in prop::collection::vec(prop::collection::vec(route(), 0..8), 0..5)) {
        let cut: Vec<Route> = lists
            .iter()
            .flat_map(|list| {
                let end = list.iter().position(|r| r.matcher.is_catch_all()).map_or(list.len(), |at| at + 1);
                list[..end].to_vec()
            })
            .collect();
        let (last, first): (Vec<_>, Vec<_>) = cut.into_iter().partition(|r| r.matcher.is_catch_all());
        let shown = |routes: &[Route]| routes.iter().map(|r| format!("{:?}", r.matcher)).collect::<Vec<_>>();
        prop_assert_eq!(shown(&precedence::order(lists)), [shown(&first), shown(&last)].concat());
    }
}
