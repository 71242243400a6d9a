//! What the client gets when there is nobody to answer, or nobody answers well.

use super::*;

/// A Service `default/idle` that nobody stands behind.
pub(super) const WITHOUT_ENDPOINTS: &str = "---
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
endpoints: [{addresses: [127.0.0.1], conditions: {ready: false, terminating: false}}]
";

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
        body.ends_with("before headers. retried and the latest reset reason: remote connection failure"),
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
    let gateway = gateway(&(config(rules, &[nobody().await], "HTTP") + WITHOUT_ENDPOINTS)).await;
    let (status, head, body) = gateway.get("/none").await;
    assert_eq!((status, &*body), (503, "no healthy upstream"), "{head}");
    assert!(head.contains("content-type: text/plain"), "{head}");
    assert!(gateway.line("/none").await.contains(" 503 UH no_healthy_upstream "));
    let (status, _, body) = gateway.get("/missing").await;
    assert_eq!((status, &*body), (503, ""));
    assert!(gateway.line("/missing").await.contains(" 503 NC cluster_not_found "));
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
async fn a_connection_goes_on_after_an_error_upstream_unless_the_body_was_left_unread() {
    let rules = "  - match: [{uri: {prefix: /hang}}]
    timeout: 100ms
    route: [{destination: {host: hung.example, port: {number: 80}}}]
  - match: [{uri: {prefix: /dead}}]
    retries: {attempts: 0}
    route: [{destination: {host: dead.example, port: {number: 80}}}]
"
    .to_owned()
        + FORWARD;
    let yaml = config(&rules, &[plays(&[OK]).await.address], "HTTP")
        + &service("hung", plays(&[HANG]).await.address, "HTTP")
        + &service("dead", nobody().await, "HTTP");
    let gateway = gateway(&yaml).await;
    // One after the other, and all at once.
    let requests = ["/dead/1", "/hang/2", "/ok/3", "/dead/4"]
        .map(|path| format!("GET {path} HTTP/1.1\r\nHost: a.example\r\n\r\n"));
    let end = "POST /dead/5 HTTP/1.1\r\nHost: a.example\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi";
    let all = gateway.raw(&(requests.concat() + end)).await;
    let statuses: Vec<_> = all.match_indices("HTTP/1.1 ").map(|(at, _)| &all[at + 9..at + 12]).collect();
    assert_eq!(statuses, ["503", "504", "200", "503", "503"], "{all}");
    assert_eq!(all.to_ascii_lowercase().matches("connection: close").count(), 1, "{all}");

    let mut stream = TcpStream::connect(gateway.address).await.unwrap();
    for (request, status) in requests.iter().zip(["503", "504", "200", "503"]) {
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            head.push(tokio::time::timeout(PATIENCE, stream.read_u8()).await.unwrap().unwrap().into());
        }
        assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{head}");
        let (_, length) = head
            .to_ascii_lowercase()
            .split_once("content-length: ")
            .map(|(a, b)| (a.len(), b.to_owned()))
            .unwrap();
        let mut body = vec![0; length.split("\r\n").next().unwrap().parse().unwrap()];
        tokio::time::timeout(PATIENCE, stream.read_exact(&mut body)).await.unwrap().unwrap();
    }

    // A body that nobody wants is not waited for.
    let half = "POST /dead/half HTTP/1.1\r\nHost: a.example\r\nContent-Length: 9\r\n\r\nhi";
    let text = gateway.raw(half).await.to_ascii_lowercase();
    assert!(text.starts_with("http/1.1 503 ") && text.contains("connection: close"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_response_that_breaks_off_is_an_error_of_the_protocol() {
    const OK_HEAD: &str = "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc";
    const CHUNKED: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n";
    const IN_A_CHUNK: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nabc";
    const BAD_CHUNK: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nzz\r\n";
    for (act, path) in [
        (&[Act::SayAndLeave(OK_HEAD)], "/length"),
        (&[Act::SayAndLeave(CHUNKED)], "/between-chunks"),
        (&[Act::SayAndLeave(IN_A_CHUNK)], "/in-a-chunk"),
        (&[Act::SayAndLeave(BAD_CHUNK)], "/bad-chunk"),
    ] {
        let gateway = gateway(&config(FORWARD, &[plays(act).await.address], "HTTP")).await;
        let (status, _, body) =
            gateway.send(&format!("GET {path} HTTP/1.1\r\nHost: a.example\r\n\r\n")).await;
        assert_eq!(status, 200, "{path}");
        assert!(!body.ends_with("0\r\n\r\n"), "{path}: made to look whole: {body}");
        let line = gateway.line(path).await;
        assert!(line.contains(" 200 UPE upstream_reset_after_response_started{protocol_error} "), "{line}");
    }
    for (act, path) in [
        (&[Act::SayAndLeave("HTTP/1.1 200 OK\r\nContent-Le")], "/half-a-head"),
        (&[Act::SayAndLeave("HTTP/1.1 2")], "/half-a-line"),
    ] {
        let gateway = gateway(&config(FORWARD, &[plays(act).await.address], "HTTP")).await;
        let (status, _, body) = gateway.get(path).await;
        assert_eq!(status, 502, "{path}");
        assert!(body.ends_with("reset reason: protocol error"), "{body}");
        let line = gateway.line(path).await;
        assert!(line.contains(" 502 UPE upstream_reset_before_response_started{protocol_error} "), "{line}");
    }
}

/// An HTTP/2 upstream that says nine bytes would come, sends three, and then what the path says: `rst` resets the stream,
/// `close` ends the connection, `short` ends the body.
async fn breaks_off() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (gone, mut going) = tokio::sync::mpsc::unbounded_channel::<()>();
            let service = service_fn(move |request: Request<hyper::body::Incoming>| {
                let (gone, path) = (gone.clone(), request.uri().path().to_owned());
                async move {
                    let body = futures::stream::unfold(0, move |n| {
                        let (gone, path) = (gone.clone(), path.clone());
                        async move {
                            if n == 0 {
                                return Some((Ok(Frame::data(Bytes::from_static(b"abc"))), 1));
                            }
                            tokio::time::sleep(Duration::from_millis(100)).await;
                            match &*path {
                                "/rst" => Some((Err(std::io::Error::other("no more")), 2)),
                                "/close" => {
                                    let _ = gone.send(());
                                    std::future::pending().await
                                }
                                _ => None,
                            }
                        }
                    });
                    let response = Response::builder().header("content-length", "9");
                    Ok::<_, Infallible>(response.body(StreamBody::new(Box::pin(body))).unwrap())
                }
            });
            tokio::spawn(async move {
                let server = auto::Builder::new(TokioExecutor::new()).http2_only();
                tokio::select! {
                    _ = server.serve_connection(TokioIo::new(stream), service) => {}
                    _ = going.recv() => {}
                }
            });
        }
    });
    address
}

#[tokio::test(flavor = "multi_thread")]
async fn who_ended_a_stream_of_http2_is_told_apart() {
    let gateway = gateway(&config(FORWARD, &[breaks_off().await], "HTTP2")).await;
    for (path, flag, reason) in [
        ("/rst", "UR", "remote_reset"),
        ("/close", "UC", "connection_termination"),
        ("/short", "UPE", "protocol_error"),
    ] {
        assert_eq!(gateway.get(path).await.0, 200, "{path}");
        let line = gateway.line(path).await;
        let wants = format!(" 200 {flag} upstream_reset_after_response_started{{{reason}}} ");
        assert!(line.contains(&wants), "{line}");
    }
}
