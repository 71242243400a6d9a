//! Protocols on top of HTTP.

use super::*;

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

const SWITCH: &str = "GET /ws HTTP/1.1\r\nHost: a.example\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                      Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

/// Reads a head, one byte at a time so that nothing behind it is taken.
async fn head_of(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(tokio::time::timeout(PATIENCE, stream.read_u8()).await.unwrap().unwrap());
    }
    String::from_utf8(head).unwrap().to_ascii_lowercase()
}

/// The engine may see the 101 before it has noted that the request has no body; that was the end of one tunnel in three.
#[tokio::test(flavor = "multi_thread")]
async fn a_tunnel_opens_however_fast_the_answer_is() {
    let answer = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                  Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
    let gateway = gateway(&config(FORWARD, &[scripted(answer, true).await], "HTTP")).await;
    for _ in 0..50 {
        let mut stream = TcpStream::connect(gateway.address).await.unwrap();
        stream.write_all(SWITCH.as_bytes()).await.unwrap();
        assert!(head_of(&mut stream).await.starts_with("http/1.1 101 "));
        stream.write_all(b"ping").await.unwrap();
        let mut back = [0; 4];
        tokio::time::timeout(PATIENCE, stream.read_exact(&mut back)).await.unwrap().unwrap();
        assert_eq!(&back, b"ping");
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
            .body(Full::new(Bytes::from_static(b"\0\0\0\0\0\x01\0\0\0\x02ab")))
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
    for (name, count) in [("istio_request_messages_total", " 2"), ("istio_response_messages_total", " 1")] {
        let of_service =
            |line: &&str| line.starts_with(name) && line.contains("destination_service=\"up.example\"");
        let line = metrics.lines().find(of_service).unwrap();
        assert!(line.ends_with(count) && !line.contains("request_protocol"), "{line}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tunnel_that_is_refused_is_an_ordinary_answer() {
    const NO: Act = Act::Say("HTTP/1.1 403 No\r\nContent-Length: 2\r\n\r\nno");
    let up = plays(&[NO]).await;
    let gateway = gateway(&config(FORWARD, &[up.address], "HTTP")).await;
    let ask = "GET /ws HTTP/1.1\r\nHost: a.example\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    let end = "GET /end HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n";
    for _ in 0..20 {
        let both = gateway.raw(&format!("{ask}{end}")).await;
        assert_eq!(both.matches("HTTP/1.1 403 ").count(), 2, "{both}");
    }
    assert!(up.got()[0].to_ascii_lowercase().contains("upgrade: websocket"), "{:?}", up.got()[0]);
    assert!(!up.got()[0].to_ascii_lowercase().contains("transfer-encoding"), "{:?}", up.got()[0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_part_of_a_response_goes_on_as_it_comes() {
    for framing in ["Content-Length: 10", "Transfer-Encoding: chunked"] {
        let part = if framing.starts_with('T') { "5\r\nhello\r\n" } else { "hello" };
        let head = format!("HTTP/1.1 200 OK\r\n{framing}\r\n\r\n");
        // With the head, and after it.
        for (first, then) in [(format!("{head}{part}"), None), (head, Some(part))] {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let up = listener.local_addr().unwrap();
            let gateway = gateway(&config(FORWARD, &[up], "HTTP")).await;
            let mut client = TcpStream::connect(gateway.address).await.unwrap();
            client.write_all(b"GET /slow HTTP/1.1\r\nHost: a.example\r\n\r\n").await.unwrap();
            let (mut upstream, _) = listener.accept().await.unwrap();
            upstream.write_all(first.as_bytes()).await.unwrap();
            if let Some(then) = then {
                until(&mut client, "\r\n\r\n").await;
                upstream.write_all(then.as_bytes()).await.unwrap();
            }
            until(&mut client, "hello").await;
        }
    }
}

/// Reads until a text has come, of an exchange that does not end.
async fn until(client: &mut TcpStream, text: &str) {
    let mut got = String::new();
    while !got.contains(text) {
        let mut piece = [0; 1024];
        let count = tokio::time::timeout(PATIENCE, client.read(&mut piece)).await.unwrap().unwrap();
        assert!(count > 0, "{got:?}");
        got.push_str(&String::from_utf8_lossy(&piece[..count]));
    }
}
