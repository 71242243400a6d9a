//! Why an upstream's certificate was refused: the engine says that it was, an operator needs to know why.
//!
//! Invariant: only asks after a refusal, at most once in a while for a cluster, for a second at most, and never sends
//! anything of the request: the handshake ends where the first one did.

use crate::{runtime::Cluster, tls::Trust};
use pingora_core::tls::{
    ssl::{SslConnector, SslMethod, SslVerifyMode},
    tokio_ssl::SslStream,
};
use routing::cluster::Address;
use std::{
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::net::TcpStream;

/// How long it may take.
const LIMIT: Duration = Duration::from_secs(1);

/// What is wrong with the certificate at an address, in the library's words; `None` where it cannot be found out.
pub(super) async fn reason(cluster: &Cluster, address: &Address, server_name: &str) -> Option<Arc<str>> {
    cluster
        .explained_refusal(|| async {
            let Address::Ip(address) = address else { return None };
            let asked = async {
                let socket = TcpStream::connect(address).await.ok()?;
                verify(cluster, socket, server_name).await
            };
            tokio::time::timeout(LIMIT, asked).await.ok().flatten()
        })
        .await
}

async fn verify(cluster: &Cluster, socket: TcpStream, server_name: &str) -> Option<Arc<str>> {
    let Some(Trust::Usable(material)) = cluster.trust() else { return None };
    let verify_host = cluster.tls()?.verify_host;
    let mut builder = SslConnector::builder(SslMethod::tls()).ok()?;
    match &material.roots {
        None => builder.set_default_verify_paths().ok()?,
        Some(roots) => {
            for root in roots.iter() {
                builder.cert_store_mut().add_cert(root).ok()?;
            }
        }
    }
    let found: Arc<Mutex<Option<Arc<str>>>> = Arc::default();
    let noted = found.clone();
    builder.set_verify_callback(SslVerifyMode::PEER, move |accepted, context| {
        if let Err(error) = context.verify_result().map_err(|e| e.error_string())
            && !accepted
        {
            let text = format!("certificate verification error at depth {}: {error}", context.error_depth());
            *noted.lock().unwrap_or_else(PoisonError::into_inner) = Some(text.into());
        }
        accepted
    });
    let mut configuration = builder.build().configure().ok()?;
    configuration.set_verify_hostname(verify_host);
    let ssl = configuration.into_ssl(server_name).ok()?;
    let mut stream = SslStream::new(ssl, socket).ok()?;
    let handshake = std::future::poll_fn(|context| Pin::new(&mut stream).poll_connect(context)).await;
    if handshake.is_ok() {
        return None;
    }
    found.lock().unwrap_or_else(PoisonError::into_inner).take()
}
