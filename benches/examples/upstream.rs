//! The upstream of the load scripts: answers every request with 200 and a short body, as cheaply as it can.
//!
//! Usage: `upstream LISTEN…`: one process for all addresses, so that a proxy that spreads its requests wakes no more
//! processes than one that does not.

use bytes::Bytes;
use http_body_util::Full;
use hyper::{Response, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use std::convert::Infallible;
use tokio::net::TcpListener;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut listeners = tokio::task::JoinSet::new();
    for address in std::env::args().skip(1) {
        listeners.spawn(serve(TcpListener::bind(&address).await?));
    }
    match listeners.join_next().await {
        Some(ended) => Ok(ended??),
        None => Err("usage: upstream LISTEN…".into()),
    }
}

async fn serve(listener: TcpListener) -> std::io::Result<()> {
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        tokio::spawn(async move {
            let answer = service_fn(|_| async {
                Ok::<_, Infallible>(Response::new(Full::new(Bytes::from_static(b"hello from upstream\n"))))
            });
            // A client that goes away ends its own connection only.
            let _gone = http1::Builder::new().serve_connection(TokioIo::new(stream), answer).await;
        });
    }
}
