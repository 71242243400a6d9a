//! The accept loops of the admin addresses.
//!
//! Invariant: a client that is slow or silent costs one of a bounded number of places, and that not for long.

use std::{convert::Infallible, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{net::TcpListener, sync::Semaphore};

use super::{Admin, Bound, answer};

const MOST_CONNECTIONS: usize = 256;
const HEAD_DEADLINE: Duration = Duration::from_secs(10);
const CONNECTION_DEADLINE: Duration = Duration::from_secs(300);
/// After an accept failed for want of descriptors, trying again at once would only spin.
const PAUSE: Duration = Duration::from_millis(100);

pub(super) async fn all(admin: Arc<Admin>, addresses: Vec<Bound>) {
    let places = Arc::new(Semaphore::new(MOST_CONNECTIONS));
    let loops = addresses.into_iter().map(|bound| one(Arc::clone(&admin), bound, Arc::clone(&places)));
    futures::future::join_all(loops).await;
}

async fn one(admin: Arc<Admin>, bound: Bound, places: Arc<Semaphore>) {
    let surface = bound.surface;
    let socket = match TcpListener::from_std(bound.socket) {
        Ok(socket) => socket,
        Err(error) => {
            tracing::error!(%error, "an admin address cannot be served");
            return;
        }
    };
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let stream = match socket.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::debug!(%error, "admin accept");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        let admin = Arc::clone(&admin);
        tokio::spawn(async move {
            let service = service_fn(|request: Request<Incoming>| {
                let response = answer::answer(&admin, surface, &request);
                async move { Ok::<Response<Full<Bytes>>, Infallible>(response) }
            });
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD_DEADLINE)
                .serve_connection(TokioIo::new(stream), service);
            // Whatever a client does wrong is its own business.
            let _ended = tokio::time::timeout(CONNECTION_DEADLINE, connection).await;
            drop(place);
        });
    }
}
