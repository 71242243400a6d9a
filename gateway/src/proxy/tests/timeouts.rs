//! How long an exchange may take, by whichever protocol.

use super::*;

const LIMIT: &str = "  - timeout: 300ms
    route: [{destination: {host: up.example, port: {number: 80}}}]
";
const PARTIAL: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n";
const LONG: &str = "HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\nabc";

/// That it took about as long as the limit says: not less, and not so much more that another timer must have done it.
fn about(limit: u64, began: Instant) {
    let took = began.elapsed();
    let limit = Duration::from_millis(limit);
    assert!(took >= limit && took < limit + Duration::from_millis(900), "{took:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_clock_starts_when_the_request_is_complete() {
    let up = plays(&[OK]).await;
    let gateway = gateway(&config(LIMIT, &[up.address], "HTTP")).await;
    let mut stream = TcpStream::connect(gateway.address).await.unwrap();
    let head = "POST /upload HTTP/1.1\r\nHost: a.example\r\nContent-Length: 8\r\nConnection: close\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    for part in ["ab", "cd", "ef", "gh"] {
        // A slow client, twice as slow as the limit in all.
        tokio::time::sleep(Duration::from_millis(150)).await;
        stream.write_all(part.as_bytes()).await.unwrap();
    }
    let mut text = String::new();
    tokio::time::timeout(PATIENCE, stream.read_to_string(&mut text)).await.unwrap().unwrap();
    assert!(text.starts_with("HTTP/1.1 200 ") && text.ends_with("ok"), "{text}");
    let got = up.got().remove(0);
    assert!(got.ends_with("abcdefgh") && got.contains("x-envoy-expected-rq-timeout-ms: 300\r\n"), "{got}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_complete_request_that_nobody_answers_is_504_ut() {
    let gateway = gateway(&config(LIMIT, &[plays(&[HANG]).await.address], "HTTP")).await;
    for request in [
        "GET /get HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n",
        "POST /post HTTP/1.1\r\nHost: a.example\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi",
        "POST /chunked HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
        "GET /ws HTTP/1.1\r\nHost: a.example\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
    ] {
        let began = Instant::now();
        let (status, _, body) = gateway.send(request).await;
        assert_eq!((status, &*body), (504, "upstream request timeout"), "{request}");
        about(300, began);
        let path = request.split(' ').nth(1).unwrap();
        let line = gateway.line(&format!(" {path} ")).await;
        assert!(line.contains(" 504 UT response_timeout "), "{line}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_response_that_does_not_end_in_time_is_cut_off() {
    for act in [&[Act::SayAndHang(PARTIAL)], &[Act::SayAndDrip(LONG)]] {
        let gateway = gateway(&config(LIMIT, &[plays(act).await.address], "HTTP")).await;
        let began = Instant::now();
        let (status, _, body) = gateway.send("GET /cut HTTP/1.1\r\nHost: a.example\r\n\r\n").await;
        assert_eq!(status, 200);
        about(300, began);
        assert!(body.contains("abc") && !body.contains("\r\n0\r\n"), "{body:?}");
        let line = gateway.line("/cut").await;
        assert!(line.contains(" 200 UT response_timeout "), "{line}");

        let mut client = http2(&gateway).await;
        let request = Request::get("http://a.example/cut2").body(Full::default()).unwrap();
        let began = Instant::now();
        let response = client.send_request(request).await.unwrap();
        assert_eq!(response.status(), 200);
        let end = tokio::time::timeout(PATIENCE, response.into_body().collect()).await.unwrap();
        assert!(end.is_err(), "a reset, not an end");
        about(300, began);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tunnel_has_no_limit() {
    let answer = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    let gateway = gateway(&config(LIMIT, &[scripted(answer, true).await], "HTTP")).await;
    let mut stream = TcpStream::connect(gateway.address).await.unwrap();
    let request = "GET /ws HTTP/1.1\r\nHost: a.example\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match tokio::time::timeout(PATIENCE, stream.read_u8()).await.unwrap() {
            Ok(byte) => head.push(byte),
            Err(e) => panic!("{e} after {:?}: {}", String::from_utf8_lossy(&head), gateway.line("/ws").await),
        }
    }
    assert!(head.starts_with(b"HTTP/1.1 101 "));
    for _ in 0..2 {
        // Silent for longer than the limit.
        tokio::time::sleep(Duration::from_millis(400)).await;
        stream.write_all(b"ping").await.unwrap();
        let mut back = [0; 4];
        if let Err(e) = tokio::time::timeout(PATIENCE, stream.read_exact(&mut back)).await.unwrap() {
            panic!("{e}: {}", gateway.line("/ws").await);
        }
        assert_eq!(&back, b"ping");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_serves_in_time_is_kept() {
    let up = plays(&[OK]).await;
    let gateway = gateway(&config(LIMIT, &[up.address], "HTTP")).await;
    let both = gateway
        .raw(
            "POST /1 HTTP/1.1\r\nHost: a.example\r\nContent-Length: 2\r\n\r\nhi\
             GET /2 HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n",
        )
        .await;
    assert_eq!(both.matches("HTTP/1.1 200 ").count(), 2, "{both}");
    assert_eq!(up.got().len(), 2);
    // The log knows the client's own session again.
    let line = gateway.line("/1").await;
    assert!(line.contains("\"POST /1 HTTP/1.1\" 200 - via_upstream - \"-\" 2 2 "), "{line}");
}

#[tokio::test(flavor = "multi_thread")]
async fn time_is_up_also_while_the_next_request_waits_behind_it() {
    let gateway = gateway(&config(LIMIT, &[plays(&[HANG]).await.address], "HTTP")).await;
    let next = "GET /2 HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n";
    // Whole, in part, and more than is kept of what waits.
    for (behind, rest) in [(next, ""), next.split_at(9), (&*format!("GET /{} ", "2".repeat(70_000)), "")] {
        let mut stream = TcpStream::connect(gateway.address).await.unwrap();
        let began = Instant::now();
        stream.write_all(b"GET /1 HTTP/1.1\r\nHost: a.example\r\n\r\n").await.unwrap();
        // Not in one segment with the first.
        tokio::time::sleep(Duration::from_millis(50)).await;
        stream.write_all(behind.as_bytes()).await.unwrap();
        let mut answer = [0; 12];
        tokio::time::timeout(PATIENCE, stream.read_exact(&mut answer)).await.unwrap().unwrap();
        assert_eq!(&answer, b"HTTP/1.1 504");
        about(300, began);
        stream.write_all(rest.as_bytes()).await.unwrap();
        let mut text = String::new();
        tokio::time::timeout(PATIENCE, stream.read_to_string(&mut text)).await.unwrap().unwrap();
        let second = if behind.len() > 1000 { "HTTP/1.1 431 " } else { "HTTP/1.1 504 " };
        assert!(text.contains(second), "{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_does_not_read_is_cut_off_in_time() {
    let long = format!("HTTP/1.1 200 OK\r\nContent-Length: 50000000\r\n\r\n{}", "x".repeat(20_000_000));
    let up = plays(Box::leak(Box::new([Act::SayAndHang(long.leak())]))).await;
    let gateway = gateway(&config(LIMIT, &[up.address], "HTTP")).await;
    let mut stream = TcpStream::connect(gateway.address).await.unwrap();
    let began = Instant::now();
    stream.write_all(b"GET /unread HTTP/1.1\r\nHost: a.example\r\n\r\n").await.unwrap();
    let line = gateway.line("/unread").await;
    about(300, began);
    assert!(line.contains(" 200 UT response_timeout "), "{line}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_attempt_has_its_own_time() {
    let rules = "  - timeout: 5s
    retries: {attempts: 1, perTryTimeout: 200ms, retryOn: 'reset'}
    route: [{destination: {host: up.example, port: {number: 80}}}]
";
    let up = plays(&[HANG, OK]).await;
    let gateway_1 = gateway(&config(rules, &[up.address], "HTTP")).await;
    assert_eq!(gateway_1.get("/saved").await.0, 200);
    let got = up.got();
    assert_eq!(got.len(), 2);
    assert!(got[1].contains("x-envoy-attempt-count: 2\r\n"), "{}", got[1]);
    assert!(got[1].contains("x-envoy-expected-rq-timeout-ms: 200\r\n"), "{}", got[1]);

    let hung = plays(&[HANG]).await;
    let gateway_2 = gateway(&config(rules, &[hung.address], "HTTP")).await;
    let (status, _, body) = gateway_2.get("/lost").await;
    assert_eq!((status, &*body), (504, "upstream request timeout"));
    assert_eq!(hung.got().len(), 2);
    let line = gateway_2.line("/lost").await;
    assert!(line.contains(" 504 UT,URX upstream_per_try_timeout "), "{line}");

    // Once a response has begun it is the route's time that counts.
    let slow = plays(&[Act::SayAndHang("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nslow")]).await;
    let gateway_3 = gateway(&config(&rules.replace("5s", "600ms"), &[slow.address], "HTTP")).await;
    let began = Instant::now();
    assert_eq!(gateway_3.get("/begun").await.2, "slow");
    about(600, began);
    assert_eq!(slow.got().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_routes_time_goes_on_over_attempts() {
    let rules = "  - timeout: 500ms
    retries: {attempts: 9, perTryTimeout: 200ms, retryOn: '5xx', backoff: 1ms}
    route: [{destination: {host: up.example, port: {number: 80}}}]
";
    let up = plays(&[HANG]).await;
    let gateway = gateway(&config(rules, &[up.address], "HTTP")).await;
    let began = Instant::now();
    assert_eq!(gateway.get("/all").await.0, 504);
    about(500, began);
    assert_eq!(up.got().len(), 3);
    let line = gateway.line("/all").await;
    assert!(line.contains(" 504 UT response_timeout "), "{line}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_grpc_client_says_how_long_it_waits() {
    let gateway = gateway(&config(FORWARD, &[plays(&[HANG]).await.address], "HTTP")).await;
    let mut client = http2(&gateway).await;
    let request = Request::post("http://a.example/p.S/M")
        .header("content-type", "application/grpc")
        .header("grpc-timeout", "200m")
        .body(Full::new(Bytes::from_static(b"\0\0\0\0\0")))
        .unwrap();
    let began = Instant::now();
    let response = tokio::time::timeout(PATIENCE, client.send_request(request)).await.unwrap().unwrap();
    about(200, began);
    assert_eq!(
        (response.status().as_u16(), &response.headers()["grpc-status"]),
        (200, &"14".parse().unwrap())
    );
    assert_eq!(response.headers()["grpc-message"], "upstream request timeout");
}
