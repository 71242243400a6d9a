//! How one service asks another: by address, or through a gateway by the host name the service has in the cluster.
//!
//! Every call has a deadline, and every way to fail has a name, because the page shows it to a reader. The headers that
//! tie the hops of one request together travel on; nothing else of the caller's request does.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::header::{HOST, HeaderMap, HeaderName, HeaderValue};
use hyper::{Request, StatusCode, Uri};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde::de::DeserializeOwned;

/// An answer larger than this is not one of the sample's.
const MAX_ANSWER: usize = 256 * 1024;

/// Headers that a service passes on: request identity, trace context of the common formats, and the signed-in user.
const PROPAGATED: [&str; 18] = [
    "end-user",
    "user-agent",
    "x-request-id",
    "traceparent",
    "tracestate",
    "baggage",
    "b3",
    "x-b3-traceid",
    "x-b3-spanid",
    "x-b3-parentspanid",
    "x-b3-sampled",
    "x-b3-flags",
    "x-ot-span-context",
    "x-cloud-trace-context",
    "grpc-trace-bin",
    "x-datadog-trace-id",
    "x-datadog-parent-id",
    "x-datadog-sampling-priority",
];

/// The headers of `incoming` that a call made on its behalf carries on.
pub(crate) fn propagated(incoming: &HeaderMap) -> HeaderMap {
    let mut outgoing = HeaderMap::new();
    for name in PROPAGATED.map(HeaderName::from_static) {
        for value in incoming.get_all(&name) {
            outgoing.append(name.clone(), value.clone());
        }
    }
    outgoing
}

/// `http://HOST:PORT`, without a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target(String);

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let uri: Uri = text.parse().map_err(|error| format!("not a URL: {error}"))?;
        match (uri.scheme_str(), uri.authority()) {
            (Some("http"), Some(authority)) if matches!(uri.path(), "" | "/") && uri.query().is_none() => {
                Ok(Self(authority.to_string()))
            }
            _ => Err("expected http://HOST:PORT without a path".to_owned()),
        }
    }
}

impl From<SocketAddr> for Target {
    fn from(address: SocketAddr) -> Self {
        Self(address.to_string())
    }
}

/// A service that may be asked.
#[derive(Debug)]
pub(crate) struct Backend {
    targets: Vec<Target>,
    host: Option<String>,
    turn: AtomicUsize,
}

impl Backend {
    /// The targets take turns. With none, the service answers under its own name on the sample's port.
    pub(crate) fn direct(service: &str, targets: Vec<Target>) -> Self {
        let targets = if targets.is_empty() { vec![Target(format!("{service}:9080"))] } else { targets };
        Self { targets, host: None, turn: AtomicUsize::new(0) }
    }

    pub(crate) fn through_gateway(service: &str, gateway: Target) -> Self {
        Self {
            targets: vec![gateway],
            host: Some(format!("{service}.default.svc.cluster.local")),
            turn: AtomicUsize::new(0),
        }
    }

    fn request(&self, path: &str, headers: &HeaderMap) -> Result<Request<Empty<Bytes>>, CallError> {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let target = self
            .targets
            .get(turn % self.targets.len().max(1))
            .ok_or_else(|| CallError::Unreachable("no address".to_owned()))?;
        let mut request = Request::get(format!("http://{}{path}", target.0))
            .body(Empty::new())
            .map_err(|error| CallError::Unreachable(error.to_string()))?;
        *request.headers_mut() = headers.clone();
        if let Some(host) = &self.host {
            let host =
                HeaderValue::from_str(host).map_err(|error| CallError::Unreachable(error.to_string()))?;
            request.headers_mut().insert(HOST, host);
        }
        Ok(request)
    }
}

/// Why a call gave no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum CallError {
    TimedOut(Duration),
    Unreachable(String),
    Refused(StatusCode, String),
    Garbled(String),
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TimedOut(after) => write!(f, "no answer within {} s", after.as_secs_f32()),
            Self::Unreachable(why) => write!(f, "cannot be reached: {why}"),
            Self::Refused(status, body) if body.is_empty() => write!(f, "answered {status}"),
            Self::Refused(status, body) => write!(f, "answered {status}: {body}"),
            Self::Garbled(why) => write!(f, "answered something unexpected: {why}"),
        }
    }
}

impl CallError {
    /// The status with which an API that depends on the call answers.
    pub(crate) fn status(&self) -> StatusCode {
        match self {
            Self::TimedOut(_) => StatusCode::GATEWAY_TIMEOUT,
            Self::Refused(status, _) => *status,
            Self::Unreachable(_) | Self::Garbled(_) => StatusCode::BAD_GATEWAY,
        }
    }
}

/// A pooled HTTP/1.1 client.
#[derive(Clone, Debug)]
pub(crate) struct Client(hyper_util::client::legacy::Client<HttpConnector, Empty<Bytes>>);

impl Client {
    pub(crate) fn new() -> Self {
        Self(hyper_util::client::legacy::Client::builder(TokioExecutor::new()).build_http())
    }

    /// Asks `backend` for `path` and reads its JSON, all within `deadline`.
    pub(crate) async fn get<T: DeserializeOwned>(
        &self,
        backend: &Backend,
        path: &str,
        headers: &HeaderMap,
        deadline: Duration,
    ) -> Result<T, CallError> {
        let request = backend.request(path, headers)?;
        tokio::time::timeout(deadline, self.exchange(request))
            .await
            .unwrap_or(Err(CallError::TimedOut(deadline)))
    }

    async fn exchange<T: DeserializeOwned>(&self, request: Request<Empty<Bytes>>) -> Result<T, CallError> {
        let response =
            self.0.request(request).await.map_err(|error| CallError::Unreachable(innermost(&error)))?;
        let status = response.status();
        let body = Limited::new(response.into_body(), MAX_ANSWER)
            .collect()
            .await
            .map_err(|error| CallError::Garbled(error.to_string()))?
            .to_bytes();
        if !status.is_success() {
            let text: String = String::from_utf8_lossy(&body).trim().chars().take(200).collect();
            return Err(CallError::Refused(status, text));
        }
        serde_json::from_slice(&body).map_err(|error| CallError::Garbled(error.to_string()))
    }
}

/// The client's own message only says that connecting failed; its cause says why.
fn innermost(error: &dyn std::error::Error) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_an_http_origin() {
        assert_eq!("http://127.0.0.1:8080/".parse::<Target>().unwrap(), Target("127.0.0.1:8080".to_owned()));
        for wrong in ["127.0.0.1:8080", "https://a:1", "http://a:1/x", "http://a:1?x", "http://"] {
            assert!(wrong.parse::<Target>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn several_targets_take_turns() {
        let targets = ["http://a:1", "http://b:2"].map(|url| url.parse().unwrap());
        let backend = Backend::direct("reviews", targets.to_vec());
        let asked: Vec<_> = (0..3)
            .map(|_| backend.request("/x", &HeaderMap::new()).unwrap().uri().authority().unwrap().to_string())
            .collect();
        assert_eq!(asked, ["a:1", "b:2", "a:1"]);
    }

    #[test]
    fn through_a_gateway_the_address_is_the_gateways_and_the_host_the_services() {
        let backend = Backend::through_gateway("reviews", "http://127.0.0.1:8080".parse().unwrap());
        let request = backend.request("/reviews/0", &HeaderMap::new()).unwrap();
        assert_eq!(request.uri(), "http://127.0.0.1:8080/reviews/0");
        assert_eq!(request.headers().get(HOST).unwrap(), "reviews.default.svc.cluster.local");
    }

    #[test]
    fn only_the_named_headers_travel_on() {
        let mut incoming = HeaderMap::new();
        incoming.insert("x-request-id", HeaderValue::from_static("7"));
        incoming.append("tracestate", HeaderValue::from_static("a=1"));
        incoming.append("tracestate", HeaderValue::from_static("b=2"));
        incoming.insert("cookie", HeaderValue::from_static("session=secret"));
        incoming.insert("host", HeaderValue::from_static("evil"));
        let outgoing = propagated(&incoming);
        assert_eq!(outgoing.get("x-request-id").unwrap(), "7");
        assert_eq!(outgoing.get_all("tracestate").iter().count(), 2);
        assert_eq!(outgoing.len(), 3);
    }

    #[tokio::test]
    async fn a_closed_port_is_unreachable_and_says_why() {
        let address = {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            listener.local_addr().unwrap()
        };
        let backend = Backend::direct("details", vec![Target::from(address)]);
        let answer: Result<serde_json::Value, _> =
            Client::new().get(&backend, "/", &HeaderMap::new(), Duration::from_secs(5)).await;
        let error = answer.unwrap_err();
        assert_eq!(error.status(), StatusCode::BAD_GATEWAY);
        assert!(error.to_string().contains("refused"), "{error}");
    }

    #[tokio::test]
    async fn a_silent_peer_is_given_up_on() {
        // Bound and never accepted from: the kernel completes the handshake, and nobody answers.
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let backend = Backend::direct("details", vec![Target::from(listener.local_addr().unwrap())]);
        let deadline = Duration::from_millis(50);
        let answer: Result<serde_json::Value, _> =
            Client::new().get(&backend, "/", &HeaderMap::new(), deadline).await;
        assert_eq!(answer.unwrap_err(), CallError::TimedOut(deadline));
    }
}
