//! Conditions and why they fail, how weights share, and what a route counts.

use super::*;

#[test]
fn requests_are_counted_by_status_and_duration() {
    let taken = Taken::default();
    for (status, bucket) in [(200, 0), (204, 2), (503, 2), (0, 1), (999, 1000)] {
        taken.count(status, bucket);
    }
    assert_eq!(taken.classes(), [1, 0, 2, 0, 0, 2]);
    assert_eq!(taken.durations(3), [1, 2, 4]);
    assert_eq!(taken.durations(BUCKETS).last(), Some(&5), "what is beyond is in the last");
}
use crate::request::Scheme;

fn exact(text: &str) -> StringMatcher {
    StringMatcher::Exact(text.into())
}

fn reason(condition: Condition) -> Option<String> {
    let mut headers = http::HeaderMap::new();
    headers.insert("x-canary", "1".parse().unwrap());
    let head = RequestHead {
        method: "GET",
        scheme: Scheme::Http,
        authority: "foo.com:8080",
        path: "/nope",
        query: Some("k&v=a%20b"),
        headers: &headers,
        claims: None,
    };
    let matcher = RouteMatch { path: PathMatch::Any, conditions: [condition].into() };
    match matcher.evaluate(&head) {
        Outcome::Matches => None,
        Outcome::Fails(failure) => Some(failure.reason(&head)),
    }
}

fn header(name: &str, matcher: StringMatcher) -> Condition {
    Condition::Header { name: HeaderKey::parse(name).unwrap(), matcher }
}

fn without(name: &str, matcher: StringMatcher) -> Condition {
    Condition::NotHeader { name: HeaderKey::parse(name).unwrap(), matcher }
}

fn parameter(key: &str, matcher: StringMatcher) -> Condition {
    Condition::Query { key: key.into(), matcher }
}

#[test]
fn conditions_that_hold() {
    for condition in [
        Condition::Method(exact("GET")),
        Condition::Scheme(exact("http")),
        Condition::Scheme(StringMatcher::Present),
        Condition::Authority(exact("foo.com:8080")),
        header("X-Canary", exact("1")),
        without("x-canary", exact("2")),
        without("x-other", StringMatcher::Present),
        parameter("k", exact("")),
        parameter("k", StringMatcher::Present),
        parameter("v", exact("a%20b")),
    ] {
        let shown = format!("{condition:?}");
        assert_eq!(reason(condition), None, "{shown}");
    }
}

#[test]
fn the_first_failure_says_what_was_wanted() {
    for (condition, want) in [
        (Condition::Method(exact("get")), r#"method: wants exact "get", got "GET""#),
        (Condition::Authority(exact("foo.com")), r#"authority: wants exact "foo.com", got "foo.com:8080""#),
        (header("x-canary", exact("2")), r#"header x-canary: wants exact "2", got "1""#),
        (header("x-other", StringMatcher::Present), "header x-other: wants present, got none"),
        (without("x-canary", exact("1")), r#"header x-canary: wants not exact "1", got "1""#),
        (without("x-canary", StringMatcher::Present), r#"header x-canary: wants absent, got "1""#),
        (parameter("v", exact("a b")), r#"query v: wants exact "a b", got "a%20b""#),
        (parameter("K", StringMatcher::Present), "query K: wants present, got none"),
        (Condition::Never { reason: "no token is validated".into() }, "no token is validated"),
    ] {
        assert_eq!(reason(condition).as_deref(), Some(want));
    }
}

#[test]
fn a_catch_all_has_no_condition() {
    let path = || PathMatch::Prefix { text: "/".into(), ignore_case: false };
    assert!(RouteMatch { path: path(), conditions: [].into() }.is_catch_all());
    let method = [Condition::Method(exact("GET"))];
    assert!(!RouteMatch { path: path(), conditions: method.into() }.is_catch_all());
}

#[test]
fn weights_share_the_whole_range() {
    let destination = |name: &str, weight| Destination {
        cluster: ClusterName::outbound(80, "", name),
        weight,
        headers: Arc::default(),
    };
    let forward = Forward {
        destinations: [destination("a", 1), destination("b", 3)].into(),
        total_weight: 4,
        rewrite: None,
        authority: None,
        timeout: None,
        retry: None,
        filters: None,
    };
    let at = |entropy| forward.pick(entropy).unwrap().cluster.as_str().to_owned();
    assert_eq!(at(0), "outbound|80||a");
    assert_eq!(at(u64::MAX / 4), "outbound|80||a");
    assert_eq!(at(u64::MAX / 4 + 1), "outbound|80||b");
    assert_eq!(at(u64::MAX), "outbound|80||b");
}

#[test]
fn one_destination_takes_all_whatever_its_weight() {
    let only =
        Destination { cluster: ClusterName::outbound(80, "", "a"), weight: 0, headers: Arc::default() };
    let mut forward = Forward {
        destinations: [only].into(),
        total_weight: 0,
        rewrite: None,
        authority: None,
        timeout: None,
        retry: None,
        filters: None,
    };
    assert!(forward.pick(7).is_some());
    forward.destinations = [].into();
    assert!(forward.pick(7).is_none());
}
