//! What one condition of a rule costs, of each kind, and one plan of header operations.

use config_model::scalar::StringMatch;
use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use http::{HeaderMap, HeaderName, HeaderValue};
use routing::{
    action::headers::{Direction, HeaderOps, HeaderText, NoFacts},
    header::HeaderKey,
    host::HostIndex,
    matcher::StringMatcher,
    path::PathMatch,
    request::{RequestHead, Scheme},
    route::{Condition, Outcome, RouteMatch},
};
use std::hint::black_box;

fn headers() -> HeaderMap {
    [
        ("user-agent", "Mozilla/5.0 (X11; Linux x86_64)"),
        ("accept", "text/html,application/xhtml+xml"),
        ("cookie", "session=abcdef; user=jason; theme=dark"),
        ("x-tenant", "acme"),
    ]
    .into_iter()
    .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
    .collect()
}

fn head(headers: &HeaderMap) -> RequestHead<'_> {
    RequestHead {
        method: "GET",
        scheme: Scheme::Http,
        authority: "shop.example.com",
        path: "/shop/items/12345",
        query: Some("sort=price&page=12"),
        headers,
        claims: None,
    }
}

fn exact(text: &str) -> StringMatcher {
    StringMatcher::Exact(text.into())
}

fn regex(text: &str) -> Option<StringMatcher> {
    StringMatcher::compile(&StringMatch::Regex(text.into())).ok()
}

fn header(name: &str, matcher: StringMatcher) -> Option<RouteMatch> {
    condition(Condition::Header { name: HeaderKey::parse(name)?, matcher })
}

fn query(matcher: StringMatcher) -> Option<RouteMatch> {
    condition(Condition::Query { key: "page".into(), matcher })
}

fn condition(condition: Condition) -> Option<RouteMatch> {
    Some(RouteMatch { path: PathMatch::Any, conditions: [condition].into() })
}

fn path(matcher: StringMatch, ignore_case: bool) -> Option<RouteMatch> {
    let path = PathMatch::compile(Some(&matcher), ignore_case).ok()?;
    Some(RouteMatch { path, conditions: [].into() })
}

fn conditions(criterion: &mut Criterion) {
    let headers = headers();
    let head = head(&headers);
    let mut group = criterion.benchmark_group("matcher");
    for (name, matcher) in [
        ("path exact", path(StringMatch::Exact("/shop/items/12345".into()), false)),
        ("path prefix", path(StringMatch::Prefix("/shop/items/".into()), false)),
        ("path prefix, any case", path(StringMatch::Prefix("/SHOP/items/".into()), true)),
        ("path regex", path(StringMatch::Regex("/[a-z]+/items/[0-9]+".into()), false)),
        ("method exact", condition(Condition::Method(exact("GET")))),
        ("header exact", header("x-tenant", exact("acme"))),
        ("header present", header("x-tenant", StringMatcher::Present)),
        ("header regex", regex("(.*; )?user=[a-z]+(;.*)?").and_then(|regex| header("cookie", regex))),
        ("query exact", query(exact("12"))),
        ("query regex", regex("[0-9]+").and_then(query)),
    ] {
        let matches = |matcher: &RouteMatch| matches!(matcher.evaluate(&head), Outcome::Matches);
        assert!(matcher.as_ref().is_some_and(matches), "{name}");
        group.bench_function(name, |b| {
            b.iter(|| black_box(black_box(&matcher).as_ref().map(|matcher| matcher.evaluate(&head))));
        });
    }
    group.finish();
}

fn hosts(criterion: &mut Criterion) {
    let mut index = HostIndex::new();
    for n in 0..10_000 {
        index.insert(&format!("host-{n}.example.com"), n);
        index.insert(&format!("*.wild-{n}.example.com"), n);
    }
    index.insert("*", 0);
    let mut group = criterion.benchmark_group("host of 20,000");
    for (name, host) in [
        ("exact", "host-9999.example.com"),
        ("wildcard", "a.b.wild-9999.example.com"),
        ("none", "nobody.example.org"),
    ] {
        group.bench_function(name, |b| b.iter(|| black_box(index.lookup(black_box(host)))));
    }
    group.finish();
}

fn plans(criterion: &mut Criterion) {
    let values = |pairs: &[(&'static str, &str)]| -> Box<[(HeaderName, HeaderText)]> {
        let value = |text| HeaderText::parse(text).ok().flatten();
        pairs.iter().filter_map(|(name, text)| Some((HeaderName::from_static(name), value(text)?))).collect()
    };
    let plan = |set: &[(&'static str, &str)]| HeaderOps { set: values(set), ..HeaderOps::default() };
    let remove = HeaderOps { remove: [HeaderName::from_static("cookie")].into(), ..HeaderOps::default() };
    let add = HeaderOps { add: values(&[("x-hop", "1")]), ..HeaderOps::default() };
    let mut group = criterion.benchmark_group("headers");
    for (name, plan) in [
        ("remove one", remove),
        ("set one", plan(&[("x-env", "production")])),
        ("add one", add),
        ("set four", plan(&[("x-a", "1"), ("x-b", "2"), ("x-c", "3"), ("x-d", "4")])),
        ("set from the path", plan(&[("x-path", "%REQ(:path)%")])),
        ("set from a header", plan(&[("x-of", "%REQ(x-tenant)%")])),
    ] {
        assert!(!plan.is_empty(), "{name}");
        group.bench_function(name, |b| {
            b.iter_batched_ref(
                headers,
                |headers| black_box(&plan).apply(headers, Direction::Request, &NoFacts),
                BatchSize::SmallInput,
            );
        });
    }
    group.finish();
}

criterion_group!(benches, conditions, hosts, plans);
criterion_main!(benches);
