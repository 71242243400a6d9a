//! Bodies on their way through policies: looked at, changed, held back and refused, whatever the framing.

use super::*;
use crate::policy::{
    BodyAccess, BodyFilter, BodyPolicy, Failure, Flow, Hooks, Policy, Reply, ResponseView, UpstreamView,
    Whole,
};
use ::http::{HeaderValue, StatusCode};

/// Doubles every byte of what `over` says, and refuses what contains an `!`.
struct Edit {
    requests: fn() -> BodyAccess,
    responses: fn() -> BodyAccess,
}

impl Policy for Edit {
    type State = ();
    const HOOKS: Hooks = Hooks::NONE;
}

impl BodyPolicy for Edit {
    fn request_body(&self, (): &mut (), _: &UpstreamView<'_>) -> BodyAccess {
        (self.requests)()
    }

    fn response_body(&self, (): &mut (), _: &ResponseView<'_>) -> BodyAccess {
        (self.responses)()
    }
}

struct Double;

impl BodyFilter for Double {
    fn piece(&mut self, piece: Bytes, _: bool) -> std::result::Result<Flow, Failure> {
        Ok(Flow::Pass(piece.iter().flat_map(|byte| [*byte; 2]).collect()))
    }
}

/// Refuses a body with an `!` in it, once it is there as a whole.
fn guard() -> BodyAccess {
    BodyAccess::inspect(Whole::new(|body| {
        Ok(match body.contains(&b'!') {
            true => Flow::Respond(Reply::text(StatusCode::FORBIDDEN, "no exclamations")),
            false => Flow::Pass(body),
        })
    }))
}

/// Refuses a piece with an `!` in it, when it comes.
fn sentry() -> BodyAccess {
    struct Sentry;
    impl BodyFilter for Sentry {
        fn piece(&mut self, piece: Bytes, _: bool) -> std::result::Result<Flow, Failure> {
            Ok(match piece.contains(&b'!') {
                true => Flow::Respond(Reply::new(StatusCode::FORBIDDEN)),
                false => Flow::Pass(piece),
            })
        }
    }
    BodyAccess::inspect(Sentry)
}

fn double() -> BodyAccess {
    BodyAccess::transform(Double)
}

fn none() -> BodyAccess {
    BodyAccess::none()
}

async fn edited(
    up: SocketAddr,
    protocol: &str,
    requests: fn() -> BodyAccess,
    responses: fn() -> BodyAccess,
) -> TestGateway {
    let rules = "  - {match: [{uri: {prefix: /said}}], directResponse: {status: 200, body: {string: said}}}
  - retries: {attempts: 1, retryOn: 5xx, backoff: 1ms}
    route: [{destination: {host: up.example, port: {number: 80}}}]
";
    let registry = Registry::new(Arc::new(SystemResolver::new()), Handle::current());
    let chain = Chain::new().then_with_bodies(Edit { requests, responses });
    start(&config(rules, &[up], protocol), registry, chain).await
}

/// Sends back what it gets, over HTTP/1 and HTTP/2, with a length or without.
async fn mirror() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let service = service_fn(|request: Request<hyper::body::Incoming>| async move {
                let length = request.headers().get("content-length").cloned();
                let sized = request.uri().path() == "/sized";
                let Ok(body) = request.into_body().collect().await else {
                    return Err(std::io::Error::other("the request broke off"));
                };
                let body = body.to_bytes();
                let response = Response::builder()
                    .header("x-length", length.unwrap_or(HeaderValue::from_static("none")));
                let body: UnsyncBoxBody<Bytes, Infallible> = if sized {
                    Full::new(body).boxed_unsync()
                } else {
                    let pieces: Vec<_> = body
                        .chunks(1000)
                        .map(|piece| Ok(Frame::data(Bytes::copy_from_slice(piece))))
                        .collect();
                    StreamBody::new(futures::stream::iter(pieces)).boxed_unsync()
                };
                Ok(response.body(body).unwrap())
            });
            let connection = async move {
                auto::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await
            };
            tokio::spawn(connection);
        }
    });
    address
}

fn post(path: &str, body: &str) -> String {
    format!(
        "POST {path} HTTP/1.1\r\nHost: a.example\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )
}

fn chunked(path: &str, pieces: &[&str]) -> String {
    let mut text = format!(
        "POST {path} HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
    );
    for piece in pieces {
        text.push_str(&format!("{:x}\r\n{piece}\r\n", piece.len()));
    }
    text + "0\r\n\r\n"
}

/// The body of an answer, whatever its framing.
fn plain(head: &str, body: &str) -> String {
    if !head.contains("transfer-encoding: chunked") {
        return body.to_owned();
    }
    let mut lines = body.split("\r\n");
    let mut text = String::new();
    while let (Some(size), Some(piece)) = (lines.next(), lines.next()) {
        assert_eq!(usize::from_str_radix(size, 16).unwrap(), piece.len(), "{body}");
        text.push_str(piece);
    }
    text
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_changes_is_framed_anew() {
    for protocol in ["HTTP", "HTTP2"] {
        let gateway = edited(mirror().await, protocol, double, double).await;
        for (path, request) in
            [("/sized", post("/sized", "abc")), ("/", post("/", "abc")), ("/", chunked("/", &["a", "bc"]))]
        {
            let (status, head, body) = gateway.send(&request).await;
            assert_eq!((status, plain(&head, &body)), (200, "aaaabbbbcccc".to_owned()), "{protocol} {path}");
            assert!(head.contains("x-length: none"), "{protocol} {path}: {head}");
            assert!(
                head.contains("transfer-encoding: chunked") && !head.contains("content-length"),
                "{head}"
            );
        }
        let mut client = http2(&gateway).await;
        let request =
            Request::post("http://a.example/sized").body(Full::new(Bytes::from_static(b"abc"))).unwrap();
        let response = client.send_request(request).await.unwrap();
        assert!(!response.headers().contains_key("content-length"));
        assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "aaaabbbbcccc", "{protocol}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn where_there_is_no_body_nobody_is_asked() {
    let gateway = edited(mirror().await, "HTTP", double, double).await;
    let (status, head, body) =
        gateway.send("HEAD /sized HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n").await;
    assert_eq!((status, &*body), (200, ""), "{head}");
    let (status, head, body) = gateway.get("/sized").await;
    assert_eq!((status, plain(&head, &body)), (200, String::new()), "{head}");
    let (status, head, body) = gateway.get("/said").await;
    assert_eq!((status, &*body), (200, "ssaaiidd"));
    assert!(head.contains("content-length: 8"), "{head}");
}

/// What is held back is all there at the end, and what is refused never leaves.
#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_is_held_back_goes_on_whole_or_not_at_all() {
    for protocol in ["HTTP", "HTTP2"] {
        let gateway = edited(mirror().await, protocol, guard, none).await;
        let long = "x".repeat(300_000);
        for request in [post("/", &long), chunked("/", &[&long[..100_000], &long[100_000..]])] {
            let (status, head, body) = gateway.send(&request).await;
            assert_eq!((status, plain(&head, &body).len()), (200, long.len()), "{protocol}: {head}");
        }
        let (_, head, _) = gateway.send(&post("/", "four")).await;
        assert!(head.contains("x-length: 4"), "who only looks leaves the length: {head}");
        for request in [post("/", "stop!"), chunked("/", &["sto", "p!"])] {
            let (status, _, body) = gateway.send(&request).await;
            assert_eq!((status, &*body), (403, "no exclamations"), "{protocol}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_attempt_gets_the_whole_body() {
    let up = plays(&[Act::Say("HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n"), OK]).await;
    let gateway = edited(up.address, "HTTP", double, none).await;
    assert_eq!(gateway.send(&post("/", "abc")).await.0, 200);
    for attempt in up.got() {
        assert!(attempt.ends_with("6\r\naabbcc\r\n0\r\n\r\n"), "{attempt}");
    }
    assert_eq!(up.got().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_beyond_the_limit_is_refused() {
    let up = plays(&[OK]).await;
    let gateway = edited(up.address, "HTTP", || BodyAccess::none().up_to(4), none).await;
    assert_eq!(gateway.send(&post("/", "four")).await.0, 200);
    let before = up.got().len();
    for request in [post("/", "fives"), chunked("/", &["fi", "ves"])] {
        let (status, head, body) = gateway.send(&request).await;
        assert_eq!((status, &*body), (413, "Payload Too Large"), "{head}");
    }
    assert!(gateway.line("request_payload_too_large").await.contains(" 413 "));
    assert_eq!(up.got().len(), before, "no whole request has left");

    let gateway = edited(mirror().await, "HTTP", none, || BodyAccess::none().up_to(4)).await;
    assert_eq!(gateway.send(&post("/sized", "four")).await.0, 200);
    assert_eq!(gateway.send(&post("/sized", "fives")).await.0, 500);
}

/// A response that has begun cannot be answered otherwise: the client sees that it is not whole.
#[tokio::test(flavor = "multi_thread")]
async fn a_response_is_refused_before_it_begins_and_broken_off_after() {
    let gateway = edited(mirror().await, "HTTP", none, guard).await;
    let (status, _, body) = gateway.send(&post("/", "stop!")).await;
    assert_eq!((status, &*body), (403, "no exclamations"));

    const HALF: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n";
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let up = listener.local_addr().unwrap();
    let (go, gone) = tokio::sync::oneshot::channel::<()>();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        read_request(&mut stream).await;
        stream.write_all(HALF.as_bytes()).await.unwrap();
        gone.await.unwrap();
        stream.write_all(b"3\r\nxy!\r\n0\r\n\r\n").await.unwrap();
    });
    let gateway = edited(up, "HTTP", none, sentry).await;
    let mut client = TcpStream::connect(gateway.address).await.unwrap();
    client.write_all(b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n").await.unwrap();
    let mut got = Vec::new();
    while !got.ends_with(b"3\r\nabc\r\n") {
        got.push(tokio::time::timeout(PATIENCE, client.read_u8()).await.unwrap().unwrap());
    }
    go.send(()).unwrap();
    tokio::time::timeout(PATIENCE, client.read_to_end(&mut got)).await.unwrap().unwrap();
    let text = String::from_utf8_lossy(&got);
    assert!(text.ends_with("3\r\nabc\r\n"), "no end of the body, and no second answer: {text}");
}
