//! Behaviour as case files: `golden/<case>/config.yaml` is compiled, `golden/<case>/requests.yaml` says what each request
//! gets. A bug fix begins with a case.
//!
//! Invariant: a case says everything it relies on. A finding that rejects, or one that is not expected, fails it; so does
//! an expected cluster that does not exist, unless the case says so.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a case that cannot be read must fail the test")]

use config_model::{
    diagnostic::{Diagnostics, Effect},
    parse::parse,
    set::ResourceSet,
    validate::validate,
};
use routing::{
    action::{redirect::https_redirect_location, rewrite::path_and_query},
    compile::{Compiled, Identity, compile},
    decision::{Decision, NotFound},
    listener::Chains,
    request::{RequestHead, Scheme},
    table::RouteTable,
};
use serde::Deserialize;
use std::{collections::BTreeMap, fmt::Write as _, fs, path::Path, sync::Arc};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    #[serde(default)]
    identity: Who,
    /// Codes of the findings of compilation, sorted; all of them.
    #[serde(default)]
    findings: Vec<String>,
    requests: Vec<Exchange>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct Who {
    namespace: Option<String>,
    labels: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Exchange {
    /// Port of the listener, after translation.
    #[serde(default = "port_80")]
    port: u16,
    /// `https` is a TLS connection, with the server name of `sni`.
    #[serde(default = "plain")]
    scheme: String,
    #[serde(default = "get")]
    method: String,
    #[serde(default)]
    authority: String,
    #[serde(default = "root")]
    path: String,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    sni: Option<String>,
    expect: Expect,
}

#[derive(Deserialize, Default, Debug, PartialEq)]
#[serde(deny_unknown_fields, default)]
struct Expect {
    /// Names of the clusters, in order.
    clusters: Option<Vec<String>>,
    /// Their weights, where there are several.
    weights: Option<Vec<u32>>,
    /// Which of them do not exist: 503 NC.
    missing: Option<Vec<String>>,
    /// How many endpoints each of them has.
    endpoints: Option<Vec<usize>>,
    /// `namespace/name` of the VirtualService and the number of its rule, as in `default/v 0`.
    rule: Option<String>,
    /// The same of the delegate's rule that it was merged with.
    delegate: Option<String>,
    /// Path and query sent upstream.
    upstream_path: Option<String>,
    /// Authority sent upstream.
    upstream_authority: Option<String>,
    timeout_ms: Option<u128>,
    /// `Location`.
    redirect: Option<String>,
    /// Status of a redirect or a fixed reply.
    status: Option<u16>,
    body: Option<String>,
    /// `host` or `route`.
    not_found: Option<String>,
    /// `listener` or `sni`.
    refused: Option<String>,
}

fn port_80() -> u16 {
    80
}

fn plain() -> String {
    "http".into()
}

fn get() -> String {
    "GET".into()
}

fn root() -> String {
    "/".into()
}

fn load(dir: &Path, case: &Case) -> (Compiled, Diagnostics) {
    let text = fs::read_to_string(dir.join("config.yaml")).unwrap();
    let parsed = parse("config.yaml", &text);
    assert!(parsed.failed.is_empty(), "{:?}", parsed.diagnostics);
    let mut set = ResourceSet::new();
    assert!(set.extend(parsed.resources).is_empty(), "a key is there twice");
    let (validated, findings) = validate(set);
    let rejected: Vec<_> =
        findings.iter().filter(|f| f.effect == Effect::Rejected).map(ToString::to_string).collect();
    assert!(rejected.is_empty(), "{rejected:?}");
    let mut identity = Identity::default();
    identity.namespace = case.identity.namespace.clone().unwrap_or(identity.namespace);
    identity.labels = case.identity.labels.clone().unwrap_or(identity.labels);
    compile(&validated, &identity, None)
}

/// What a request gets, as far as the case asks.
fn answer(compiled: &Compiled, request: &Exchange) -> Expect {
    let refused = |what: &str| Expect { refused: Some(what.into()), ..Expect::default() };
    let Some(listener) = compiled.listeners.values().find(|l| l.key.port == request.port) else {
        return refused("listener");
    };
    let table: &RouteTable = match (&listener.chains, request.scheme.as_str()) {
        (Chains::Http(chain), "http") => &chain.table,
        (Chains::Tls(index), "https") => match index.lookup_sni(request.sni.as_deref()) {
            Some(chain) => &chain.table,
            None => return refused("sni"),
        },
        (_, scheme) => panic!("{scheme} to port {}", request.port),
    };
    let mut headers = http::HeaderMap::new();
    for (name, value) in &request.headers {
        headers.append(http::HeaderName::from_bytes(name.as_bytes()).unwrap(), value.parse().unwrap());
    }
    let (path, query) = match request.path.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (request.path.as_str(), None),
    };
    let scheme = if request.scheme == "https" { Scheme::Https } else { Scheme::Http };
    let head = RequestHead {
        method: &request.method,
        scheme,
        authority: &request.authority,
        path,
        query,
        headers: &headers,
        claims: None,
    };
    let want = &request.expect;
    let mut got = Expect::default();
    let decision = table.lookup(&head);
    if let Decision::Forward { route, .. }
    | Decision::Redirect { route, .. }
    | Decision::Reply { route, .. } = &decision
    {
        got.rule =
            want.rule.as_ref().map(|_| format!("{} {}", route.origin.virtual_service, route.origin.index));
        let delegate = route.origin.delegate.as_ref();
        got.delegate = delegate.map(|delegate| format!("{} {}", delegate.virtual_service, delegate.index));
    }
    match decision {
        Decision::Forward { forward, .. } => {
            let clusters: Vec<_> = forward.destinations.iter().map(|d| &d.cluster).collect();
            let missing: Vec<_> = clusters
                .iter()
                .filter(|name| compiled.cluster(name).is_none())
                .map(ToString::to_string)
                .collect();
            got.missing = (!missing.is_empty()).then_some(missing);
            got.endpoints = want.endpoints.as_ref().map(|_| {
                clusters.iter().map(|name| compiled.cluster(name).map_or(0, |c| c.endpoints.len())).collect()
            });
            let many = clusters.len() > 1 || want.weights.is_some();
            got.weights = many.then(|| forward.destinations.iter().map(|d| d.weight).collect());
            got.clusters = Some(clusters.iter().map(ToString::to_string).collect());
            got.upstream_path = want.upstream_path.as_ref().map(|_| {
                let path = forward.rewrite.as_ref().map_or(head.path.into(), |r| r.apply(head.path));
                path_and_query(&path, head.query)
            });
            got.upstream_authority = want.upstream_authority.as_ref().map(|_| {
                let of_headers = forward.destinations.first().and_then(|d| d.headers.authority.as_deref());
                forward.authority.as_deref().or(of_headers).unwrap_or(head.authority).to_owned()
            });
            got.timeout_ms = forward.timeout.map(|timeout| timeout.as_millis());
        }
        Decision::Redirect { redirect, .. } => {
            got.redirect = Some(redirect.location(&head));
            got.status = Some(redirect.code);
        }
        Decision::RequireTls { .. } => {
            got.redirect = Some(https_redirect_location(&head));
            got.status = Some(301);
        }
        Decision::Reply { reply, .. } => {
            got.status = Some(reply.status);
            got.body = want.body.as_ref().map(|_| String::from_utf8_lossy(&reply.body).into_owned());
        }
        Decision::NotFound(NotFound::Host) => got.not_found = Some("host".into()),
        Decision::NotFound(NotFound::Route(_)) => got.not_found = Some("route".into()),
    }
    got
}

/// Compiling a second time over the first must change nothing and share every cluster.
fn recompiles(dir: &Path, case: &Case, first: &Compiled) {
    let text = fs::read_to_string(dir.join("config.yaml")).unwrap();
    let mut set = ResourceSet::new();
    set.extend(parse("config.yaml", &text).resources);
    let (again, _) = compile(&validate(set).0, first.identity(), Some(first));
    for (name, cluster) in &first.clusters {
        assert!(again.cluster(name).is_some_and(|other| Arc::ptr_eq(cluster, other)), "{name}");
    }
    for request in &case.requests {
        assert_eq!(answer(&again, request), request.expect, "after a reload: {}", request.path);
    }
}

#[test]
fn every_case() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let mut dirs: Vec<_> = fs::read_dir(&root).unwrap().map(|entry| entry.unwrap().path()).collect();
    dirs.sort();
    assert!(dirs.len() >= 25, "cases are missing");
    let mut failures = String::new();
    for dir in &dirs {
        let name = dir.file_name().unwrap().to_string_lossy().into_owned();
        let text = fs::read_to_string(dir.join("requests.yaml")).unwrap();
        let case: Case = serde_yaml::from_str(&text).unwrap_or_else(|e| panic!("{name}: {e}"));
        let (compiled, findings) = load(dir, &case);
        let mut codes: Vec<_> = findings.iter().map(|f| f.code.to_string()).collect();
        codes.sort();
        if codes != case.findings {
            let shown: Vec<_> = findings.iter().map(ToString::to_string).collect();
            writeln!(
                failures,
                "{name}: findings {codes:?}, wants {:?}\n  {}",
                case.findings,
                shown.join("\n  ")
            )
            .unwrap();
        }
        let before = failures.len();
        for request in &case.requests {
            let got = answer(&compiled, request);
            if got != request.expect {
                let (method, host, path) = (&request.method, &request.authority, &request.path);
                writeln!(
                    failures,
                    "{name}: {method} {host}{path}\n  wants {:?}\n  got   {got:?}",
                    request.expect
                )
                .unwrap();
            }
        }
        if failures.len() == before {
            recompiles(dir, &case, &compiled);
        }
    }
    assert!(failures.is_empty(), "\n{failures}");
}
