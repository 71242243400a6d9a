//! Upstreams: one that says what it was asked, and ones that do as they are told, good or hostile.

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::service::service_fn;
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

/// What an upstream does with one request that it has read whole. Answers are written as they are.
///
/// # Examples
/// ```
/// use gateway::testing::{Act, FORWARD, TestGateway, Upstream, config};
///
/// # tokio::runtime::Runtime::new().unwrap().block_on(async {
/// let upstream = Upstream::plays(&[Act::SayAndReset(""), Act::OK]).await;
/// let gateway = TestGateway::start(&config(FORWARD, &[upstream.address()], "HTTP")).await;
/// assert_eq!(gateway.get("http://a.example/").await.status, 503);
/// assert_eq!(gateway.get("http://a.example/").await.status, 200);
/// # });
/// ```
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Act {
    /// Writes this and waits for the next request.
    Say(&'static str),
    /// Writes this and hangs up.
    SayAndLeave(&'static str),
    /// Writes this, and then nothing for ever.
    SayAndHang(&'static str),
    /// Writes this, then a byte now and then for ever.
    SayAndDrip(&'static str),
    /// Writes this and resets the connection.
    SayAndReset(&'static str),
    /// Writes this, ends its half of the connection, and reads on.
    SayAndHalfClose(&'static str),
}

impl Act {
    /// A good answer, `ok`.
    pub const OK: Act = Act::Say("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");

    fn text(self) -> &'static str {
        match self {
            Act::Say(text)
            | Act::SayAndLeave(text)
            | Act::SayAndHang(text)
            | Act::SayAndDrip(text)
            | Act::SayAndReset(text)
            | Act::SayAndHalfClose(text) => text,
        }
    }
}

/// A request that an upstream got.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen(String);

impl Seen {
    /// All of it: request line, headers, an empty line, body.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.0
    }

    /// The first header of that name.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        let headers = self.0.lines().skip(1).take_while(|line| !line.is_empty());
        let mut fields = headers.filter_map(|line| line.split_once(':'));
        fields.find(|(field, _)| field.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
    }

    /// The body, in its framing.
    #[must_use]
    pub fn body(&self) -> &str {
        let end = ["\r\n\r\n", "\n\n"].iter().find_map(|end| self.0.split_once(end));
        end.map_or("", |(_, body)| body)
    }
}

/// An upstream on loopback, which lives for as long as the runtime that it was started on.
#[derive(Clone, Debug)]
pub struct Upstream {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
    connections: Arc<AtomicUsize>,
}

impl Upstream {
    /// One that answers 200 with what it was asked: request line, headers in order of arrival, and the body behind an empty line
    /// where there is one. Speaks HTTP/1.1, and HTTP/2 to who begins with it.
    pub async fn echo() -> Upstream {
        let (upstream, listener) = Upstream::bind().await;
        let known = upstream.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                known.connections.fetch_add(1, Ordering::SeqCst);
                let known = known.clone();
                tokio::spawn(async move {
                    let service = service_fn(move |request| answer(known.clone(), request));
                    let builder = auto::Builder::new(TokioExecutor::new());
                    // Whatever the other side does is its own business.
                    let _ended = builder.serve_connection(TokioIo::new(stream), service).await;
                });
            }
        });
        upstream
    }

    /// One that plays one act for each request, the last one for all that follow. Speaks HTTP/1.1.
    pub async fn plays(acts: &[Act]) -> Upstream {
        let (upstream, listener) = Upstream::bind().await;
        let (known, acts): (_, Arc<[Act]>) = (upstream.clone(), acts.into());
        let turn = Arc::new(AtomicUsize::new(0));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                known.connections.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(play(stream, known.clone(), acts.clone(), turn.clone()));
            }
        });
        upstream
    }

    async fn bind() -> (Upstream, TcpListener) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        (Upstream { address, seen: Arc::default(), connections: Arc::default() }, listener)
    }

    /// Where it is.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The requests that it got so far, in order.
    #[must_use]
    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How many connections it accepted.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    fn saw(&self, text: String) {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).push(Seen(text));
    }
}

/// An address that nobody listens on, nor can while the process lives: its port is held.
pub async fn nobody() -> SocketAddr {
    let held = tokio::net::TcpSocket::new_v4().unwrap();
    held.bind(([127, 0, 0, 1], 0).into()).unwrap();
    let address = held.local_addr().unwrap();
    std::mem::forget(held);
    address
}

async fn answer(
    upstream: Upstream,
    request: Request<hyper::body::Incoming>,
) -> Result<Response<Full<Bytes>>, hyper::Error> {
    let mut text = format!("{} {}\n", request.method(), request.uri());
    for (name, value) in request.headers() {
        text.push_str(&format!("{name}: {}\n", String::from_utf8_lossy(value.as_bytes())));
    }
    let body = request.into_body().collect().await?.to_bytes();
    if !body.is_empty() {
        text.push('\n');
        text.push_str(&String::from_utf8_lossy(&body));
    }
    upstream.saw(text.clone());
    let response = Response::builder()
        .header("x-up", "1")
        .header("server", "upstream/1")
        .header("keep-alive", "timeout=9");
    Ok(response.body(Full::new(Bytes::from(text))).unwrap())
}

async fn play(mut stream: TcpStream, upstream: Upstream, acts: Arc<[Act]>, turn: Arc<AtomicUsize>) {
    while let Some(request) = read_request(&mut stream).await {
        upstream.saw(request);
        let turn = turn.fetch_add(1, Ordering::SeqCst).min(acts.len().saturating_sub(1));
        let act = acts.get(turn).copied().unwrap_or(Act::OK);
        if stream.write_all(act.text().as_bytes()).await.is_err() {
            return;
        }
        match act {
            Act::Say(_) => {}
            Act::SayAndLeave(_) => return,
            Act::SayAndHang(_) => std::future::pending().await,
            Act::SayAndDrip(_) => {
                while stream.write_all(b"x").await.is_ok() {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                return;
            }
            Act::SayAndReset(_) => {
                // Long enough for what was written to be read: a reset drops what was not.
                tokio::time::sleep(Duration::from_millis(100)).await;
                return reset(&stream);
            }
            Act::SayAndHalfClose(_) => stream.shutdown().await.unwrap_or_default(),
        }
    }
}

/// Has the connection end by a reset when it is dropped.
pub(super) fn reset(stream: &TcpStream) {
    socket2::SockRef::from(stream).set_linger(Some(Duration::ZERO)).unwrap();
}

/// One request with its body, as it came; `None` when the other side has left.
pub(crate) async fn read_request(stream: &mut TcpStream) -> Option<String> {
    let mut text = Vec::new();
    while !text.ends_with(b"\r\n\r\n") {
        text.push(stream.read_u8().await.ok()?);
    }
    let head = String::from_utf8_lossy(&text).to_ascii_lowercase();
    if let Some((_, rest)) = head.split_once("content-length: ") {
        let length = rest.split("\r\n").next()?.parse().ok()?;
        let mut body = vec![0; length];
        stream.read_exact(&mut body).await.ok()?;
        text.extend(body);
    } else if head.contains("transfer-encoding: chunked") {
        while !text.ends_with(b"\r\n0\r\n\r\n") {
            text.push(stream.read_u8().await.ok()?);
        }
    }
    Some(String::from_utf8_lossy(&text).into_owned())
}
