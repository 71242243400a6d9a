//! Where tokens are looked for, and what becomes of requests with and without them.

use super::*;
use crate::request::Scheme;
use std::borrow::Cow;

fn rule(issuer: &str, places: Places) -> TokenRule {
    TokenRule {
        policy: "a/b".into(),
        issuer: issuer.into(),
        audiences: Audiences::default(),
        keys: KeySource::Inline("".into()),
        timeout: Duration::from_secs(5),
        required: false,
        forward: false,
        payload_header: None,
        claim_headers: Box::default(),
        space_delimited: Box::default(),
        places,
    }
}

fn anywhere() -> Places {
    Places::new(Vec::new(), Vec::new(), Vec::new())
}

fn in_header(name: &'static str, prefix: &str) -> Places {
    Places::new(vec![(HeaderName::from_static(name), prefix.into())], Vec::new(), Vec::new())
}

fn with<R>(headers: &[(&str, &str)], query: Option<&str>, test: impl FnOnce(&RequestHead<'_>) -> R) -> R {
    let mut map = http::HeaderMap::new();
    for (name, value) in headers {
        map.append(HeaderName::from_bytes(name.as_bytes()).unwrap(), value.parse().unwrap());
    }
    test(&RequestHead {
        method: "GET",
        scheme: Scheme::Http,
        authority: "a.com",
        path: "/",
        query,
        headers: &map,
        claims: None,
    })
}

fn found(places: &Places, headers: &[(&str, &str)], query: Option<&str>) -> Vec<String> {
    with(headers, query, |head| places.tokens(head).iter().map(|token| token.text.to_string()).collect())
}

#[test]
fn tokens_stand_where_bearers_put_them() {
    let places = anywhere();
    let header = |value: &str| found(&places, &[("authorization", value)], None);
    assert_eq!(header("Bearer a.b.c"), ["a.b.c"]);
    assert_eq!(header("x Bearer  \"a.b.c"), ["a.b.c"]);
    assert_eq!(header("Bearer !"), ["Bearer !"]);
    for none in ["bearer a", "a.b.c", "Basic x", "Bearer"] {
        assert_eq!(header(none), [""; 0], "{none}");
    }
    let twice = [("authorization", "Bearer a"), ("authorization", "Bearer b")];
    assert_eq!(found(&places, &twice, None), ["a,Bearer b"]);
    assert_eq!(found(&places, &[], Some("x=1&access_token=a%2Eb&access_token=c")), ["a.b"]);
    assert_eq!(found(&places, &[("authorization", "Bearer a")], Some("access_token")), ["a", ""]);
}

#[test]
fn named_places_take_the_place_of_the_usual_ones() {
    let places = in_header("x-t", "");
    assert_eq!(
        found(&places, &[("x-t", "a"), ("x-t", "b"), ("authorization", "Bearer c")], None),
        ["a", "b"]
    );
    let places = Places::new(Vec::new(), Vec::new(), vec!["c".into(), "c".into()]);
    let cookies = [("cookie", "a=b; c=\"one\"; c=two"), ("cookie", "c=three")];
    assert_eq!(found(&places, &cookies, Some("access_token=x")), ["one"]);
    assert_eq!(found(&places, &[("cookie", "cc=x")], None), [""; 0]);
}

#[test]
fn a_parameter_is_taken_out_and_the_others_stay() {
    assert_eq!(without_parameter("a=%20b&t=x&c&t=y", "t").as_deref(), Some("a=%20b&c"));
    assert_eq!(without_parameter("%74=x", "t"), None);
    assert_eq!(without_parameter("tt=x", "t").as_deref(), Some("tt=x"));
}

/// What comes of verdicts on the tokens by their text: `ok`, or the first letter of a failure.
fn outcome(rules: Vec<TokenRule>, headers: &[(&str, &str)]) -> Result<Option<(usize, Vec<String>)>, Failure> {
    let all = Authentication::new(rules);
    with(headers, None, |head| {
        all.judge(head, |_, rule, token| match &*token.text {
            "expired" => Err(Failure::Expired),
            "bad" => Err(Failure::Form),
            issuer if issuer == &*rule.issuer => Ok(issuer.to_owned()),
            _ => Err(Failure::UnknownIssuer),
        })
    })
}

#[test]
fn one_rule() {
    let of =
        |text: &str| outcome(vec![rule("A", anywhere())], &[("authorization", &format!("Bearer {text}"))]);
    assert_eq!(outcome(vec![rule("A", anywhere())], &[]), Ok(None));
    assert_eq!(of("A"), Ok(Some((0, vec!["A".to_owned()]))));
    assert_eq!(of("B"), Err(Failure::UnknownIssuer));
    assert_eq!(of("bad"), Err(Failure::Form));
    let required = TokenRule { required: true, ..rule("A", anywhere()) };
    assert_eq!(outcome(vec![required], &[]), Err(Failure::Missing));
}

#[test]
fn rules_that_share_a_place() {
    let rules = || vec![rule("B", anywhere()), rule("A", anywhere())];
    let of = |text: &str| outcome(rules(), &[("authorization", &format!("Bearer {text}"))]);
    assert_eq!(of("A"), Ok(Some((0, vec!["A".to_owned()]))), "issuers are sorted");
    assert_eq!(of("B"), Ok(Some((1, vec!["B".to_owned()]))));
    assert_eq!(of("C"), Err(Failure::UnknownIssuer));
    assert_eq!(of("expired"), Err(Failure::Expired));
    assert_eq!(outcome(rules(), &[]), Ok(None));
}

#[test]
fn rules_with_places_of_their_own() {
    let of = |headers: &[(&str, &str)]| {
        outcome(vec![rule("A", in_header("x-a", "")), rule("B", in_header("x-b", "T "))], headers)
    };
    assert_eq!(of(&[("x-b", "T B")]), Ok(Some((1, vec!["B".to_owned()]))));
    assert_eq!(of(&[("x-a", "A"), ("x-b", "T bad")]), Ok(Some((0, vec!["A".to_owned()]))));
    assert_eq!(of(&[("x-a", "bad"), ("x-b", "T B")]), Ok(Some((1, vec!["B".to_owned()]))));
    assert_eq!(of(&[("x-a", "expired"), ("x-b", "T bad")]), Err(Failure::Expired));
    assert_eq!(of(&[("x-b", "T A")]), Err(Failure::UnknownIssuer));
    assert_eq!(of(&[("x-a", "A"), ("x-a", "bad")]), Err(Failure::Form), "every token must be good");
    assert_eq!(of(&[("x-a", "A"), ("x-a", "A")]).unwrap().unwrap().1.len(), 2);
}

#[test]
fn audiences_are_compared_without_scheme_and_slash() {
    let audiences = Audiences::new(&["https://a.example/".to_owned(), "b".to_owned()]);
    let allows = |list: &[&str]| audiences.allow(list.iter().copied());
    assert!(allows(&["a.example"]) && allows(&["http://a.example"]) && allows(&["x", "b/"]));
    assert!(!allows(&[]) && !allows(&["c"]));
    assert!(Audiences::default().allow(std::iter::empty()));
}

#[test]
fn texts_are_borrowed() {
    with(&[("authorization", "Bearer a.b.c")], None, |head| {
        let places = anywhere();
        assert!(matches!(places.tokens(head)[0].text, Cow::Borrowed("a.b.c")));
    });
}
