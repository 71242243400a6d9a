//! From a request's head to its decision, and from a cluster to an endpoint, nothing is allocated.
//!
//! Regex engines build their states as they first meet an input; each case is therefore run once before it is counted.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests; a panic is the failure")]

use config_model::{diagnostic::Effect, parse::parse, set::ResourceSet, validate::validate};
use routing::{
    action::reply::DirectReply,
    authz::{Connection, Facts, Peer, Verdict},
    balance::{self, EndpointSet, LoadView, Turn, configured},
    claims::{Claim, ClaimPath, Claims},
    cluster::{Address, Endpoint, LbPolicy},
    compile::{Identity, compile},
    decision::{Decision, NotFound},
    header::HeaderKey,
    matcher::{Pattern, StringMatcher},
    path::PathMatch,
    request::{RequestHead, Scheme},
    route::{Action, Condition, Route, RouteMatch, RouteOrigin},
    table::{RouteTable, VirtualHost},
};
use std::sync::Arc;

fn route(name: String, path: PathMatch, conditions: Vec<Condition>) -> Arc<Route> {
    Arc::new(Route {
        origin: RouteOrigin {
            virtual_service: name.into(),
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

fn prefix(text: &str) -> PathMatch {
    PathMatch::Prefix { text: text.into(), ignore_case: false }
}

fn regex(text: &str) -> Pattern {
    Pattern::new(text).unwrap()
}

fn header(name: &str, matcher: StringMatcher) -> Condition {
    Condition::Header { name: HeaderKey::parse(name).unwrap(), matcher }
}

/// A thousand hosts; one of them with every kind of path and condition, and prefixes nested a hundred deep.
fn table() -> RouteTable {
    let mut hosts: Vec<_> = (0..1000)
        .map(|n| {
            let routes =
                (0..5).map(|r| route(format!("h{n}-{r}"), prefix(&format!("/r{r}")), vec![])).collect();
            Arc::new(VirtualHost::new(format!("h{n}.com:80"), format!("h{n}.com"), false, routes))
        })
        .collect();
    let mut routes = vec![
        route("joined".into(), prefix("/"), vec![header("x-many", StringMatcher::Regex(regex("1,2,9")))]),
        route(
            "query".into(),
            prefix("/"),
            vec![Condition::Query { key: "q".into(), matcher: StringMatcher::Regex(regex("[0-9]+")) }],
        ),
        route("whole".into(), prefix("/"), vec![header(":path", StringMatcher::Regex(regex(r"/w\?a=.*")))]),
        route(
            "without".into(),
            PathMatch::Any,
            vec![Condition::NotHeader {
                name: HeaderKey::parse("x-many").unwrap(),
                matcher: StringMatcher::Present,
            }],
        ),
        route(
            "cookie".into(),
            prefix("/k"),
            vec![header("cookie", StringMatcher::Regex(regex("(.*; )?user=jason(;.*)?")))],
        ),
        route(
            "claim".into(),
            prefix("/c"),
            vec![
                Condition::Claim {
                    path: ClaimPath::parse("@request.auth.claims[org][groups]").unwrap(),
                    matcher: StringMatcher::Exact("admin".into()),
                },
                Condition::NotClaim {
                    path: ClaimPath::parse("@request.auth.claims.banned").unwrap(),
                    matcher: StringMatcher::Present,
                },
            ],
        ),
        route("exact".into(), PathMatch::Exact { text: "/Exact".into(), ignore_case: true }, vec![]),
        route("regex-a".into(), PathMatch::Regex(regex("/users/[^/]+")), vec![]),
        route("regex-b".into(), PathMatch::Regex(regex(r"/img/.*\.(png|jpg)")), vec![]),
    ];
    routes.extend((1..100).rev().map(|n| route(format!("deep-{n}"), prefix(&"/d".repeat(n)), vec![])));
    hosts.push(Arc::new(VirtualHost::new("*.wild.com:80", "*.wild.com", false, routes)));
    RouteTable::new("http.80", hosts)
}

#[test]
fn a_lookup_allocates_nothing() {
    let table = table();
    let mut many = http::HeaderMap::new();
    for value in ["1", "2"] {
        many.append("x-many", http::HeaderValue::from_static(value));
    }
    for crumb in ["session=1", "user=jason", "theme=dark"] {
        many.append("cookie", http::HeaderValue::from_static(crumb));
    }
    let groups = Claim::List([Claim::Text("dev".into()), Claim::Text("admin".into())].into());
    let claims = Claims::new([("org".into(), Claim::Object([("groups".into(), groups)].into()))].into());
    let deep = "/d".repeat(200);
    let long = format!("{}.wild.com", "x".repeat(300));
    let labels = format!("{}wild.com", "a.".repeat(100));
    let cases = [
        ("H999.com:8080", "/r4/x", None, "h999-4"),
        ("h0.com", "/nope", None, "no route"),
        ("nope.org", "/", None, "no host"),
        (&long, "/", None, "no host"),
        (&labels, "/exact", None, "exact"),
        ("a.wild.com", "/users/7", None, "regex-a"),
        ("a.wild.com", "/img/a/b.png", None, "regex-b"),
        ("a.wild.com", "/img/a/b.gif", None, "no route"),
        ("a.wild.com", "/x", Some("p=&q=12"), "query"),
        ("a.wild.com", "/w", Some("a=b"), "whole"),
        ("a.wild.com", "/k", None, "cookie"),
        ("a.wild.com", "/c", None, "claim"),
        ("a.wild.com", &deep, None, "deep-99"),
    ];
    for (authority, path, query, want) in cases {
        let head = RequestHead {
            method: "GET",
            scheme: Scheme::Http,
            authority,
            path,
            query,
            headers: &many,
            claims: Some(&claims),
        };
        let found = || match table.lookup(&head) {
            Decision::Reply { route, .. } => &*route.origin.virtual_service,
            Decision::NotFound(NotFound::Host) => "no host",
            Decision::NotFound(NotFound::Route(_)) => "no route",
            other => panic!("{other:?}"),
        };
        assert_eq!(found(), want, "{authority}{path}");
        let counted = allocation_counter::measure(|| {
            for _ in 0..10 {
                assert_eq!(found(), want);
            }
        });
        assert_eq!(counted.count_total, 0, "{authority}{path}");
    }
}

struct Idle;

impl LoadView for Idle {
    fn active(&self, index: usize) -> u32 {
        index as u32
    }
}

#[test]
fn a_pick_allocates_nothing() {
    for weights in [[1, 1, 1], [1, 2, 3]] {
        let endpoints = weights
            .map(|weight| Endpoint { weight, ..Endpoint::at(Address::Ip(([127, 0, 0, 1], 80).into())) });
        for policy in [
            LbPolicy::LeastRequest,
            LbPolicy::RoundRobin,
            LbPolicy::Random,
            LbPolicy::RingHash { minimum: 1024 },
            LbPolicy::Maglev { size: 251 },
        ] {
            let set = EndpointSet::build(policy, 0, &endpoints, |_, endpoint| configured(endpoint));
            let counted = allocation_counter::measure(|| {
                for cursor in 0..10 {
                    let turn = Turn { cursor, hash: Some(cursor << 50), attempt: 0 };
                    assert!(balance::pick(policy, &set, &Idle, &mut || cursor << 60, turn).is_some());
                }
            });
            assert_eq!(counted.count_total, 0, "{policy:?}");
        }
    }
}

/// Policies with every kind of comparison, none of which lets the request in or refuses it.
const POLICIES: &str = r#"
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: d, namespace: istio-system}
spec:
  action: DENY
  rules:
  - from: [{source: {principals: ["*/sa/a", "td/*"], namespaces: ["x*y"], ipBlocks: [10.0.0.0/8]}}, {source: {serviceAccounts: [n/a]}}]
  - from: [{source: {notPrincipals: ["*"], trustDomains: ["a*"]}}]
  - from: [{source: {requestPrincipals: ["*/nobody", "iss/*x"]}}]
  - to: [{operation: {hosts: ["*.org", "a.com"], paths: ["/x*", "*.png", "/a/{*}/b/{**}"], methods: [PUT], ports: ["81"]}}]
  - to: [{operation: {notPaths: ["/*"]}}]
  - when:
    - {key: "request.headers[x-many]", values: ["9*"]}
    - {key: "request.headers[:path]", notValues: ["/nothing"]}
  - when: [{key: "request.auth.claims[groups]", values: [none]}]
  - when: [{key: connection.sni, values: ["*.org"]}, {key: remote.ip, values: ["::/0"]}]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: a, namespace: istio-system}
spec: {rules: [{to: [{operation: {paths: ["/never"]}}]}]}
"#;

#[test]
fn policies_allocate_nothing() {
    let mut set = ResourceSet::new();
    set.extend(parse("policies.yaml", POLICIES).resources);
    let (validated, findings) = validate(set);
    assert!(findings.iter().all(|finding| finding.effect == Effect::Served), "{findings:?}");
    let (compiled, _) = compile(&validated, &Identity::default());
    let mut headers = http::HeaderMap::new();
    headers.append("x-many", "1".parse().unwrap());
    headers.append("x-many", "2".parse().unwrap());
    let groups = Claim::List([Claim::Text("a".into()), Claim::Other].into());
    let claims = Claims::new([("groups".into(), groups), ("iss".into(), Claim::Text("iss".into()))].into());
    let head = RequestHead {
        method: "GET",
        scheme: Scheme::Https,
        authority: "x.com",
        path: "/a/b/c",
        query: Some("q=1"),
        headers: &headers,
        claims: Some(&claims),
    };
    let uris = ["spiffe://other/ns/xz/sa/b".to_owned()];
    let connection = Connection {
        peer: Some(Peer { uris: &uris, dns: &[], subject: "CN=b" }),
        source: Some([192, 0, 2, 1].into()),
        remote: Some([192, 0, 2, 2].into()),
        destination: None,
        port: 443,
        sni: Some("x.com"),
    };
    let facts = Facts { connection: &connection, request: Some(&head) };
    let policies = &compiled.authorization.http;
    let ask =
        || policies.provider(&facts).is_ok() && policies.decide(&facts).verdict == Verdict::Denied(None);
    assert!(ask(), "{:?}", policies.decide(&facts));
    assert_eq!(allocation_counter::measure(|| assert!(ask())).count_total, 0);
}

#[test]
fn the_counter_counts() {
    assert!(allocation_counter::measure(|| drop(std::hint::black_box(vec![0_u8; 64]))).count_total > 0);
}
