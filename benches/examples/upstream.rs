//! The upstream of the load scripts: answers every request with 200 and a short body, as cheaply as it can.
//!
//! HTTP/1 and, where the connection begins with its preface, HTTP/2. A path that ends in `/bytes/N` has a body of N bytes (1 MiB at
//! most), one that ends in `/headers` the head that arrived; a gRPC call is answered by one message and its trailers; a WebSocket, of
//! the RFC's sample key only, by what it sends.
//!
//! Usage: `upstream LISTEN…`: one process for all addresses, so that a proxy that spreads its requests wakes no more
//! processes than one that does not.

use bytes::Bytes;
use http_body_util::{BodyExt, Either, Full, combinators::WithTrailers};
use hyper::{
    HeaderMap, Request, Response, StatusCode,
    body::Incoming,
    header::{CONNECTION, CONTENT_TYPE, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, UPGRADE},
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::{convert::Infallible, fmt::Write as _, future::Ready, sync::LazyLock};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

type Trailers = Ready<Option<Result<HeaderMap, Infallible>>>;
type Answer = Response<Either<Full<Bytes>, WithTrailers<Full<Bytes>, Trailers>>>;

static BODY: LazyLock<Bytes> = LazyLock::new(|| Bytes::from(vec![b'x'; 1 << 20]));
/// The key of RFC 6455, section 1.3, and what answers it.
const KEY: &[u8] = b"dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT: HeaderValue = HeaderValue::from_static("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut listeners = tokio::task::JoinSet::new();
    for address in std::env::args().skip(1) {
        listeners.spawn(listen(TcpListener::bind(&address).await?));
    }
    match listeners.join_next().await {
        Some(ended) => Ok(ended??),
        None => Err("usage: upstream LISTEN…".into()),
    }
}

async fn listen(listener: TcpListener) -> std::io::Result<()> {
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        // A client that goes away ends its own connection only.
        tokio::spawn(async move {
            let _gone = serve(stream).await;
        });
    }
}

async fn serve(stream: TcpStream) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let mut first = [0; 3];
    stream.peek(&mut first).await?;
    let answer = service_fn(|request| async { Ok::<_, Infallible>(answer(request).await) });
    if &first == b"PRI" {
        let mut server = http2::Builder::new(TokioExecutor::new());
        server.max_concurrent_streams(1024).serve_connection(TokioIo::new(stream), answer).await?;
    } else {
        http1::Builder::new().serve_connection(TokioIo::new(stream), answer).with_upgrades().await?;
    }
    Ok(())
}

async fn answer(request: Request<Incoming>) -> Answer {
    if request.headers().contains_key(UPGRADE) {
        return upgrade(request);
    }
    if request
        .headers()
        .get(CONTENT_TYPE)
        .is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"))
    {
        return call(request).await;
    }
    let path = request.uri().path();
    if path.ends_with("/headers") {
        let mut seen = format!("{} {}\n", request.method(), request.uri());
        for (name, value) in request.headers() {
            let _written = writeln!(seen, "{name}: {}", String::from_utf8_lossy(value.as_bytes()));
        }
        return Response::new(Either::Left(Full::new(seen.into())));
    }
    let body = match path.rsplit_once("/bytes/").and_then(|(_, size)| size.parse().ok()) {
        Some(size) => BODY.slice(..BODY.len().min(size)),
        None => Bytes::from_static(b"hello from upstream\n"),
    };
    Response::new(Either::Left(Full::new(body)))
}

/// One message for the one that came.
async fn call(request: Request<Incoming>) -> Answer {
    let _message = request.into_body().collect().await;
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    let message = Full::new(Bytes::from_static(b"\0\0\0\0\x07\n\x05hello"));
    let mut answer =
        Response::new(Either::Right(message.with_trailers(std::future::ready(Some(Ok(trailers))))));
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    answer
}

fn upgrade(mut request: Request<Incoming>) -> Answer {
    let mut answer = Response::new(Either::Left(Full::new(Bytes::new())));
    if request.headers().get(SEC_WEBSOCKET_KEY).is_none_or(|key| key.as_bytes() != KEY) {
        *answer.status_mut() = StatusCode::BAD_REQUEST;
        return answer;
    }
    tokio::spawn(async move {
        if let Ok(upgraded) = hyper::upgrade::on(&mut request).await {
            let _gone = echo(TokioIo::new(upgraded)).await;
        }
    });
    *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = answer.headers_mut();
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(SEC_WEBSOCKET_ACCEPT, ACCEPT);
    answer
}

/// Sends each short frame back without its mask, as a server must. A long one, or none, is the end.
async fn echo(mut stream: TokioIo<hyper::upgrade::Upgraded>) -> std::io::Result<()> {
    loop {
        let mut head = [0; 6];
        stream.read_exact(&mut head).await?;
        let [kind, length, mask @ ..] = head;
        if !(0x80..=0x80 + 125).contains(&length) {
            return Ok(());
        }
        let mut frame = vec![kind, length - 0x80];
        frame.resize(2 + usize::from(length - 0x80), 0);
        let (_, payload) = frame.split_at_mut(2);
        stream.read_exact(payload).await?;
        payload.iter_mut().zip(mask.iter().cycle()).for_each(|(byte, mask)| *byte ^= mask);
        stream.write_all(&frame).await?;
    }
}
