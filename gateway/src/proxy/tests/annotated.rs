//! Policies that annotations ask for, on live requests.

use super::*;
use ::http::{HeaderValue, header};

/// [`config`] with annotations of the Gateway and of the VirtualService, each as a flow mapping.
fn annotated(rules: &str, up: SocketAddr, gateway: &str, service: &str) -> String {
    config(rules, &[up], "HTTP")
        .replace(
            "metadata: {name: gw, namespace: default}",
            &format!("metadata: {{name: gw, namespace: default, annotations: {{{gateway}}}}}"),
        )
        .replace(
            "metadata: {name: vs, namespace: default}",
            &format!("metadata: {{name: vs, namespace: default, annotations: {{{service}}}}}"),
        )
}

const SAID: &str =
    "  - {match: [{uri: {prefix: /said}}], directResponse: {status: 200, body: {string: said}}}\n";

async fn with_header(gateway: &TestGateway, path: &str, lines: &str) -> (u16, String, String) {
    gateway.send(&format!("GET {path} HTTP/1.1\r\nHost: a.example\r\n{lines}Connection: close\r\n\r\n")).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rate_limit_answers_as_envoy_does() {
    let limit = "limen.dev/rate-limit: '{requests: 2, per: hour, headers: true}'";
    let gateway = gateway(&annotated(&format!("{SAID}{FORWARD}"), echo().await, "", limit)).await;
    for left in [1, 0] {
        let (status, head, _) = gateway.get("/").await;
        assert_eq!(status, 200);
        assert!(head.contains(&format!("x-ratelimit-limit: 2\r\nx-ratelimit-remaining: {left}")), "{head}");
    }
    let (status, head, body) = gateway.get("/").await;
    assert_eq!((status, &*body), (429, "local_rate_limited"));
    let reset = head.lines().find_map(|line| line.strip_prefix("x-ratelimit-reset: ")).unwrap();
    assert!((1700..=1800).contains(&reset.parse::<u32>().unwrap()), "{head}");
    let line = gateway.line("local_rate_limited").await;
    assert!(line.contains(" 429 RL "), "{line}");
    assert_eq!(gateway.get("/said").await.0, 200, "another rule has a bucket of its own");
    let (status, head, _) = with_header(&gateway, "/", "Content-Type: application/grpc\r\n").await;
    assert!(status == 200 && head.contains("grpc-status: 14"), "{head}");
    assert!(head.contains("grpc-message: local_rate_limited"), "{head}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rate_limit_by_header_or_client_and_who_says_what() {
    let up = echo().await;
    let by_key = "limen.dev/rate-limit: '{requests: 1, per: hour, by: {header: x-key}}'";
    let limited = gateway(&annotated(FORWARD, up, "limen.dev/rate-limit: 'off'", by_key)).await;
    for (lines, status) in
        [("X-Key: a\r\n", 200), ("X-Key: b\r\n", 200), ("X-Key: a\r\n", 429), ("", 200), ("", 429)]
    {
        assert_eq!(with_header(&limited, "/", lines).await.0, status, "{lines:?}");
    }
    let (_, head, _) = with_header(&limited, "/", "X-Key: a\r\n").await;
    assert!(!head.contains("x-ratelimit"), "{head}");
    let by_client = "limen.dev/rate-limit: '{requests: 1, per: hour, by: client}'";
    let whole = gateway(&annotated(&format!("{SAID}{FORWARD}"), up, by_client, "")).await;
    assert_eq!((whole.get("/").await.0, whole.get("/said").await.0), (200, 429));
    // The Gateway's is for what no rule takes too.
    let unrouted = "GET / HTTP/1.1\r\nHost: nobody.example\r\nConnection: close\r\n\r\n";
    assert_eq!(whole.send(unrouted).await.0, 429);
    let lifted = gateway(&annotated(FORWARD, up, by_client, "limen.dev/rate-limit: 'off'")).await;
    for _ in 0..3 {
        assert_eq!(lifted.get("/").await.0, 200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn longer_bodies_are_refused_before_or_on_their_way() {
    let up = plays(&[OK]).await;
    let limit = "limen.dev/max-request-body: '10'";
    let gateway = gateway(&annotated(FORWARD, up.address, "limen.dev/max-request-body: 1Mi", limit)).await;
    let post = |body: &str| {
        format!(
            "POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        )
    };
    assert_eq!(gateway.send(&post("0123456789")).await.0, 200);
    let (status, _, body) = gateway.send(&post("0123456789x")).await;
    assert_eq!((status, &*body), (413, "Payload Too Large"));
    assert_eq!(up.got().len(), 1, "it was not sent anywhere");
    // Who asks first is told at once, and not to go on.
    let asks = "POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: 11\r\nExpect: 100-continue\r\nConnection: close\r\n\r\n";
    assert!(gateway.raw(asks).await.starts_with("HTTP/1.1 413 "));
    let chunked = "POST / HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n8\r\n01234567\r\n8\r\n01234567\r\n0\r\n\r\n";
    assert_eq!(gateway.send(chunked).await.0, 413);
    assert!(gateway.line("request_payload_too_large").await.contains(" 413 "));
    let mut client = http2(&gateway).await;
    let request =
        Request::post("http://a.example/").body(Full::new(Bytes::from_static(&[b'x'; 11]))).unwrap();
    assert_eq!(client.send_request(request).await.unwrap().status(), 413);
    let request = Request::post("http://a.example/").body(Full::new(Bytes::from_static(b"ok"))).unwrap();
    assert_eq!(client.send_request(request).await.unwrap().status(), 200);
}

/// Serves a page by path: `/html`, `/small`, `/png`, `/part`, `/coded`, `/etag`, `/events`.
async fn pages() -> (SocketAddr, tokio::sync::mpsc::UnboundedSender<Bytes>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (sender, receiver) = tokio::sync::mpsc::unbounded_channel::<Bytes>();
    let events = Arc::new(std::sync::Mutex::new(Some(receiver)));
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let events = events.clone();
            let service = service_fn(move |request: Request<hyper::body::Incoming>| {
                let events = events.clone();
                async move {
                    let mut response = Response::builder().header("content-type", "text/html");
                    let long = Bytes::from("page ".repeat(1000));
                    let body: UnsyncBoxBody<Bytes, Infallible> = match request.uri().path() {
                        "/small" => Full::new(Bytes::from_static(b"small")).boxed_unsync(),
                        "/events" => {
                            response = Response::builder().header("content-type", "text/event-stream");
                            let receiver = events.lock().unwrap().take().unwrap();
                            let stream = futures::stream::unfold(receiver, |mut receiver| async {
                                Some((Ok(Frame::data(receiver.recv().await?)), receiver))
                            });
                            StreamBody::new(stream).boxed_unsync()
                        }
                        path => {
                            response = match path {
                                "/png" => Response::builder().header("content-type", "image/png"),
                                "/part" => response.status(206).header("content-range", "bytes 0-4999/9999"),
                                "/coded" => response.header("content-encoding", "br"),
                                "/etag" => response.header("etag", "\"v1\"").header("accept-ranges", "bytes"),
                                "/fixed" => response.header("cache-control", "no-transform"),
                                _ => response,
                            };
                            Full::new(long).boxed_unsync()
                        }
                    };
                    Ok::<_, Infallible>(response.body(body).unwrap())
                }
            });
            let connection = async move {
                auto::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await
            };
            tokio::spawn(connection);
        }
    });
    (address, sender)
}

fn decoded(coding: &str, bytes: &[u8]) -> String {
    let mut text = String::new();
    let mut reader: Box<dyn std::io::Read + '_> = match coding {
        "gzip" => Box::new(flate2::read::GzDecoder::new(bytes)),
        "br" => Box::new(brotli::Decompressor::new(bytes, 4096)),
        _ => Box::new(zstd::stream::read::Decoder::new(bytes).unwrap()),
    };
    std::io::Read::read_to_string(&mut reader, &mut text).unwrap();
    text
}

#[tokio::test(flavor = "multi_thread")]
async fn responses_are_compressed_as_the_client_likes() {
    let rules =
        format!("{}{FORWARD}", SAID.replace("string: said", &format!("string: {}", "said".repeat(100))));
    let (up, _) = pages().await;
    let gateway = gateway(&annotated(&rules, up, "", "limen.dev/compression: 'on'")).await;
    let mut client = http2(&gateway).await;
    let ask = |method: &str, path: &str, accept: &'static str| {
        Request::builder()
            .method(method)
            .uri(format!("http://a.example{path}"))
            .header(header::ACCEPT_ENCODING, HeaderValue::from_static(accept))
            .body(Full::new(Bytes::new()))
            .unwrap()
    };
    for (path, accept, wants) in [
        ("/html", "gzip", "gzip"),
        ("/html", "gzip;q=0.5, br", "br"),
        ("/html", "gzip, br, zstd", "zstd"),
        ("/etag", "gzip", "gzip"),
        ("/said", "gzip", "gzip"),
    ] {
        let response = client.send_request(ask("GET", path, accept)).await.unwrap();
        let headers = response.headers().clone();
        assert_eq!(headers[header::CONTENT_ENCODING], wants, "{path} {accept}");
        assert_eq!(headers[header::VARY], "Accept-Encoding");
        let body = response.into_body().collect().await.unwrap().to_bytes();
        assert!(body.len() < 200, "{path} {accept}: {}", body.len());
        assert!([5000, 400].contains(&decoded(wants, &body).len()), "{path} {accept}");
        if let Some(length) = headers.get(header::CONTENT_LENGTH) {
            assert_eq!(length.to_str().unwrap(), body.len().to_string(), "{path}");
        }
        if path == "/etag" {
            assert_eq!(headers[header::ETAG], "W/\"v1\"");
            assert!(!headers.contains_key(header::ACCEPT_RANGES));
        }
    }
    for (method, path, accept, vary) in [
        ("HEAD", "/html", "gzip", false),
        ("GET", "/html", "", true),
        ("GET", "/html", "gzip;q=0", true),
        ("GET", "/small", "gzip", false),
        ("GET", "/png", "gzip", false),
        ("GET", "/part", "gzip", false),
        ("GET", "/coded", "gzip", false),
        ("GET", "/fixed", "gzip", false),
    ] {
        let response = client.send_request(ask(method, path, accept)).await.unwrap();
        let coding = response.headers().get(header::CONTENT_ENCODING);
        assert_eq!(coding.is_some(), path == "/coded", "{method} {path} {accept}");
        assert_eq!(response.headers().contains_key(header::VARY), vary, "{method} {path} {accept}");
        assert!(response.headers().contains_key(header::CONTENT_LENGTH), "{method} {path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn events_are_not_held_back_by_compression() {
    let (up, events) = pages().await;
    let gateway = gateway(&annotated(FORWARD, up, "limen.dev/compression: 'on'", "")).await;
    let mut client = http2(&gateway).await;
    let request = Request::get("http://a.example/events")
        .header(header::ACCEPT_ENCODING, "gzip")
        .body(Full::new(Bytes::new()))
        .unwrap();
    events.send(Bytes::from_static(b"data: one\n\n")).unwrap();
    let mut body = client.send_request(request).await.unwrap().into_body();
    let mut got = Vec::new();
    for (event, all) in [("", "data: one\n\n"), ("data: two\n\n", "data: one\n\ndata: two\n\n")] {
        if !event.is_empty() {
            events.send(Bytes::from_static(event.as_bytes())).unwrap();
        }
        let text = async {
            loop {
                let mut text = [0; 100];
                let mut reader = flate2::read::GzDecoder::new(&*got);
                let mut length = 0;
                while let Ok(count @ 1..) = std::io::Read::read(&mut reader, &mut text[length..]) {
                    length += count;
                }
                if text[..length] == *all.as_bytes() {
                    return;
                }
                got.extend(body.frame().await.unwrap().unwrap().into_data().unwrap());
            }
        };
        tokio::time::timeout(PATIENCE, text).await.unwrap_or_else(|_| panic!("{all:?} has not come"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_have_the_pages_that_are_written_for_them() {
    let rules = "  - {match: [{uri: {prefix: /busy}}], headers: {response: {add: {x-rule: r}}}, route: [{destination: {host: up.example, port: {number: 80}}}]}
  - {match: [{uri: {prefix: /down}}], headers: {response: {add: {x-rule: r}}}, route: [{destination: {host: gone.example}}]}
  - {match: [{uri: {prefix: /said}}], directResponse: {status: 410, body: {string: gone}}}
";
    const BUSY: Act = Act::Say(
        "HTTP/1.1 503 Busy\r\nContent-Length: 4\r\nContent-Type: text/plain\r\nRetry-After: 7\r\nETag: \"x\"\r\n\r\nbusy",
    );
    let up = plays(&[BUSY]).await;
    let own = "limen.dev/error-pages: '[{status: 503, from: all, body: <b>later</b>}, {status: [410], configMap: {name: pages, key: gone.txt}, contentType: text/plain}]'";
    let wide = "limen.dev/error-pages: '[{status: 400-599, body: <b>oops</b>}]'";
    let map = "---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: pages, namespace: default}\ndata: {gone.txt: it has left}\n";
    let gateway = gateway(&format!("{}{map}", annotated(rules, up.address, wide, own))).await;
    for (path, status, kind, wants) in [
        ("/busy", 503, "text/html; charset=utf-8", "<b>later</b>"),
        ("/down", 503, "text/html; charset=utf-8", "<b>later</b>"),
        ("/said", 410, "text/plain", "it has left"),
        // The rules have no say about what none of them takes: it is the Gateway's page.
        ("/other", 404, "text/html; charset=utf-8", "<b>oops</b>"),
    ] {
        let (got, head, body) = gateway.get(path).await;
        assert_eq!((got, &*body), (status, wants), "{path}: {head}");
        assert!(head.contains(&format!("content-type: {kind}\r\n")), "{path}: {head}");
        assert!(head.contains(&format!("content-length: {}", wants.len())), "{path}: {head}");
        assert_eq!(head.matches("x-rule: r").count(), usize::from(status == 503), "{path}: {head}");
        assert_eq!(head.contains("retry-after: 7"), path == "/busy", "{path}: {head}");
        assert!(!head.contains("etag"), "{path}: {head}");
    }
    assert!(gateway.line("/busy").await.contains(" 503 - via_upstream "), "{}", gateway.line("/busy").await);
    assert!(gateway.line("/down").await.contains(" 503 NC "), "{}", gateway.line("/down").await);
    assert!(gateway.line("/other").await.contains(" 404 NR route_not_found "));
    let (status, head, body) =
        gateway.send("HEAD /other HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n").await;
    assert_eq!((status, &*body), (404, ""));
    assert!(head.contains("content-length: 11"), "{head}");
    for kind in ["application/grpc", "application/grpc-web"] {
        for path in ["/other", "/down", "/busy"] {
            let (_, head, body) = with_header(&gateway, path, &format!("Content-Type: {kind}\r\n")).await;
            assert!(!body.contains("<b>") && !head.contains("text/html"), "{kind} {path}: {head}");
        }
    }
}

/// A page is compressed like any other body, and who is held back gets one too.
#[tokio::test(flavor = "multi_thread")]
async fn policies_of_annotations_work_together() {
    let page = "sorry ".repeat(100);
    let all = format!(
        "limen.dev/rate-limit: '{{requests: 1, per: hour}}', limen.dev/compression: 'on', limen.dev/error-pages: '[{{status: 429, body: {page}}}]'"
    );
    let gateway = gateway(&annotated(FORWARD, echo().await, "", &all)).await;
    assert_eq!(gateway.get("/").await.0, 200);
    let mut client = http2(&gateway).await;
    let request = Request::get("http://a.example/").header(header::ACCEPT_ENCODING, "br");
    let response = client.send_request(request.body(Full::new(Bytes::new())).unwrap()).await.unwrap();
    assert_eq!(response.status(), 429);
    assert_eq!(response.headers()[header::CONTENT_ENCODING], "br");
    let body = response.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(decoded("br", &body), page.trim());
    assert!(gateway.line("local_rate_limited").await.contains(" 429 RL "));
}

/// Whoever looks into a chain of annotated policies alone finds nothing done for rules without annotations.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_annotated_meets_no_policy() {
    let up = echo().await;
    let plain = "---\napiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: plain, namespace: default}\nspec:\n  hosts: [b.example]\n  gateways: [gw]\n  http: [{route: [{destination: {host: up.example, port: {number: 80}}}]}]\n";
    let limit = "limen.dev/rate-limit: '{requests: 1, per: hour}'";
    let gateway = gateway(&format!("{}{plain}", annotated(FORWARD, up, "", limit))).await;
    assert!(gateway.cell.load().policies.is_annotated());
    assert_eq!((gateway.get("/").await.0, gateway.get("/").await.0), (200, 429));
    for _ in 0..3 {
        let request = "GET / HTTP/1.1\r\nHost: b.example\r\nConnection: close\r\n\r\n";
        assert_eq!(gateway.send(request).await.0, 200);
    }
}
