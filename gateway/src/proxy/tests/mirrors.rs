//! Copies of live requests: what arrives, and that nobody waits for it.

use super::*;

fn rule(mirrors: &str) -> String {
    format!(
        "  - match: [{{uri: {{prefix: /api/}}}}]
    rewrite: {{uri: /v1/, authority: inner.example}}
    headers: {{request: {{set: {{x-set: s}}}}}}
    retries: {{attempts: 1, backoff: 1ms, retryOn: 5xx}}
    route: [{{destination: {{host: up.example, port: {{number: 80}}}}}}]
    {mirrors}
"
    )
}

const ONE: &str = "mirror: {host: copy.example, port: {number: 80}}";

async fn eventually(player: &Player, requests: usize) -> Vec<String> {
    let arrived = async {
        while player.got().len() < requests {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, arrived).await.expect("the copies arrive");
    player.got()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mirror_gets_what_the_upstream_gets() {
    let (up, copy) = (plays(&[OK]).await, plays(&[OK]).await);
    let yaml = config(&rule(ONE), &[up.address], "HTTP") + &service("copy", copy.address, "HTTP");
    let gateway = gateway(&yaml).await;
    for request in [
        "GET /api/get?q=1 HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n",
        "POST /api/post HTTP/1.1\r\nHost: a.example\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello",
        "POST /api/chunked HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    ] {
        assert_eq!(gateway.send(request).await.0, 200, "{request}");
    }
    let (up, mut copies) = (up.got(), eventually(&copy, 3).await);
    copies.sort_by_key(|copy| {
        up.iter().position(|request| request.split(' ').nth(1) == copy.split(' ').nth(1))
    });
    for (request, copy) in up.iter().zip(&copies) {
        let lines = |text: &str| {
            let (head, body) = text.split_once("\r\n\r\n").unwrap();
            let mut lines: Vec<String> = head.to_ascii_lowercase().split("\r\n").map(str::to_owned).collect();
            lines.retain(|line| !line.starts_with("connection"));
            lines.sort();
            (lines, body.to_owned())
        };
        assert_eq!(lines(request), lines(copy));
        assert!(
            copy.contains(" /v1/") && copy.contains("x-set: s") && copy.contains("inner.example"),
            "{copy}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mirror_that_fails_or_hangs_is_nobodys_business() {
    let hung = plays(&[HANG]).await;
    for at in [nobody().await, hung.address] {
        let up = plays(&[OK]).await;
        let yaml = config(&rule(ONE), &[up.address], "HTTP") + &service("copy", at, "HTTP");
        let gateway = gateway(&yaml).await;
        let began = Instant::now();
        for _ in 0..5 {
            assert_eq!(gateway.get("/api/x").await.0, 200);
        }
        assert!(began.elapsed() < Duration::from_secs(5));
        assert_eq!(up.got().len(), 5);
        assert!(gateway.line("/api/x").await.contains(" 200 - via_upstream "));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_mirror_has_its_share_and_an_unknown_one_gets_nothing() {
    let (up, all, none) = (plays(&[OK]).await, plays(&[OK]).await, plays(&[OK]).await);
    let mirrors = "mirrors:
    - {destination: {host: all.example, port: {number: 80}}}
    - {destination: {host: none.example, port: {number: 80}}, percentage: {value: 0}}
    - {destination: {host: missing.example, port: {number: 80}}}";
    let yaml = config(&rule(mirrors), &[up.address], "HTTP")
        + &service("all", all.address, "HTTP")
        + &service("none", none.address, "HTTP");
    let gateway = gateway(&yaml).await;
    for _ in 0..5 {
        assert_eq!(gateway.get("/api/x").await.0, 200);
    }
    eventually(&all, 5).await;
    assert_eq!(none.got().len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_makes_no_second_copy_and_the_body_is_there_once() {
    const FAIL: Act = Act::Say("HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n");
    let (up, copy) = (plays(&[FAIL, OK]).await, plays(&[OK]).await);
    let yaml = config(&rule(ONE), &[up.address], "HTTP") + &service("copy", copy.address, "HTTP");
    let gateway = gateway(&yaml).await;
    let body = "0123456789".repeat(3000);
    let request = format!(
        "POST /api/x HTTP/1.1\r\nHost: a.example\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
    assert_eq!(gateway.send(&request).await.0, 200);
    assert_eq!(up.got().len(), 2);
    let copies = eventually(&copy, 1).await;
    assert!(copies[0].ends_with(&format!("\r\n\r\n{body}")), "{}", copies[0].len());
    assert_eq!(copy.got().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mirror_may_speak_http2() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (sender, mut got) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let sender = sender.clone();
            tokio::spawn(async move {
                let service = service_fn(move |request: Request<hyper::body::Incoming>| {
                    let sender = sender.clone();
                    async move {
                        let (head, body) = request.into_parts();
                        let body = body.collect().await.unwrap().to_bytes();
                        sender.send((head.uri.to_string(), body)).unwrap();
                        Ok::<_, Infallible>(Response::new(Full::<Bytes>::default()))
                    }
                });
                let server = auto::Builder::new(TokioExecutor::new()).http2_only();
                let _closed = server.serve_connection(TokioIo::new(stream), service).await;
            });
        }
    });
    let up = plays(&[OK]).await;
    let gateway =
        gateway(&(config(&rule(ONE), &[up.address], "HTTP") + &service("copy", address, "HTTP2"))).await;
    for (request, body) in [
        ("GET /api/get HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n", ""),
        (
            "POST /api/post HTTP/1.1\r\nHost: a.example\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello",
            "hello",
        ),
    ] {
        assert_eq!(gateway.send(request).await.0, 200);
        let (uri, copied) = tokio::time::timeout(PATIENCE, got.recv()).await.unwrap().unwrap();
        assert!(uri.starts_with("http://inner.example/v1/"), "{uri}");
        assert_eq!(copied, body);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_is_cut_off_is_not_made_whole_for_a_mirror() {
    let (up, copy) = (plays(&[OK]).await, plays(&[OK]).await);
    let yaml = config(&rule(ONE), &[up.address], "HTTP") + &service("copy", copy.address, "HTTP");
    let gateway = gateway(&yaml).await;
    let mut stream = TcpStream::connect(gateway.address).await.unwrap();
    let head =
        "POST /api/cut HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    drop(stream);
    gateway.line("/api/cut").await;
    assert_eq!(gateway.get("/api/after").await.0, 200);
    let copies = eventually(&copy, 1).await;
    assert!(copies[0].contains("/v1/after"), "{copies:?}");
}

/// Takes connections, and nothing from them.
async fn deaf() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let mut held = Vec::new();
        while let Ok((stream, _)) = listener.accept().await {
            held.push(stream);
        }
    });
    address
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mirror_that_reads_nothing_is_given_up_and_slows_nobody() {
    // More than sockets buffer, so that the copy must wait or go.
    let body = "0123456789abcdef".repeat(3 << 19);
    let request = format!(
        "POST /api/big HTTP/1.1\r\nHost: a.example\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
    let up = plays(&[OK]).await;
    let yaml = config(&rule(ONE), &[up.address], "HTTP") + &service("copy", deaf().await, "HTTP");
    let gateway = gateway(&yaml).await;
    assert_eq!(gateway.send(&request).await.0, 200);
    assert_eq!(gateway.metrics.mirror_dropped.get(), 1, "what waits for a mirror is bounded");
    for _ in 0..3 {
        assert_eq!(gateway.get("/api/small").await.0, 200);
    }
}
