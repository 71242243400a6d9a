//! Which failures are retried, where, and what is sent again.

use super::*;

fn rule(retries: &str) -> String {
    format!(
        "  - retries: {{{retries}}}\n    route: [{{destination: {{host: up.example, port: {{number: 80}}}}}}]\n"
    )
}

const FAIL: Act = Act::Say("HTTP/1.1 503 No\r\nContent-Length: 4\r\n\r\nfail");

/// Status, body, attempts and the log's flags of one GET against an upstream that plays `acts`.
async fn outcome(rule: &str, acts: &'static [Act]) -> (u16, String, usize, String) {
    let up = plays(acts).await;
    let gateway = gateway(&config(rule, &[up.address], "HTTP")).await;
    let (status, _, body) = gateway.get("/x").await;
    let line = gateway.line(" /x ").await;
    let flags = line.split(&format!(" {status} ")).nth(1).unwrap().split(' ').next().unwrap().to_owned();
    (status, body, up.got().len(), flags)
}

#[tokio::test(flavor = "multi_thread")]
async fn each_condition_retries_its_own_and_nothing_else() {
    const CONFLICT: Act = Act::Say("HTTP/1.1 409 No\r\nContent-Length: 0\r\n\r\n");
    const UNAVAILABLE: Act = Act::Say(
        "HTTP/1.1 200 OK\r\ncontent-type: application/grpc\r\ngrpc-status: 14\r\nContent-Length: 0\r\n\r\n",
    );
    for (on, acts, status, attempts) in [
        ("5xx", &[FAIL, OK], 200, 2),
        ("gateway-error", &[FAIL, OK], 200, 2),
        ("503", &[FAIL, OK], 200, 2),
        ("retriable-4xx", &[CONFLICT, OK], 200, 2),
        ("409", &[CONFLICT, OK], 200, 2),
        ("unavailable", &[UNAVAILABLE, OK], 200, 2),
        ("reset", &[LEAVE, OK], 200, 2),
        ("5xx", &[LEAVE, OK], 200, 2),
        ("reset", &[FAIL, OK], 503, 1),
        ("connect-failure", &[LEAVE, OK], 503, 1),
        ("reset-before-request", &[LEAVE, OK], 503, 1),
        ("500", &[FAIL, OK], 503, 1),
        ("cancelled", &[UNAVAILABLE, OK], 200, 1),
    ] {
        let got = outcome(&rule(&format!("attempts: 3, backoff: 1ms, retryOn: '{on}'")), acts).await;
        assert_eq!((got.0, got.2), (status, attempts), "{on}: {got:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_default_retries_what_the_upstream_cannot_have_done() {
    assert_eq!(outcome(FORWARD, &[FAIL, OK]).await, (503, "fail".to_owned(), 1, "-".to_owned()));
    let (status, _, attempts, flags) = outcome(FORWARD, &[LEAVE, OK]).await;
    assert_eq!((status, attempts, &*flags), (503, 1, "UC"));
    let off = rule("attempts: 0");
    let gateway = gateway(&config(&off, &[nobody().await], "HTTP")).await;
    assert_eq!(gateway.get("/off").await.0, 503);
    assert!(gateway.line("/off").await.contains(" 503 UF upstream_reset"));
    let cluster = gateway.cell.load().clusters.values().next().unwrap().endpoints();
    assert_eq!(cluster.all[0].attempts(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_exhausted_is_the_last_answer_with_urx() {
    let thrice = rule("attempts: 2, backoff: 1ms, retryOn: '5xx'");
    assert_eq!(outcome(&thrice, &[FAIL]).await, (503, "fail".to_owned(), 3, "URX".to_owned()));
    let (status, body, attempts, flags) = outcome(&thrice, &[LEAVE]).await;
    assert_eq!((status, attempts, &*flags), (503, 3, "UC,URX"));
    assert!(
        body.ends_with("before headers. retried and the latest reset reason: connection termination"),
        "{body}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_is_sent_again_whole_while_it_is_small_enough() {
    let rule = rule("attempts: 1, backoff: 1ms, retryOn: '5xx'");
    for (length, attempts) in [(0, 2), (5, 2), (60_000, 2), (300_000, 1)] {
        let up = plays(&[FAIL, OK]).await;
        let gateway = gateway(&config(&rule, &[up.address], "HTTP")).await;
        let body: String = (0..length).map(|i| char::from(b'a' + (i % 26) as u8)).collect();
        let request = format!(
            "POST /b HTTP/1.1\r\nHost: a.example\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
        );
        let (status, ..) = gateway.send(&request).await;
        assert_eq!(status, if attempts == 2 { 200 } else { 503 }, "{length}");
        let got = up.got();
        assert_eq!(got.len(), attempts, "{length}");
        for (i, request) in got.iter().enumerate() {
            assert!(request.ends_with(&body), "{length}");
            assert!(request.contains(&format!("x-envoy-attempt-count: {}\r\n", i + 1)), "{request}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_retried_once_the_client_has_a_byte() {
    let rule = rule("attempts: 3, retryOn: '5xx,reset'");
    let (status, body, attempts, flags) =
        outcome(&rule, &[Act::SayAndLeave("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nbegun"), OK]).await;
    assert_eq!((status, &*body, attempts), (200, "begun", 1));
    assert_eq!(flags, "UPE");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_avoids_who_was_tried_unless_told_not_to() {
    let (bad, good) = (plays(&[FAIL]).await, plays(&[OK]).await);
    let failures = async |more: &str| {
        let rule = rule(&format!("attempts: 1, backoff: 1ms, retryOn: '5xx'{more}"));
        let gateway = gateway(&config(&rule, &[bad.address, good.address], "HTTP")).await;
        let mut failed = 0;
        for _ in 0..60 {
            failed += usize::from(gateway.get("/").await.0 == 503);
        }
        failed
    };
    let (avoided, allowed) = (failures("").await, failures(", retryIgnorePreviousHosts: false").await);
    // Five picks at random to find another, against one: an order of magnitude.
    assert!(avoided < allowed, "{avoided} {allowed}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_http2_refuses_is_sent_to_another_stream() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let seen = Arc::new(AtomicUsize::new(0));
    tokio::spawn({
        let seen = seen.clone();
        async move {
            while let Ok((stream, _)) = listener.accept().await {
                let seen = seen.clone();
                tokio::spawn(async move {
                    let mut connection = h2::server::handshake(stream).await.unwrap();
                    while let Some(Ok((mut request, mut respond))) = connection.accept().await {
                        if seen.fetch_add(1, Ordering::SeqCst) == 0 {
                            respond.send_reset(h2::Reason::REFUSED_STREAM);
                        } else {
                            tokio::spawn(async move {
                                while request.body_mut().data().await.is_some() {}
                                respond.send_response(::http::Response::new(()), true).unwrap();
                            });
                        }
                    }
                });
            }
        }
    });
    let gateway = gateway(&config(FORWARD, &[address], "HTTP2")).await;
    let (status, _, body) = gateway
        .send("POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi")
        .await;
    assert_eq!((status, seen.load(Ordering::SeqCst)), (200, 2), "{body}");
}

/// An upstream that fails every request after a while, and counts the retries that it has at a time.
async fn counts_retries(most: Arc<AtomicUsize>, requests: Arc<AtomicUsize>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let now = Arc::new(AtomicUsize::new(0));
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let (most, requests, now) = (most.clone(), requests.clone(), now.clone());
            tokio::spawn(async move {
                while let Some(request) = read_request(&mut stream).await {
                    requests.fetch_add(1, Ordering::SeqCst);
                    let retry = !request.contains("x-envoy-attempt-count: 1\r\n");
                    if retry {
                        most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    }
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    if retry {
                        now.fetch_sub(1, Ordering::SeqCst);
                    }
                    if stream.write_all(b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n").await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    address
}

#[tokio::test(flavor = "multi_thread")]
async fn retries_never_exceed_the_budget() {
    let seed = fastrand::u64(..);
    let mut random = fastrand::Rng::with_seed(seed);
    for round in 0..12 {
        let (clients, attempts) = (random.usize(2..12), random.usize(1..4));
        let limit = random.usize(1..4);
        // At most as many requests are active as there are clients.
        let (policy, allowed) = if round % 2 == 0 {
            (format!("connectionPool: {{http: {{maxRetries: {limit}}}}}"), limit)
        } else {
            let percent = random.usize(10..60);
            let budget = format!("retryBudget: {{percent: {percent}, minRetryConcurrency: {limit}}}");
            (budget, limit.max(clients * percent / 100))
        };
        let what = format!("seed {seed}: {clients} clients, {attempts} attempts, {policy}");
        let (most, requests) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let up = counts_retries(most.clone(), requests.clone()).await;
        let rules = rule(&format!("attempts: {attempts}, backoff: 1ms, retryOn: 5xx"));
        let policy = format!(
            "---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {{name: up, namespace: default}}
spec: {{host: up.example, trafficPolicy: {{{policy}}}}}
"
        );
        let gateway = gateway(&(config(&rules, &[up], "HTTP") + &policy)).await;
        let all = (0..clients).map(|_| async {
            let mut statuses = Vec::new();
            for _ in 0..3 {
                statuses.push(gateway.get("/").await.0);
            }
            statuses
        });
        let statuses = futures::future::join_all(all).await.concat();
        assert!(statuses.iter().all(|status| *status == 503), "{what}: {statuses:?}");
        let (most, requests) = (most.load(Ordering::SeqCst), requests.load(Ordering::SeqCst));
        assert!(most <= allowed, "{what}: {most} retries at a time");
        assert!(requests <= clients * 3 * (attempts + 1), "{what}: {requests} requests");
        assert!(most > 0, "{what}: the budget lets somebody through");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn retries_may_leave_the_locality() {
    let (near, far) = (plays(&[FAIL]).await, plays(&[OK]).await);
    for (remote, status) in [("", 503), (", retryRemoteLocalities: true", 200)] {
        let rules = rule(&format!("attempts: 2, backoff: 1ms, retryOn: 5xx{remote}"));
        // The near one is healthy, so that it has all the traffic.
        let yaml = config(&rules, &[far.address], "HTTP")
            + &format!(
                "  - address: {}\n    ports: {{main: {}}}\n    labels: {{tier: near}}\n",
                near.address.ip(),
                near.address.port()
            );
        let policy = "---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: up, namespace: default}
spec:
  host: up.example
  trafficPolicy:
    outlierDetection: {consecutive5xxErrors: 0}
    loadBalancer: {localityLbSetting: {enabled: true, failoverPriority: ['tier=near']}}
";
        let gateway = gateway(&(yaml + policy)).await;
        let view = gateway.cell.load().clusters.values().next().unwrap().endpoints();
        let priorities: Vec<u32> = view.all.iter().map(|e| e.endpoint.place.priority).collect();
        assert!(priorities.iter().any(|p| *p != priorities[0]), "{priorities:?}");
        assert_eq!(gateway.get("/x").await.0, status, "{remote:?} {priorities:?}");
    }
}
