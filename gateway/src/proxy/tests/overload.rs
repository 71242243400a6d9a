//! Requests that come while the process is short of something, and connections that have lived their time.

use super::*;
use crate::pressure::Marks;

#[tokio::test(flavor = "multi_thread")]
async fn a_process_short_of_room_says_come_back_later_and_serves_again() {
    let up = upstreams::named("up", 200, Duration::ZERO).await;
    let gateway = gateway(&config(FORWARD, &[up], "HTTP")).await;
    assert_eq!(gateway.get("/before").await.0, 200);

    gateway.manager.pressure().note(93, &Marks::default());
    let answer = gateway.raw("GET /short HTTP/1.1\r\nHost: a.example\r\n\r\n").await;
    let head = answer.to_ascii_lowercase();
    assert!(head.starts_with("http/1.1 503 "), "{answer}");
    assert!(
        head.contains("\r\nretry-after: 1\r\n") && head.contains("\r\nconnection: close\r\n"),
        "{answer}"
    );
    assert!(answer.ends_with("envoy overloaded"), "{answer}");
    let line = gateway.line("/short").await;
    assert!(line.contains(" 503 OM ") && line.contains("overload"), "{line}");
    let metrics = String::from_utf8_lossy(&gateway.metrics.encode()).into_owned();
    assert!(metrics.contains("response_flags=\"OM\""), "{metrics}");

    gateway.manager.pressure().note(10, &Marks::default());
    assert_eq!(gateway.get("/after").await.0, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tcp_connection_ends_when_it_has_lived_its_time() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let up = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut read, mut write) = stream.split();
                tokio::io::copy(&mut read, &mut write).await
            });
        }
    });
    let yaml = connections::tcp_config(up, "connectionPool: {tcp: {maxConnectionDuration: 300ms}}");
    let gateway = gateway(&yaml).await;
    let mut client = TcpStream::connect(gateway.address).await.unwrap();
    client.write_all(b"hello").await.unwrap();
    let mut seen = Vec::new();
    let ended = tokio::time::timeout(PATIENCE, client.read_to_end(&mut seen)).await;
    ended.expect("the gateway closes").unwrap();
    assert_eq!(seen, b"hello");
    assert!(gateway.line(" DT ").await.contains("outbound|80||up.example"));
}
