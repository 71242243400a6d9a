//! Upstreams of HTTP/2 that allow next to nothing.

use super::*;
use std::io::{Read, Write};
use tokio::net::TcpListener;

/// A server that takes one stream at a time, and answers each after a while; the connections it has accepted.
fn one_at_a_time(runtime: &Runtime) -> (SocketAddr, Arc<std::sync::atomic::AtomicUsize>) {
    let accepted: Arc<std::sync::atomic::AtomicUsize> = Arc::default();
    let count = accepted.clone();
    let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
    let address = listener.local_addr().unwrap();
    runtime.spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            count.fetch_add(1, Ordering::SeqCst);
            tokio::spawn(async move {
                let mut builder = h2::server::Builder::new();
                let mut connection =
                    builder.max_concurrent_streams(1).handshake::<_, bytes::Bytes>(stream).await.ok()?;
                while let Some(Ok((_, mut respond))) = connection.accept().await {
                    tokio::spawn(async move {
                        tokio::time::sleep(Duration::from_millis(50)).await;
                        let mut body = respond.send_response(http::Response::new(()), false).ok()?;
                        body.send_data(bytes::Bytes::from_static(b"one"), true).ok()
                    });
                }
                Some(())
            });
        }
    });
    (address, accepted)
}

/// A server that opens no window for bodies, and never answers.
fn without_window(runtime: &Runtime) -> SocketAddr {
    let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
    let address = listener.local_addr().unwrap();
    runtime.spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut builder = h2::server::Builder::new();
                let mut connection =
                    builder.initial_window_size(0).handshake::<_, bytes::Bytes>(stream).await.ok()?;
                let mut held = Vec::new();
                while let Some(Ok(both)) = connection.accept().await {
                    held.push(both);
                }
                Some(())
            });
        }
    });
    address
}

#[test]
fn one_that_takes_one_stream_at_a_time_is_given_more_connections() {
    let runtime = Runtime::new().unwrap();
    let (address, accepted) = one_at_a_time(&runtime);
    let rule = destination_rule("up", "connectionPool: {http: {h2UpgradePolicy: UPGRADE}}");
    let mut scene = Scene::before(runtime, address, "", &rule, &[]);
    let port = scene.limen.port;
    let answers: Vec<_> = (0..8)
        .map(|n| {
            thread::spawn(move || get(port, "up.example.com", &format!("/{n}")).map(|answer| answer.status))
        })
        .collect();
    for answer in answers {
        assert_eq!(answer.join().unwrap().unwrap(), 200);
    }
    assert!(accepted.load(Ordering::SeqCst) > 1, "{accepted:?}");
    // Pooled connections stay open to this upstream.
    scene.before.descriptors += 8;
    scene.ends();
}

#[test]
fn one_that_opens_no_window_holds_its_own_client_up_and_no_memory() {
    let runtime = Runtime::new().unwrap();
    let address = without_window(&runtime);
    let canary = Upstream::start("canary");
    let config = [
        GATEWAY.to_owned(),
        virtual_service("up", "      timeout: 2s"),
        service("up", &[address.port()]),
        destination_rule("up", "connectionPool: {http: {h2UpgradePolicy: UPGRADE}}"),
        virtual_service("canary", ""),
        service("canary", &[canary.port]),
    ];
    let limen = Limen::start_with(&[("all.yaml", &config.concat())], &["--stream-idle-timeout", "2s"]);
    let mut singing = Canary::start(limen.port);
    let (before, _) = crate::measure::memory(limen.child.id());
    let clients: Vec<_> = (0..10)
        .map(|_| {
            let mut stream = connect(limen.port).unwrap();
            stream.set_write_timeout(Some(Duration::from_secs(1))).unwrap();
            let head = "POST /up HTTP/1.1\r\nHost: up.example.com\r\nContent-Length: 100000000\r\n\r\n";
            stream.write_all(head.as_bytes()).unwrap();
            thread::spawn(move || {
                let piece = vec![b'x'; 1 << 16];
                let mut sent = 0_usize;
                // Until nobody takes more of it.
                while stream.write_all(&piece).is_ok() {
                    sent += piece.len();
                    assert!(sent < 90_000_000, "all of it was taken");
                }
                let mut answer = Vec::new();
                let _reset = stream.read_to_end(&mut answer);
                String::from_utf8_lossy(&answer).into_owned()
            })
        })
        .collect();
    for client in clients {
        let answer = client.join().unwrap();
        assert!(answer.is_empty() || !answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
    let (after, most) = crate::measure::memory(limen.child.id());
    println!(
        "measured: ten uploads of 100 MB to an upstream without window: {before} MiB before, {most} at the most"
    );
    assert!(most < before + 24, "{before} MiB before, {after} after, {most} at the most");
    singing.end("without window");
    assert!(!limen.process_log().contains("panicked"), "{}", limen.process_log());
}

#[test]
fn one_that_does_not_answer_a_ping_is_given_up() {
    let pool =
        "connectionPool: {http: {h2UpgradePolicy: UPGRADE, http2KeepAlive: {interval: 1s, timeout: 5s}}}";
    let scene = Scene::start("", &destination_rule("up", pool));
    let held = Footprint::of(scene.limen.child.id()).descriptors;
    assert_eq!(scene.proxy.open(), 1, "one connection is pooled");
    scene.proxy.set(gateway::testing::Fault::StallAfter(0));
    // After a second without a word it is asked, and after five without an answer it is closed.
    eventually("the connection to be given up", || {
        (Footprint::of(scene.limen.child.id()).descriptors < held).then_some(())
    });
    scene.heals();
}
