//! Upstreams that misbehave. What happens to the request in flight, and that the next one is not harmed by it.

use super::*;
use std::sync::atomic::{AtomicUsize, Ordering};

/// How an upstream misbehaves.
type How = fn(&'static str) -> Act;
const HANG: How = Act::SayAndHang;
const RESET: How = Act::SayAndReset;
const HALF_CLOSE: How = Act::SayAndHalfClose;

/// Gives `first` to the first request of all, and a good answer to every other.
async fn misbehaves_once(first: &'static str, how: How) -> Upstream {
    Upstream::plays(&[how(first), Act::Say("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ngood")]).await
}

const SHORT: &str = "  - name: main\n    timeout: 400ms\n    retries: {attempts: 0}\n    route: [{destination: {host: up.example, port: {number: 80}}}]\n";

#[tokio::test(flavor = "multi_thread")]
async fn each_ends_its_own_request_and_no_other() {
    for (name, answer, then, status, flag) in [
        ("accepts and hangs", "", HANG, 504, "UT"),
        ("half a head", "HTTP/1.1 200 OK\r\nX-Half", HANG, 504, "UT"),
        ("slow loris", "H", HANG, 504, "UT"),
        ("resets before the head", "", RESET, 503, "UC"),
        ("resets within the head", "HTTP/1.1 200 OK\r\nX-Half", RESET, 502, "UPE"),
        ("ends before the head", "", HALF_CLOSE, 503, "UC"),
        (
            "two lengths",
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok",
            HANG,
            502,
            "UPE",
        ),
        ("not HTTP", "SSH-2.0-OpenSSH_9.9\r\n\r\n", HANG, 502, "UPE"),
        ("resets within the body", "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc", RESET, 200, "UPE"),
        (
            "resets within a chunk",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabc",
            RESET,
            200,
            "UPE",
        ),
        ("ends before its length", "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc", HALF_CLOSE, 200, "UPE"),
        ("stalls within the body", "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc", HANG, 200, "UT"),
    ] {
        let upstream = misbehaves_once(answer, then).await;
        let gateway = gateway(&config(SHORT, &[upstream.address()], "HTTP")).await;
        let (got, head, body) = gateway.get("/first").await;
        assert_eq!(got, status, "{name}: {head}");
        if status == 200 {
            assert!(body.contains("abc"), "{name}: {body:?}");
            assert!(!body.ends_with("0\r\n\r\n"), "{name}: a truncated body has no end: {body:?}");
        }
        let line = gateway.line("/first").await;
        assert!(line.contains(&format!(" {status} {flag}")), "{name}: {line}");
        assert_eq!(gateway.get("/next").await.2, "good", "{name}: the next request is not harmed");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_longer_than_it_says_reaches_nobody_else() {
    let answer =
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil";
    let upstream = misbehaves_once(answer, HANG).await;
    let gateway = gateway(&config(SHORT, &[upstream.address()], "HTTP")).await;
    assert_eq!(gateway.get("/first").await.2, "ok");
    assert_eq!(gateway.get("/next").await.2, "good");
    assert_eq!(upstream.connections(), 2, "the first connection is not used again");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_ended_while_idle_costs_no_request() {
    let answer = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
    let upstream = misbehaves_once(answer, HALF_CLOSE).await;
    let gateway = gateway(&config(FORWARD, &[upstream.address()], "HTTP")).await;
    assert_eq!(gateway.get("/first").await.2, "ok");
    assert_eq!(gateway.get("/next").await.2, "good");
}

/// An HTTP/2 upstream that refuses every stream, and counts them.
async fn refusing() -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let refused = Arc::new(AtomicUsize::new(0));
    let count = refused.clone();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let count = count.clone();
            tokio::spawn(async move {
                let mut preface = [0; 24];
                stream.read_exact(&mut preface).await.ok()?;
                stream.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).await.ok()?;
                loop {
                    // RFC 9113 §4.1: length, type, flags, stream.
                    let mut head = [0; 9];
                    stream.read_exact(&mut head).await.ok()?;
                    let length =
                        usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
                    let mut payload = vec![0; length];
                    stream.read_exact(&mut payload).await.ok()?;
                    match (head[3], head[4] & 1) {
                        (4, 0) => stream.write_all(&[0, 0, 0, 4, 1, 0, 0, 0, 0]).await.ok()?,
                        (1, _) => {
                            count.fetch_add(1, Ordering::SeqCst);
                            let mut reset = vec![0, 0, 4, 3, 0];
                            reset.extend_from_slice(&head[5..]);
                            reset.extend([0, 0, 0, 7]);
                            stream.write_all(&reset).await.ok()?;
                        }
                        _ => {}
                    }
                }
                #[allow(unreachable_code, reason = "the loop ends by `?`, and needs a type")]
                Some(())
            });
        }
    });
    (address, refused)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_stream_is_tried_elsewhere() {
    let (refuses, refused) = refusing().await;
    let gateway =
        gateway(&config(FORWARD, &[refuses, upstreams::named("good", 200, Duration::ZERO).await], "HTTP2"))
            .await;
    for _ in 0..8 {
        let (status, _, body) = gateway.get("/x").await;
        assert_eq!(status, 200, "{body} {}", std::fs::read_to_string(&gateway.log).unwrap_or_default());
    }
    assert!(refused.load(Ordering::SeqCst) > 0, "chance met it at least once in eight");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_always_refuses_is_503_after_the_default_retries() {
    let (refuses, refused) = refusing().await;
    let gateway = gateway(&config(FORWARD, &[refuses], "HTTP2")).await;
    assert_eq!(gateway.get("/x").await.0, 503);
    assert_eq!(refused.load(Ordering::SeqCst), 3);
    assert!(gateway.line("/x").await.contains(" 503 UR"), "{}", gateway.line("/x").await);
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_finish_on_a_connection_that_is_going_away_and_the_next_are_on_another() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let upstream = listener.local_addr().unwrap();
    let connections = Arc::new(AtomicUsize::new(0));
    let count = connections.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            count.fetch_add(1, Ordering::SeqCst);
            tokio::spawn(async move {
                let going = Arc::new(tokio::sync::Notify::new());
                let tell = going.clone();
                let service = service_fn(move |_: Request<hyper::body::Incoming>| {
                    let tell = tell.clone();
                    async move {
                        // GOAWAY goes out while this stream is open.
                        tell.notify_one();
                        tokio::time::sleep(Duration::from_millis(200)).await;
                        Ok::<_, Infallible>(Response::new(Full::new(Bytes::from_static(b"done"))))
                    }
                });
                let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                let connection = server.serve_connection(TokioIo::new(stream), service);
                tokio::pin!(connection);
                tokio::select! {
                    _ = connection.as_mut() => return,
                    () = going.notified() => connection.as_mut().graceful_shutdown(),
                }
                drop(connection.await);
            });
        }
    });
    let gateway = gateway(&config(FORWARD, &[upstream], "HTTP2")).await;
    for _ in 0..3 {
        assert_eq!(gateway.get("/x").await.2, "done");
    }
    assert_eq!(connections.load(Ordering::SeqCst), 3);
}
