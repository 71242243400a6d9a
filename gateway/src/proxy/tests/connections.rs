//! Connections to upstreams over real sockets: how many, how long, and how they begin.

use super::*;
use std::sync::Mutex;
use tokio::net::{UnixListener, UnixStream};

/// What arrived on each connection: everything before the first request line, and the number of requests.
type Seen = Arc<Mutex<Vec<(Vec<u8>, usize)>>>;

/// Answers HTTP/1.1 requests, and keeps connections open whatever it is asked.
fn answer(
    mut stream: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
    seen: Seen,
) {
    tokio::spawn(async move {
        let at = {
            let mut seen = seen.lock().unwrap();
            seen.push((Vec::new(), 0));
            seen.len() - 1
        };
        let mut bytes = Vec::new();
        while stream.read_buf(&mut bytes).await.is_ok_and(|n| n > 0) {
            // A version 2 header has an empty line in it: what counts is the one after the request line.
            while let Some(start) = bytes.windows(4).position(|w| w == b"GET ")
                && let Some(length) = bytes[start..].windows(4).position(|w| w == b"\r\n\r\n")
            {
                let head: Vec<u8> = bytes.drain(..start + length + 4).collect();
                {
                    let mut seen = seen.lock().unwrap();
                    seen[at].0.extend_from_slice(&head[..start]);
                    seen[at].1 += 1;
                }
                stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await.unwrap();
            }
        }
    });
}

async fn counting() -> (SocketAddr, Seen) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let seen = Seen::default();
    let all = seen.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            answer(stream, all.clone());
        }
    });
    (address, seen)
}

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

fn requests(seen: &Seen) -> Vec<usize> {
    seen.lock().unwrap().iter().map(|(_, requests)| *requests).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_carries_no_more_requests_than_it_may() {
    for (most, wants) in [(0, vec![6]), (1, vec![1; 6]), (2, vec![2; 3]), (4, vec![4, 2])] {
        let (upstream, seen) = counting().await;
        let policy = rule(&format!("connectionPool: {{http: {{maxRequestsPerConnection: {most}}}}}"));
        let gateway = gateway(&(config(FORWARD, &[upstream], "HTTP") + &policy)).await;
        for _ in 0..6 {
            assert_eq!(gateway.get("/x").await.0, 200);
        }
        assert_eq!(requests(&seen), wants, "at most {most}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_lives_no_longer_than_it_may() {
    let (upstream, seen) = counting().await;
    let policy = rule("connectionPool: {tcp: {maxConnectionDuration: 200ms}}");
    let gateway = gateway(&(config(FORWARD, &[upstream], "HTTP") + &policy)).await;
    assert_eq!(gateway.get("/x").await.0, 200);
    assert_eq!(gateway.get("/x").await.0, 200);
    assert_eq!(requests(&seen), [2]);
    let cluster = gateway.cell.load().clusters.values().next().unwrap().clone();
    let gone = async {
        while cluster.counters.now(crate::runtime::Limit::Connections) > 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, gone).await.unwrap();
    assert_eq!(gateway.get("/x").await.0, 200);
    assert_eq!(requests(&seen), [2, 1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_connection_makes_room_for_one_to_another_endpoint() {
    let ((a, seen_a), (b, seen_b)) = (counting().await, counting().await);
    let policy = rule("loadBalancer: {simple: ROUND_ROBIN}, connectionPool: {tcp: {maxConnections: 1}}");
    let gateway = gateway(&(config(FORWARD, &[a, b], "HTTP") + &policy)).await;
    for _ in 0..6 {
        assert_eq!(gateway.get("/x").await.0, 200);
    }
    assert_eq!(requests(&seen_a).iter().sum::<usize>() + requests(&seen_b).iter().sum::<usize>(), 6);
    let cluster = gateway.cell.load().clusters.values().next().unwrap().clone();
    let few = async {
        while cluster.counters.now(crate::runtime::Limit::Connections) > 1 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, few).await.expect("one connection at a time");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_begins_with_the_proxy_header_that_is_asked_for() {
    for (version, begins) in
        [("V1", &b"PROXY TCP4 127.0.0.1 127.0.0.1 "[..]), ("V2", &b"\r\n\r\n\0\r\nQUIT\n\x21\x11"[..])]
    {
        let (upstream, seen) = counting().await;
        let policy = rule(&format!("proxyProtocol: {{version: {version}}}"));
        let gateway = gateway(&(config(FORWARD, &[upstream], "HTTP") + &policy)).await;
        for _ in 0..2 {
            assert_eq!(gateway.get("/x").await.0, 200, "{version}");
        }
        let seen = seen.lock().unwrap().clone();
        // Two clients: a connection that speaks for one is not used for the other.
        assert_eq!(seen.len(), 2, "{version}");
        assert!(seen.iter().all(|(first, _)| first.starts_with(begins)), "{version}: {seen:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn unix_sockets_are_dialled_by_path_and_by_abstract_name() {
    use std::os::linux::net::SocketAddrExt as _;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("up.sock");
    let name = format!("limen-test-{}", fastrand::u64(..));
    let by_path = UnixListener::bind(&path).unwrap();
    let address = std::os::unix::net::SocketAddr::from_abstract_name(&name).unwrap();
    let by_name = std::os::unix::net::UnixListener::bind_addr(&address).unwrap();
    by_name.set_nonblocking(true).unwrap();
    let by_name = UnixListener::from_std(by_name).unwrap();
    for (listener, written) in [(by_path, path.display().to_string()), (by_name, format!("@{name}"))] {
        let seen = Seen::default();
        let all = seen.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let stream: UnixStream = stream;
                answer(stream, all.clone());
            }
        });
        let yaml = config(FORWARD, &[], "HTTP") + &format!("  - address: unix://{written}\n");
        let gateway = gateway(&yaml).await;
        for _ in 0..2 {
            assert_eq!(gateway.get("/x").await.0, 200, "{written}");
        }
        assert_eq!(requests(&seen).iter().sum::<usize>(), 2, "{written}");
    }
}

/// Answers for every name with these addresses.
struct Told(Vec<std::net::IpAddr>);

#[async_trait::async_trait]
impl crate::runtime::dns::Resolve for Told {
    async fn resolve(
        &self,
        _name: &str,
    ) -> Result<crate::runtime::dns::Answer, crate::runtime::dns::ResolveError> {
        Ok(crate::runtime::dns::Answer { addresses: self.0.clone(), ttl: Duration::from_secs(60) })
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_with_several_addresses_is_reached_at_the_one_that_answers_and_its_connection_is_kept() {
    let (upstream, seen) = counting().await;
    let resolver = Told(vec!["127.0.0.2".parse().unwrap(), upstream.ip()]);
    let yaml = config(FORWARD, &[], "HTTP")
        .replace("resolution: STATIC", "resolution: DNS_ROUND_ROBIN")
        .replace("  endpoints:\n", "  endpoints: [{address: host.up.example, ports: {main: PORT}}]\n")
        .replace("PORT", &upstream.port().to_string());
    let gateway = gateway_with(&yaml, Registry::new(Arc::new(resolver), Handle::current())).await;
    for n in 0..3 {
        let (status, _, body) = gateway.get(&format!("/{n}")).await;
        assert_eq!(status, 200, "{body}");
    }
    assert_eq!(seen.lock().unwrap().len(), 1, "connections");
    assert!(gateway.line("/2").await.contains(&upstream.to_string()), "the address that was used is logged");
}

/// A proxy that answers CONNECT with `status`, says "early" through the tunnel and then what it hears.
async fn forward_proxy(status: &str) -> (SocketAddr, Arc<Mutex<String>>) {
    answering_proxy(format!("HTTP/1.1 {status}\r\nVia: 1.1 p\r\n\r\nearly ")).await
}

/// A proxy that answers whatever it is asked with these bytes, and says what it hears.
async fn answering_proxy(answer: String) -> (SocketAddr, Arc<Mutex<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let asked = Arc::<Mutex<String>>::default();
    let heard = asked.clone();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") && stream.read_buf(&mut head).await.is_ok_and(|n| n > 0) {}
            *heard.lock().unwrap() = String::from_utf8_lossy(&head).into_owned();
            stream.write_all(answer.as_bytes()).await.unwrap();
            let (mut read, mut write) = stream.split();
            drop(tokio::io::copy(&mut read, &mut write).await);
        }
    });
    (address, asked)
}

pub(super) fn tcp_config(up: SocketAddr, policy: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {{name: gw, namespace: default}}
spec:
  selector: {{istio: ingressgateway}}
  servers: [{{port: {{number: 80, name: tcp, protocol: TCP}}, hosts: ['*']}}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: vs, namespace: default}}
spec:
  hosts: ['*']
  gateways: [gw]
  tcp: [{{route: [{{destination: {{host: up.example, port: {{number: 80}}}}}}]}}]
{}{}",
        rule(policy),
        service("up", up, "TCP")
    )
}

/// What a client gets who says `word` and nothing more.
pub(super) async fn say(gateway: &TestGateway, word: &str) -> String {
    let exchange = async {
        let mut client = TcpStream::connect(gateway.address).await.unwrap();
        client.write_all(word.as_bytes()).await.unwrap();
        client.shutdown().await.unwrap();
        let mut got = Vec::new();
        // A connection that is refused may be reset.
        let _end = client.read_to_end(&mut got).await;
        String::from_utf8(got).unwrap()
    };
    tokio::time::timeout(PATIENCE, exchange).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tunnel_leads_through_a_proxy_or_nowhere() {
    let tunnel = "tunnel: {targetHost: far.example, targetPort: 8443}";
    let (proxy, asked) = forward_proxy("200 Connection established").await;
    let gateway = gateway(&tcp_config(proxy, tunnel)).await;
    assert_eq!(say(&gateway, "hello").await, "early hello");
    assert_eq!(*asked.lock().unwrap(), "CONNECT far.example:8443 HTTP/1.1\r\nHost: far.example:8443\r\n\r\n");
    let (proxy, _) = forward_proxy("407 Proxy Authentication Required").await;
    publish(&gateway.cell, &gateway.registry, &tcp_config(proxy, tunnel)).await;
    assert_eq!(say(&gateway, "hello").await, "");
    assert!(gateway.line(" UF ").await.contains("answered 407"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tunnel_by_post_is_two_bodies() {
    let tunnel = "tunnel: {protocol: POST, targetHost: far.example, targetPort: 8443}";
    // What the proxy hears is in chunks, and so is what it says.
    let answer =
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n6\r\nearly \r\n";
    let (proxy, asked) = answering_proxy(answer.to_owned()).await;
    let gateway = gateway(&tcp_config(proxy, tunnel)).await;
    assert_eq!(say(&gateway, "hello").await, "early hello");
    assert_eq!(
        *asked.lock().unwrap(),
        "POST / HTTP/1.1\r\nHost: far.example:8443\r\nTransfer-Encoding: chunked\r\n\r\n"
    );
    for (answer, why) in [
        ("HTTP/1.1 403 Forbidden\r\n\r\n", "answered 403"),
        ("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", "no clear end"),
    ] {
        let (proxy, _) = answering_proxy(answer.to_owned()).await;
        publish(&gateway.cell, &gateway.registry, &tcp_config(proxy, tunnel)).await;
        assert_eq!(say(&gateway, "hello").await, "");
        assert!(gateway.line(why).await.contains(" UF "), "{why}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_are_not_http_overflow_at_once() {
    let (up, _) = forward_proxy("200 OK").await;
    let gateway = gateway(&tcp_config(up, "connectionPool: {tcp: {maxConnections: 1}}")).await;
    let mut first = TcpStream::connect(gateway.address).await.unwrap();
    first.write_all(b"\r\n\r\n").await.unwrap();
    first.read_exact(&mut [0; 8]).await.unwrap();
    assert_eq!(say(&gateway, "\r\n\r\n").await, "", "there is one already");
    gateway.line(" UO ").await;
    drop(first);
    let again = async {
        while say(&gateway, "\r\n\r\n").await.is_empty() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, again).await.unwrap();
}
