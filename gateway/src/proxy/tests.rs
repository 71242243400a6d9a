//! The request path over real sockets: configuration as users write it, listeners on port 0, upstreams in process.

use super::*;
use crate::{
    listener::{BindOptions, BoundAddress, EdgeTimeouts, ListenerManager},
    runtime::{Registry, dns::SystemResolver, registry::FIRST_RESOLUTION},
    snapshot::Snapshot,
    telemetry::{
        access_log::{Format, Target},
        metrics::Identity,
    },
};
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::{Request, Response, body::Frame, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use std::{collections::BTreeMap, convert::Infallible, net::SocketAddr, path::PathBuf};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    runtime::Handle,
    task::JoinHandle,
};

const PATIENCE: Duration = Duration::from_secs(20);

struct TestGateway {
    address: SocketAddr,
    metrics: Arc<Metrics>,
    log: PathBuf,
    cell: Arc<SnapshotCell>,
    registry: Registry,
    serving: JoinHandle<()>,
    _folder: tempfile::TempDir,
}

impl Drop for TestGateway {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn publish(cell: &SnapshotCell, registry: &Registry, yaml: &str) {
    let parsed = config_model::parse::parse("test.yaml", yaml);
    assert!(!parsed.diagnostics.has_errors(), "{:?}", parsed.diagnostics);
    let mut set = config_model::set::ResourceSet::default();
    parsed.resources.into_iter().for_each(|r| drop(set.insert(r)));
    let (validated, diagnostics) = config_model::validate::validate(set);
    assert!(
        diagnostics.iter().all(|d| d.effect != config_model::diagnostic::Effect::Rejected),
        "{diagnostics:?}"
    );
    let (compiled, diagnostics) =
        routing::compile::compile(&validated, &routing::compile::Identity::default(), None);
    let clusters = registry.reconcile(compiled.clusters.values().map(Arc::as_ref));
    registry.settle(&clusters, FIRST_RESOLUTION).await;
    cell.publish(Snapshot {
        generation: cell.load().generation + 1,
        listeners: compiled.listeners.clone(),
        clusters,
        diagnostics: Arc::new(diagnostics),
        ..Snapshot::default()
    });
}

async fn gateway(yaml: &str) -> TestGateway {
    let cell = Arc::new(SnapshotCell::default());
    let registry = Registry::new(Arc::new(SystemResolver::new()), Handle::current());
    publish(&cell, &registry, yaml).await;
    let metrics = Arc::new(Metrics::new(Identity::default(), "test").unwrap());
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("access.log");
    let target = Target::File(log.as_path().into());
    let access_log =
        AccessLog::start(Format::istio_text().unwrap(), &target, metrics.access_log_dropped.clone()).unwrap();
    let proxy = GatewayProxy::new(cell.clone(), metrics.clone(), Some(Arc::new(access_log)));
    let handler = Arc::new(HttpHandler::new(proxy, 1));
    let bind = BindOptions { address: Some("127.0.0.1".parse().unwrap()), ports: BTreeMap::from([(80, 0)]) };
    let manager = ListenerManager::new(
        cell.clone(),
        handler,
        bind,
        EdgeTimeouts::default(),
        Duration::from_millis(100),
    );
    let snapshot = cell.load();
    assert!(!snapshot.listeners.is_empty(), "{:?}", snapshot.diagnostics);
    assert!(manager.prepare(&snapshot.listeners).is_empty());
    let serving = tokio::spawn({
        let manager = manager.clone();
        async move { manager.run(1).await }
    });
    let bound = async {
        while !manager.all_bound() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, bound).await.unwrap();
    let address = match manager.bound().into_values().next().unwrap() {
        BoundAddress::Tcp(address) => SocketAddr::from(([127, 0, 0, 1], address.port())),
        BoundAddress::Unix(path) => panic!("bound {path:?}"),
    };
    TestGateway { address, metrics, log, cell, registry, serving, _folder: folder }
}

impl TestGateway {
    /// Sends bytes and reads until the gateway closes.
    async fn raw(&self, request: &str) -> String {
        let exchange = async {
            let mut stream = TcpStream::connect(self.address).await.unwrap();
            stream.write_all(request.as_bytes()).await.unwrap();
            let mut response = Vec::new();
            stream.read_to_end(&mut response).await.unwrap();
            String::from_utf8_lossy(&response).into_owned()
        };
        tokio::time::timeout(PATIENCE, exchange).await.expect("the gateway answers and closes")
    }

    async fn get(&self, path: &str) -> (u16, String, String) {
        self.send(&format!("GET {path} HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n")).await
    }

    async fn send(&self, request: &str) -> (u16, String, String) {
        let text = self.raw(request).await;
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no head in {text:?}"));
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        (status, head.to_ascii_lowercase(), body.to_owned())
    }

    /// The first line of the access log that contains `what`.
    async fn line(&self, what: &str) -> String {
        let found = async {
            loop {
                let text = std::fs::read_to_string(&self.log).unwrap_or_default();
                if let Some(line) = text.lines().find(|l| l.contains(what)) {
                    return line.to_owned();
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(PATIENCE, found).await.unwrap_or_else(|_| panic!("no line with {what}"))
    }
}

/// A gateway on port 80 whose `a.example` has these rules, and a service `up.example` with these endpoints.
fn config(rules: &str, endpoints: &[SocketAddr], protocol: &str) -> String {
    let endpoints: String = endpoints
        .iter()
        .map(|e| format!("  - address: {}\n    ports: {{main: {}}}\n", e.ip(), e.port()))
        .collect();
    format!(
        "apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {{name: gw, namespace: default}}
spec:
  selector: {{istio: ingressgateway}}
  servers:
  - port: {{number: 80, name: http, protocol: HTTP}}
    hosts: ['*']
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: vs, namespace: default}}
spec:
  hosts: [a.example]
  gateways: [gw]
  http:
{rules}---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: up, namespace: default}}
spec:
  hosts: [up.example]
  location: MESH_INTERNAL
  resolution: STATIC
  ports:
  - {{number: 80, name: main, protocol: {protocol}}}
  endpoints:
{endpoints}"
    )
}

const FORWARD: &str = "  - name: main\n    route: [{destination: {host: up.example, port: {number: 80}}}]\n";

/// Says what it was asked: request line, then headers in order of arrival.
async fn echo() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let service = service_fn(|request: Request<hyper::body::Incoming>| async move {
                let mut text = format!("{} {}\n", request.method(), request.uri());
                for (name, value) in request.headers() {
                    text.push_str(&format!("{name}: {}\n", value.to_str().unwrap()));
                }
                let response = Response::builder()
                    .header("x-up", "1")
                    .header("server", "upstream/1")
                    .header("keep-alive", "timeout=9");
                Ok::<_, Infallible>(response.body(Full::new(Bytes::from(text))).unwrap())
            });
            let connection =
                hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
            tokio::spawn(connection);
        }
    });
    address
}

/// Reads a head, writes `answer`, then echoes what comes until the other side closes, or closes itself.
async fn scripted(answer: &'static str, then_echo: bool) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    match stream.read_u8().await {
                        Ok(b) => head.push(b),
                        Err(_) => return,
                    }
                }
                stream.write_all(answer.as_bytes()).await.unwrap();
                if !then_echo {
                    return;
                }
                let mut buffer = [0; 1024];
                loop {
                    match stream.read(&mut buffer).await {
                        Ok(0) | Err(_) => return,
                        Ok(n) => stream.write_all(&buffer[..n]).await.unwrap(),
                    }
                }
            });
        }
    });
    address
}

/// An address that nobody listens on.
async fn nobody() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_host_or_route_is_404_nr_without_a_body() {
    let rules = "  - match: [{uri: {prefix: /only}}]\n    route: [{destination: {host: up.example}}]\n";
    let gateway = gateway(&config(rules, &[nobody().await], "HTTP")).await;
    let (status, head, body) = gateway.get("/other").await;
    assert_eq!((status, &*body), (404, ""), "{head}");
    assert!(head.contains("server: istio-envoy") && head.contains("date: "), "{head}");
    let (status, _, body) =
        gateway.send("GET /host HTTP/1.1\r\nHost: b.example\r\nConnection: close\r\n\r\n").await;
    assert_eq!((status, &*body), (404, ""));
    let line = gateway.line("/host").await;
    assert!(line.contains("\"GET /host HTTP/1.1\" 404 NR route_not_found - \"-\" 0 0 "), "{line}");
    assert!(line.contains("\"b.example\" \"-\" - - 127.0.0.1:"), "{line}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_endpoint_is_503_uf_after_the_default_retries() {
    let dead = nobody().await;
    let gateway = gateway(&config(FORWARD, &[dead], "HTTP")).await;
    let (status, _, body) = gateway.get("/dead").await;
    assert_eq!(status, 503);
    assert!(
        body.starts_with("upstream connect error or disconnect/reset before headers. reset reason: "),
        "{body}"
    );
    let line = gateway.line("/dead").await;
    assert!(line.contains(" 503 UF,URX upstream_reset_before_response_started{"), "{line}");
    assert!(line.contains(&format!("\"{dead}\" outbound|80||up.example ")), "{line}");
    let cluster = gateway.cell.load().clusters.values().next().unwrap().endpoints();
    assert_eq!((cluster.all[0].attempts(), cluster.all[0].failures(), cluster.all[0].in_flight()), (3, 3, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_goes_to_another_endpoint() {
    let gateway = gateway(&config(FORWARD, &[nobody().await, echo().await], "HTTP")).await;
    for _ in 0..8 {
        assert_eq!(gateway.get("/").await.0, 200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_without_ready_endpoints_is_503_uh_and_an_unknown_one_503_nc() {
    let rules = "  - match: [{uri: {prefix: /none}}]
    route: [{destination: {host: idle.default.svc.cluster.local, port: {number: 80}}}]
  - route: [{destination: {host: missing.example, port: {number: 80}}}]
";
    let idle = "---
apiVersion: v1
kind: Service
metadata: {name: idle, namespace: default}
spec: {ports: [{name: http, port: 80}], selector: {app: idle}, clusterIP: 10.9.9.9}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: idle-1, namespace: default, labels: {kubernetes.io/service-name: idle}}
addressType: IPv4
ports: [{name: http, port: 80}]
endpoints: [{addresses: [127.0.0.1], conditions: {ready: false}}]
";
    let gateway = gateway(&(config(rules, &[nobody().await], "HTTP") + idle)).await;
    let (status, head, body) = gateway.get("/none").await;
    assert_eq!((status, &*body), (503, "no healthy upstream"), "{head}");
    assert!(head.contains("content-type: text/plain"), "{head}");
    assert!(gateway.line("/none").await.contains(" 503 UH no_healthy_upstream "));
    let (status, _, body) = gateway.get("/missing").await;
    assert_eq!((status, &*body), (503, ""));
    assert!(gateway.line("/missing").await.contains(" 503 NC cluster_not_found "));
}

#[tokio::test(flavor = "multi_thread")]
async fn rewrites_and_header_operations_reach_the_upstream_and_the_client() {
    let rules = "  - match: [{uri: {prefix: /api/}}]
    rewrite: {uri: /v1/, authority: inner.example}
    headers:
      request: {set: {x-set: s}, add: {x-add: a}, remove: [x-gone]}
      response: {set: {x-resp: r}, remove: [x-up]}
    route: [{destination: {host: up.example, port: {number: 80}}}]
";
    let gateway = gateway(&config(rules, &[echo().await], "HTTP")).await;
    let (status, head, body) = gateway
        .send(
            "GET /api/./x?q=1 HTTP/1.1\r\nHost: a.example\r\nX-Gone: 1\r\nX-Envoy-Retry-On: 5xx\r\n\
             X-Forwarded-For: 192.0.2.1\r\nX-Forwarded-Proto: https\r\nConnection: close\r\n\r\n",
        )
        .await;
    assert_eq!(status, 200);
    assert!(body.starts_with("GET /v1/x?q=1\n"), "{body}");
    for wanted in [
        "host: inner.example\n",
        "x-set: s\n",
        "x-add: a\n",
        "x-forwarded-for: 192.0.2.1,127.0.0.1\n",
        "x-forwarded-proto: http\n",
        "x-envoy-original-path: /api/x?q=1\n",
        "x-envoy-attempt-count: 1\n",
        "x-request-id: ",
    ] {
        assert!(body.contains(wanted), "{wanted:?} in {body}");
    }
    assert!(!body.contains("x-gone") && !body.contains("retry-on"), "{body}");
    for wanted in ["server: istio-envoy", "x-resp: r", "x-envoy-upstream-service-time: "] {
        assert!(head.contains(wanted), "{wanted:?} in {head}");
    }
    assert!(!head.contains("x-up:") && !head.contains("keep-alive: timeout"), "{head}");
    let line = gateway.line("/api/x?q=1").await;
    assert!(line.contains("\"GET /api/x?q=1 HTTP/1.1\" 200 - via_upstream "), "{line}");
    assert!(line.contains("\"inner.example\" \"127.0.0.1:"), "{line}");
    let metrics = String::from_utf8(gateway.metrics.encode()).unwrap();
    let series = metrics.lines().find(|l| l.starts_with("istio_requests_total{")).unwrap();
    for label in ["destination_service=\"up.example\"", "response_code=\"200\"", "response_flags=\"-\""] {
        assert!(series.contains(label), "{label} in {series}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn redirects_and_fixed_replies_are_ours() {
    let rules = "  - match: [{uri: {exact: /r}}]
    redirect: {uri: /new, redirectCode: 308}
    headers: {response: {set: {x-resp: r}}}
  - directResponse: {status: 418, body: {string: short and stout}}
";
    let gateway = gateway(&config(rules, &[nobody().await], "HTTP")).await;
    let (status, head, _) = gateway.get("/r").await;
    assert_eq!(status, 308);
    assert!(head.contains("location: http://a.example/new") && head.contains("x-resp: r"), "{head}");
    let (status, head, body) = gateway.get("/").await;
    assert_eq!((status, &*body), (418, "short and stout"));
    assert!(head.contains("content-type: text/plain") && head.contains("content-length: 15"), "{head}");
    let (status, head, body) =
        gateway.send("HEAD / HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n").await;
    assert_eq!((status, &*body), (418, ""));
    assert!(head.contains("content-length: 15"), "{head}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_websocket_is_a_tunnel_for_both_ends_and_outlives_a_reload() {
    let answer = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                  Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
    let yaml = config(FORWARD, &[scripted(answer, true).await], "HTTP");
    let gateway = gateway(&yaml).await;
    let mut stream = TcpStream::connect(gateway.address).await.unwrap();
    let request = "GET /ws HTTP/1.1\r\nHost: a.example\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                   Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(tokio::time::timeout(PATIENCE, stream.read_u8()).await.unwrap().unwrap());
    }
    let head = String::from_utf8(head).unwrap().to_ascii_lowercase();
    assert!(head.starts_with("http/1.1 101 ") && head.contains("upgrade: websocket"), "{head}");
    for round in ["one", "two"] {
        stream.write_all(round.as_bytes()).await.unwrap();
        let mut back = vec![0; round.len()];
        tokio::time::timeout(PATIENCE, stream.read_exact(&mut back)).await.unwrap().unwrap();
        assert_eq!(back, round.as_bytes());
        publish(&gateway.cell, &gateway.registry, &yaml).await;
    }
    drop(stream);
    let line = gateway.line("/ws").await;
    assert!(line.contains(" 101 "), "{line}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_route_that_takes_too_long_is_504_ut_and_an_upstream_that_hangs_up_503_uc() {
    let rules = "  - match: [{uri: {prefix: /slow}}]
    timeout: 100ms
    route: [{destination: {host: up.example, port: {number: 80}}}]
";
    let slow = gateway(&config(rules, &[scripted("", true).await], "HTTP")).await;
    let (status, _, body) = slow.get("/slow").await;
    assert_eq!((status, &*body), (504, "upstream request timeout"));
    assert!(slow.line("/slow").await.contains(" 504 UT response_timeout "));

    let rude = gateway(&config(FORWARD, &[scripted("", false).await], "HTTP")).await;
    let (status, _, body) = rude.get("/rude").await;
    assert_eq!(status, 503);
    assert!(body.ends_with("reset reason: connection termination"), "{body}");
    assert!(rude.line("/rude").await.contains(" 503 UC "));

    let garbage = gateway(&config(FORWARD, &[scripted("no http\r\n\r\n", false).await], "HTTP")).await;
    let (status, _, body) = garbage.get("/garbage").await;
    assert_eq!(status, 502);
    assert!(body.ends_with("reset reason: protocol error"), "{body}");
    assert!(garbage.line("/garbage").await.contains(" 502 UPE "));
}

#[tokio::test(flavor = "multi_thread")]
async fn heads_that_others_could_read_differently_are_refused() {
    let gateway = gateway(&config(FORWARD, &[echo().await], "HTTP")).await;
    for (request, wants) in [
        ("GET / HTTP/1.0\r\nHost: a.example\r\n\r\n", 426),
        ("GET / HTTP/1.1\r\nConnection: close\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a,b\r\nConnection: close\r\n\r\n", 400),
        ("GET  / HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n", 400),
        ("GET / HTTP/1.1\nHost: a.example\n\n", 400),
        ("GET /%zz HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n", 400),
        (
            "POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            400,
        ),
        ("POST / HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 501),
    ] {
        assert_eq!(gateway.send(request).await.0, wants, "{request:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pipelined_requests_are_all_served_and_a_waiting_body_is_asked_for() {
    let gateway = gateway(&config(FORWARD, &[echo().await], "HTTP")).await;
    let both = gateway
        .raw(
            "GET /first HTTP/1.1\r\nHost: a.example\r\n\r\n\
             GET /second HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n",
        )
        .await;
    assert!(both.contains("GET /first\n") && both.contains("GET /second\n"), "{both}");

    let text = gateway
        .raw(
            "POST /c HTTP/1.1\r\nHost: a.example\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\
             Connection: close\r\n\r\nhi",
        )
        .await;
    assert!(text.starts_with("HTTP/1.1 100 ") && text.contains("POST /c\n"), "{text}");
    assert!(!text.contains("expect: "), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_absolute_target_reaches_the_upstream_as_its_path() {
    let gateway = gateway(&config(FORWARD, &[echo().await], "HTTP")).await;
    for (target, wants) in
        [("http://a.example/x?q=1", "GET /x?q=1\n"), ("http://a.example/y/../z", "GET /z\n")]
    {
        let (status, _, body) = gateway.get(target).await;
        assert_eq!(status, 200);
        assert!(body.starts_with(wants) && body.contains("host: a.example\n"), "{target}: {body}");
    }
}

/// A gRPC-like upstream on HTTP/2: a message, then trailers.
async fn grpc_upstream() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let service = service_fn(|request: Request<hyper::body::Incoming>| async move {
                assert_eq!(request.headers().get("te").unwrap(), "trailers");
                let mut trailers = ::http::HeaderMap::new();
                trailers.insert("grpc-status", "5".parse().unwrap());
                let frames = [
                    Ok::<_, Infallible>(Frame::data(Bytes::from_static(b"\0\0\0\0\0"))),
                    Ok(Frame::trailers(trailers)),
                ];
                let body: UnsyncBoxBody<Bytes, Infallible> =
                    BodyExt::boxed_unsync(StreamBody::new(futures::stream::iter(frames)));
                let response =
                    Response::builder().header("content-type", "application/grpc").body(body).unwrap();
                Ok::<_, Infallible>(response)
            });
            tokio::spawn(async move {
                let _ = auto::Builder::new(TokioExecutor::new())
                    .http2_only()
                    .serve_connection(TokioIo::new(stream), service)
                    .await;
            });
        }
    });
    address
}

#[tokio::test(flavor = "multi_thread")]
async fn grpc_keeps_its_trailers_and_gets_its_own_kind_of_error() {
    let rules = "  - match: [{uri: {prefix: /pkg.Service/}}]
    route: [{destination: {host: up.example, port: {number: 80}}}]
";
    let gateway = gateway(&config(rules, &[grpc_upstream().await], "GRPC")).await;
    let stream = TcpStream::connect(gateway.address).await.unwrap();
    let (mut client, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let mut call = async |path: &str| {
        let request = Request::post(format!("http://a.example{path}"))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(Full::new(Bytes::from_static(b"\0\0\0\0\0")))
            .unwrap();
        let response = tokio::time::timeout(PATIENCE, client.send_request(request)).await.unwrap().unwrap();
        let (head, body) = response.into_parts();
        let head_only = hyper::body::Body::is_end_stream(&body);
        (head, head_only, body.collect().await.unwrap().trailers().cloned())
    };
    let (head, _, trailers) = call("/pkg.Service/Method").await;
    assert_eq!(head.status, 200);
    assert_eq!(trailers.unwrap()["grpc-status"], "5");
    let (head, head_only, _) = call("/other").await;
    assert_eq!((head.status.as_u16(), &head.headers["grpc-status"]), (200, &"12".parse().unwrap()));
    assert!(
        head_only,
        "a status without messages is the frame that ends the stream, or clients call it a broken one"
    );
    let line = gateway.line("/pkg.Service/Method").await;
    assert!(line.contains("\"POST /pkg.Service/Method HTTP/2\" 200 - via_upstream "), "{line}");
    let metrics = String::from_utf8(gateway.metrics.encode()).unwrap();
    assert!(metrics.contains("grpc_response_status=\"5\""), "{metrics}");
}

/// A TLS upstream that bears `key` and answers every request with 200.
fn tls_upstream(key: &config_model::kubernetes::Secret) -> SocketAddr {
    use boring::{
        pkey::PKey,
        ssl::{SslAcceptor, SslMethod},
        x509::X509,
    };
    use std::io::{Read, Write};
    let mut acceptor = SslAcceptor::mozilla_intermediate_v5(SslMethod::tls()).unwrap();
    acceptor.set_certificate(&X509::from_pem(key.data["tls.crt"].expose()).unwrap()).unwrap();
    acceptor.set_private_key(&PKey::private_key_from_pem(key.data["tls.key"].expose()).unwrap()).unwrap();
    let acceptor = acceptor.build();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        while let Ok((stream, _)) = listener.accept() {
            let Ok(mut stream) = acceptor.accept(stream) else { continue };
            let mut head = Vec::new();
            let mut byte = [0];
            while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|n| n == 1) {
                head.push(byte[0]);
            }
            if head.ends_with(b"\r\n\r\n") {
                stream
                    .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")
                    .unwrap();
            }
        }
    });
    address
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_is_not_who_it_should_be_is_not_used() {
    let key = crate::tls::test_keys::ecdsa("up.example");
    let folder = tempfile::tempdir().unwrap();
    let roots = folder.path().join("roots.pem");
    std::fs::write(&roots, key.data["tls.crt"].expose()).unwrap();
    let roots = roots.display();
    let upstream = tls_upstream(&key);
    for (tls, wants) in [
        (format!("sni: up.example, caCertificates: {roots}"), 200),
        (format!("sni: up.example, caCertificates: {roots}, subjectAltNames: [up.example]"), 200),
        ("sni: up.example, insecureSkipVerify: true".to_owned(), 200),
        ("sni: up.example".to_owned(), 503),
        (format!("sni: up.example, caCertificates: {roots}, subjectAltNames: [other.example]"), 503),
        ("sni: up.example, caCertificates: /does/not/exist.pem".to_owned(), 503),
    ] {
        let rule = format!(
            "---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {{name: up, namespace: default}}
spec: {{host: up.example, trafficPolicy: {{tls: {{mode: SIMPLE, {tls}}}}}}}
"
        );
        let gateway = gateway(&(config(FORWARD, &[upstream], "HTTP") + &rule)).await;
        let (status, _, body) = gateway.get("/tls").await;
        assert_eq!(status, wants, "{tls}: {body}");
        if wants == 503 {
            assert!(gateway.line("/tls").await.contains(" 503 UF"), "{tls}");
            assert!(!body.contains("exist.pem"), "{body}");
        }
    }
}
