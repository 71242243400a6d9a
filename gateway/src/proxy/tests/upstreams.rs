//! Balancing, limits and ejection over real sockets.

use super::*;

/// A DestinationRule for `up.example`.
fn rule(policy: &str) -> String {
    format!(
        "---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {{name: up, namespace: default}}
spec: {{host: up.example, trafficPolicy: {{{policy}}}}}
"
    )
}

/// Answers every request with `status` and its own name, after `delay`.
pub(super) async fn named(name: &'static str, status: u16, delay: Duration) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let service = service_fn(move |_: Request<hyper::body::Incoming>| async move {
                tokio::time::sleep(delay).await;
                let body = Full::new(Bytes::from_static(name.as_bytes()));
                Ok::<_, Infallible>(Response::builder().status(status).body(body).unwrap())
            });
            tokio::spawn(async move {
                let io = TokioIo::new(stream);
                drop(auto::Builder::new(TokioExecutor::new()).serve_connection(io, service).await);
            });
        }
    });
    address
}

fn request(extra: &str) -> String {
    format!("GET /x?user=ann HTTP/1.1\r\nHost: a.example\r\n{extra}Connection: close\r\n\r\n")
}

const NONE: Duration = Duration::ZERO;

#[tokio::test(flavor = "multi_thread")]
async fn a_key_keeps_its_endpoint_and_keys_spread() {
    let upstreams = [named("a", 200, NONE).await, named("b", 200, NONE).await, named("c", 200, NONE).await];
    for hash in ["httpHeaderName: x-user", "httpHeaderName: x-user, maglev: {tableSize: 65537}"] {
        let policy = rule(&format!("loadBalancer: {{consistentHash: {{{hash}}}}}"));
        let gateway = gateway(&(config(FORWARD, &upstreams, "HTTP") + &policy)).await;
        let mut seen = std::collections::BTreeSet::new();
        for user in 0..12 {
            let ask = request(&format!("x-user: {user}\r\n"));
            let first = gateway.send(&ask).await.2;
            for _ in 0..3 {
                assert_eq!(gateway.send(&ask).await.2, first, "{hash}");
            }
            seen.insert(first);
        }
        assert!(seen.len() > 1, "{hash}: {seen:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cookie_is_made_once_and_leads_back() {
    let upstreams = [named("a", 200, NONE).await, named("b", 200, NONE).await, named("c", 200, NONE).await];
    let hash = "loadBalancer: {consistentHash: {httpCookie: {name: sid, path: /p, ttl: 60s}}}";
    let gateway = gateway(&(config(FORWARD, &upstreams, "HTTP") + &rule(hash))).await;
    for _ in 0..6 {
        let (_, head, first) = gateway.send(&request("")).await;
        let cookie = head.lines().find_map(|l| l.strip_prefix("set-cookie: ")).expect("a cookie is made");
        assert!(cookie.contains("; max-age=60; path=/p; httponly"), "{cookie}");
        let value = cookie.split(';').next().unwrap();
        for _ in 0..3 {
            let (_, head, body) = gateway.send(&request(&format!("Cookie: {value}\r\n"))).await;
            assert_eq!(body, first);
            assert!(!head.contains("set-cookie"), "it is there already");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_finds_no_connection_and_no_place_in_the_queue_overflows() {
    let upstream = named("slow", 200, Duration::from_millis(400)).await;
    let limits = "connectionPool: {tcp: {maxConnections: 1}, http: {http1MaxPendingRequests: 1}}";
    let gateway = gateway(&(config(FORWARD, &[upstream], "HTTP") + &rule(limits))).await;
    let ask = request("");
    let answers = futures::future::join_all((0..3).map(|_| gateway.send(&ask))).await;
    let mut statuses: Vec<u16> = answers.iter().map(|(status, _, _)| *status).collect();
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 200, 503]);
    let (_, head, body) = answers.iter().find(|(status, _, _)| *status == 503).unwrap();
    assert!(head.contains("x-envoy-overloaded: true"), "{head}");
    assert!(body.ends_with("reset reason: overflow"), "{body}");
    assert!(gateway.line(" 503 UO ").await.contains("overflow"));
    assert_eq!(gateway.send(&ask).await.0, 200, "all is free again");
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_are_limited_over_http2_too() {
    let upstream = named("slow", 200, Duration::from_millis(400)).await;
    let limits = "connectionPool: {http: {http2MaxRequests: 2}}";
    let gateway = gateway(&(config(FORWARD, &[upstream], "HTTP2") + &rule(limits))).await;
    let ask = request("");
    let answers = futures::future::join_all((0..4).map(|_| gateway.send(&ask))).await;
    let served = answers.iter().filter(|(status, _, _)| *status == 200).count();
    assert_eq!(served, 2, "{answers:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_that_fails_is_ejected_and_a_reload_does_not_forget_it() {
    let upstreams = [named("good", 200, NONE).await, named("bad", 500, NONE).await];
    let policy = "loadBalancer: {simple: ROUND_ROBIN}, outlierDetection: {consecutive5xxErrors: 3, maxEjectionPercent: 100, baseEjectionTime: 600s}";
    let yaml = config(FORWARD, &upstreams, "HTTP") + &rule(policy);
    let gateway = gateway(&yaml).await;
    let mut bad = 0;
    for _ in 0..40 {
        bad += usize::from(gateway.get("/x").await.0 == 500);
    }
    assert_eq!(bad, 3, "ejected after three");
    publish(&gateway.cell, &gateway.registry, &yaml.replace("ROUND_ROBIN", "RANDOM")).await;
    for _ in 0..20 {
        assert_eq!(gateway.get("/x").await.0, 200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn when_all_are_ejected_nobody_is_asked_unless_in_panic() {
    let upstream = named("bad", 500, NONE).await;
    for (panic, wants) in [("", 503), (", minHealthPercent: 50", 500)] {
        let policy = format!("outlierDetection: {{consecutive5xxErrors: 2, maxEjectionPercent: 100{panic}}}");
        let gateway = gateway(&(config(FORWARD, &[upstream], "HTTP") + &rule(&policy))).await;
        for _ in 0..2 {
            assert_eq!(gateway.get("/x").await.0, 500);
        }
        assert_eq!(gateway.get("/after").await.0, wants, "{policy}");
        if wants == 503 {
            assert!(gateway.line("/after").await.contains(" 503 UH "));
        }
    }
}
