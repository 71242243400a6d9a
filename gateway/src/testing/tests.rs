//! What the tools for tests promise themselves.

use super::*;
use crate::Exit;
use http::Request;

#[tokio::test]
async fn a_configuration_is_in_force_once_it_was_given() {
    let (one, other) = (Upstream::echo().await, Upstream::echo().await);
    let yaml = |upstream: &Upstream| config(FORWARD, &[upstream.address()], "HTTP");
    let gateway = TestGateway::start(&yaml(&one)).await;
    for _ in 0..3 {
        assert_eq!(gateway.get("http://a.example/one").await.status, 200);
        gateway.configure(&yaml(&other)).await;
        assert_eq!(gateway.get("http://a.example/other").await.status, 200);
        gateway.configure(&yaml(&one)).await;
        // The same again is taken up, and changes nothing.
        gateway.configure(&yaml(&one)).await;
    }
    assert_eq!((one.seen().len(), other.seen().len()), (3, 3));
    assert_eq!(gateway.get("http://b.example/").await.status, 404);
    assert_eq!(gateway.stop().await, Exit::Drained);
}

#[tokio::test]
async fn what_was_sent_is_what_was_seen() {
    let echo = Upstream::echo().await;
    let gateway = TestGateway::start(&config(FORWARD, &[echo.address()], "HTTP")).await;
    let request = Request::post("http://a.example/p?q=1").header("x-a", "b").body("hello").unwrap();
    let answer = gateway.send(request).await;
    assert_eq!(answer.header("x-up"), Some("1"));
    let seen = echo.seen();
    assert!(seen[0].text().starts_with("POST /p?q=1\n"), "{seen:?}");
    assert_eq!((seen[0].header("X-A"), seen[0].body()), (Some("b"), "hello"));
    assert_eq!(answer.text(), seen[0].text());
    assert!(gateway.log_line("/p?q=1").await.contains("\"POST /p?q=1 HTTP/1.1\" 200 "));
    let counted = || gateway.metrics().contains("istio_requests_total{").then_some(());
    eventually("a request that is counted", counted).await;
    let raw = gateway.raw(80, "GET / HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n").await;
    assert!(raw.starts_with("HTTP/1.1 200 "), "{raw}");
}

#[tokio::test]
async fn errors_of_a_configuration_are_found_and_the_rest_is_served() {
    let echo = Upstream::echo().await;
    let gateway = TestGateway::start(&config(FORWARD, &[echo.address()], "HTTP")).await;
    let bad = config(FORWARD, &[echo.address()], "HTTP") + &service("bad", echo.address(), "NONSENSE");
    let findings = gateway.try_configure(&bad).await;
    assert!(findings.has_errors(), "{findings:?}");
    assert_eq!(gateway.get("http://a.example/").await.status, 200);
}

#[tokio::test]
async fn hostile_upstreams_do_as_they_are_told() {
    for (act, status) in [
        (Act::SayAndReset(""), 503),
        (Act::SayAndLeave(""), 503),
        (Act::SayAndHalfClose("HTTP/1.1 200 OK\r\nX-Half"), 502),
        (Act::Say("HTTP/1.1 299 Good\r\nContent-Length: 0\r\n\r\n"), 299),
    ] {
        let upstream = Upstream::plays(&[act]).await;
        let rules = "  - retries: {attempts: 0}\n    route: [{destination: {host: up.example, port: {number: 80}}}]\n";
        let gateway = TestGateway::start(&config(rules, &[upstream.address()], "HTTP")).await;
        assert_eq!(gateway.get("http://a.example/").await.status, status, "{act:?}");
        assert_eq!((upstream.seen().len(), upstream.connections()), (1, 1), "{act:?}");
    }
}
