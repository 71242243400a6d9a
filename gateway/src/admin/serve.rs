//! The accept loops of the admin addresses.
//!
//! Invariant: a client that is slow or silent costs one of a bounded number of places, and that not for long.

use std::{convert::Infallible, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Empty, Full, combinators::UnsyncBoxBody};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{net::TcpListener, sync::Semaphore};

use super::{Admin, Bound, answer, history, live};

const MOST_CONNECTIONS: usize = 256;
const HEAD_DEADLINE: Duration = Duration::from_secs(10);
const CONNECTION_DEADLINE: Duration = Duration::from_secs(300);
/// After an accept failed for want of descriptors, trying again at once would only spin.
const PAUSE: Duration = Duration::from_millis(100);

pub(super) async fn all(admin: Arc<Admin>, addresses: Vec<Bound>) {
    let places = Arc::new(Semaphore::new(MOST_CONNECTIONS));
    let streams = Arc::new(Semaphore::new(live::MOST_STREAMS));
    let loops = addresses
        .into_iter()
        .map(|bound| one(Arc::clone(&admin), bound, Arc::clone(&places), Arc::clone(&streams)));
    tokio::join!(futures::future::join_all(loops), history::follow(&admin));
}

async fn one(admin: Arc<Admin>, bound: Bound, places: Arc<Semaphore>, streams: Arc<Semaphore>) {
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
        let (admin, streams) = (Arc::clone(&admin), Arc::clone(&streams));
        tokio::spawn(async move {
            let service = service_fn(|request: Request<Incoming>| {
                let response = answer::answer(&admin, surface, &request);
                let response = with_body(&admin, &streams, response);
                async move { Ok::<_, Infallible>(response) }
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

/// Gives an answer its body; one that does not end, where there is room for it.
fn with_body(
    admin: &Arc<Admin>,
    streams: &Arc<Semaphore>,
    answer: Response<Full<Bytes>>,
) -> Response<UnsyncBoxBody<Bytes, Infallible>> {
    if answer.extensions().get::<live::Endless>().is_none() {
        return answer.map(|body| body.boxed_unsync());
    }
    let Ok(place) = Arc::clone(streams).try_acquire_owned() else {
        let mut refusal = answer.map(|_| Empty::new().boxed_unsync());
        *refusal.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
        return refusal;
    };
    answer.map(|_| live::body(Arc::clone(admin), place))
}
