//! Serves one service on one listener, HTTP/1.1, until told to stop; then finishes what is in flight.
//!
//! A peer cannot make it hold more than a small body, nor wait for ever for a head.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::details::Details;
use crate::model::Identity;
use crate::productpage::ProductPage;
use crate::ratings::Ratings;
use crate::reply::{self, Reply};
use crate::reviews::Reviews;

const MAX_BODY: usize = 16 * 1024;
const HEAD_DEADLINE: Duration = Duration::from_secs(30);
/// How long requests in flight may take once the process is told to stop.
const DRAIN: Duration = Duration::from_secs(3);

#[derive(Debug)]
pub(crate) enum Service {
    ProductPage(ProductPage),
    Details(Details),
    Ratings(Ratings),
    Reviews(Reviews),
}

impl Service {
    pub(crate) fn identity(&self) -> &Identity {
        match self {
            Self::ProductPage(service) => service.identity(),
            Self::Details(service) => service.identity(),
            Self::Ratings(service) => service.identity(),
            Self::Reviews(service) => service.identity(),
        }
    }

    async fn respond(&self, request: Request<Incoming>) -> Reply {
        let (head, body) = request.into_parts();
        let Ok(body) = Limited::new(body, MAX_BODY).collect().await else {
            return reply::error(StatusCode::PAYLOAD_TOO_LARGE, "the body is too large or incomplete");
        };
        let path = head.uri.path();
        match self {
            Self::ProductPage(service) => {
                service.respond(&head.method, path, &head.headers, &body.to_bytes()).await
            }
            Self::Details(service) => service.respond(&head.method, path),
            Self::Ratings(service) => service.respond(&head.method, path),
            Self::Reviews(service) => service.respond(&head.method, path, &head.headers).await,
        }
    }
}

pub(crate) async fn serve(listener: TcpListener, service: Arc<Service>, stop: watch::Receiver<bool>) {
    let mut connections = JoinSet::new();
    let mut stopped = std::pin::pin!(told_to(stop.clone()));
    loop {
        tokio::select! {
            () = stopped.as_mut() => break,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(connection(stream, Arc::clone(&service), stop.clone()));
                }
                // Out of descriptors, most likely: give the connections there are a moment to end.
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            },
            Some(_) = connections.join_next() => {}
        }
    }
    // What is still open at the end of the drain is dropped with the set.
    let _ = tokio::time::timeout(DRAIN, connections.join_all()).await;
}

/// Resolves when told to stop, and when nobody is left who could tell.
async fn told_to(mut stop: watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}

async fn connection(stream: TcpStream, service: Arc<Service>, stop: watch::Receiver<bool>) {
    // Small answers on kept-alive connections: waiting for more to send only adds latency.
    let _ = stream.set_nodelay(true);
    let handler = service_fn(move |request| {
        let service = Arc::clone(&service);
        async move { Ok::<_, Infallible>(service.respond(request).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_DEADLINE)
        .serve_connection(TokioIo::new(stream), handler);
    let mut connection = std::pin::pin!(connection);
    tokio::select! {
        // A peer that goes away mid-message is its own affair.
        _ = connection.as_mut() => return,
        () = told_to(stop) => connection.as_mut().graceful_shutdown(),
    }
    let _ = connection.await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::{Backend, Client, Target};
    use crate::model::{BookDetails, BookReviews};
    use hyper::header::HeaderMap;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    const PATIENCE: Duration = Duration::from_secs(10);

    fn identity(service: &str, version: &str) -> Identity {
        Identity { service: service.into(), version: version.into(), pod: format!("{service}-pod") }
    }

    async fn start(service: Service) -> (Target, watch::Sender<bool>, tokio::task::JoinHandle<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let target = Target::from(listener.local_addr().unwrap());
        let (stop, stopped) = watch::channel(false);
        (target, stop, tokio::spawn(serve(listener, Arc::new(service), stopped)))
    }

    #[tokio::test]
    async fn reviews_asks_ratings_over_the_wire_and_says_who_answered() {
        let ratings = Service::Ratings(Ratings::new(identity("ratings", "v1")));
        let (ratings, _keep, _) = start(ratings).await;
        let backend = Backend::direct("ratings", vec![ratings]);
        let reviews = Reviews::new(identity("reviews", "v2"), Client::new(), backend);
        let (reviews, _keep_too, _) = start(Service::Reviews(reviews)).await;

        let backend = Backend::direct("reviews", vec![reviews]);
        let answer: BookReviews =
            Client::new().get(&backend, "/reviews/0", &HeaderMap::new(), PATIENCE).await.unwrap();
        assert_eq!(answer.served_by, identity("reviews", "v2"));
        assert_eq!(answer.ratings_served_by, Some(identity("ratings", "v1")));
    }

    #[tokio::test]
    async fn a_stop_closes_idle_connections_and_ends_the_server() {
        let (target, stop, server) = start(Service::Details(Details::new(identity("details", "v1")))).await;
        let backend = Backend::direct("details", vec![target]);
        let client = Client::new();
        let _: BookDetails = client.get(&backend, "/details/0", &HeaderMap::new(), PATIENCE).await.unwrap();
        stop.send(true).unwrap();
        tokio::time::timeout(PATIENCE, server).await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn a_body_that_is_too_large_is_refused() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (_stop, stopped) = watch::channel(false);
        let service = Arc::new(Service::Details(Details::new(identity("details", "v1"))));
        tokio::spawn(serve(listener, service, stopped));

        let mut stream = TcpStream::connect(address).await.unwrap();
        let body = "x".repeat(MAX_BODY + 1);
        let request = format!(
            "POST /details/0 HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"HTTP/1.1 413");
    }
}
