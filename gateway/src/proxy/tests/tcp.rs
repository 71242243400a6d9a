//! Connections that are not HTTP: where they go, how long they may be silent, and what is said of those that go nowhere.

use super::{
    connections::{say, tcp_config},
    failures::WITHOUT_ENDPOINTS,
    *,
};

const ONE: &str = "tcp: [{route: [{destination: {host: up.example, port: {number: 80}}}]}]";
/// Asks for nothing that would be noticed.
const POLICY: &str = "connectionPool: {tcp: {maxConnections: 1000}}";

/// Says its name, and then what it is told.
async fn named(name: &'static str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut read, mut write) = stream.split();
                write.write_all(name.as_bytes()).await?;
                tokio::io::copy(&mut read, &mut write).await
            });
        }
    });
    address
}

#[tokio::test(flavor = "multi_thread")]
async fn destinations_get_their_shares() {
    let up = named("up ").await;
    let route: String = [("one", 1), ("two", 3), ("never", 0)]
        .iter()
        .map(|(name, weight)| {
            format!("{{destination: {{host: {name}.example, port: {{number: 80}}}}, weight: {weight}}}, ")
        })
        .collect();
    let yaml = [
        tcp_config(up, POLICY).replace(ONE, &format!("tcp: [{{route: [{route}]}}]")),
        service("one", named("one ").await, "TCP"),
        service("two", named("two ").await, "TCP"),
        service("never", named("never ").await, "TCP"),
    ]
    .concat();
    let gateway = gateway(&yaml).await;
    let mut ones = 0;
    for _ in 0..400 {
        match say(&gateway, "hello").await.as_str() {
            "one hello" => ones += 1,
            "two hello" => {}
            other => panic!("{other:?}"),
        }
    }
    // 100 are expected; this is more than four standard deviations away.
    assert!((60..=140).contains(&ones), "{ones}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_connection_is_ended_and_one_that_speaks_is_not() {
    let policy = "connectionPool: {tcp: {idleTimeout: 400ms}}";
    let gateway = gateway(&tcp_config(named("").await, policy)).await;
    let mut silent = TcpStream::connect(gateway.address).await.unwrap();
    let mut speaks = TcpStream::connect(gateway.address).await.unwrap();
    let end = tokio::spawn(async move { silent.read(&mut [0]).await.unwrap() });
    for _ in 0..10 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        speaks.write_all(b"x").await.unwrap();
        assert_eq!(speaks.read_u8().await.unwrap(), b'x');
    }
    assert_eq!(tokio::time::timeout(PATIENCE, end).await.unwrap().unwrap(), 0);
    let line = gateway.line(" SI ").await;
    assert!(line.contains("outbound|80||up.example"), "{line}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_goes_nowhere_is_closed_and_says_why() {
    for (host, flag) in
        [("nobody.example", "NC"), ("idle.default.svc.cluster.local", "UH"), ("up.example", "UF")]
    {
        let yaml = tcp_config(nobody().await, POLICY).replace(ONE, &ONE.replace("up.example", host));
        let gateway = gateway(&(yaml + WITHOUT_ENDPOINTS)).await;
        assert_eq!(say(&gateway, "hello").await, "", "{host}");
        let line = gateway.line(&format!(" {flag} ")).await;
        assert!(line.contains(" 0 "), "no status: {line}");
        let metrics = String::from_utf8_lossy(&gateway.metrics.encode()).into_owned();
        assert!(metrics.contains(&format!("response_flags=\"{flag}\"")), "{metrics}");
    }
}
