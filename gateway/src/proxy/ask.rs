//! Questions to a cluster that are no client's request: whole ones, with whole answers.
//!
//! Invariant: a call takes its place in the cluster's limits, its balancing and its TLS, as a request does. An answer is read to its
//! end or given up; nothing is tried twice.

use super::{heads::edit_request, peer};
use crate::{
    policy::{CallError, Calling, Service},
    runtime::{Admission, Cluster, endpoint::NoAnswer, registry::Clusters},
};
use bytes::{Bytes, BytesMut};
use futures::FutureExt as _;
use http::{HeaderMap, HeaderValue, Request, Response, Uri, Version, header};
use pingora_core::{
    connectors::{ConnectorOptions, http::Connector},
    protocols::http::client::HttpSession,
    upstreams::peer::Peer as _,
};
use pingora_error::{ErrorType, OkOrErr as _, OrErr as _, Result};
use pingora_http::RequestHeader;
use routing::{
    authz::provider::{Protocol, Provider},
    cluster::UpstreamProtocol,
};
use std::sync::{Arc, OnceLock};

/// Most bytes of an answer.
const MOST: usize = 1 << 20;
/// Idle connections that are kept.
const POOL: usize = 128;

/// Makes calls.
#[derive(Default)]
pub struct Calls(OnceLock<Connector>);

/// A cluster to be asked.
struct Target {
    calls: Arc<Calls>,
    /// `None`: nobody is there.
    cluster: Option<Arc<Cluster>>,
    /// Over HTTP/2 whatever the cluster says.
    grpc: bool,
}

/// A provider as a configuration's cluster.
#[must_use]
pub fn service(calls: &Arc<Calls>, clusters: &Clusters, provider: &Provider) -> Arc<dyn Service> {
    Arc::new(Target {
        calls: Arc::clone(calls),
        cluster: clusters.get(&provider.cluster).cloned(),
        grpc: matches!(provider.protocol, Protocol::Grpc),
    })
}

impl Service for Target {
    fn call(&self, request: Request<Bytes>) -> Calling<'_> {
        async move {
            let cluster = self.cluster.as_ref().ok_or_else(|| CallError::new("there is no such cluster"))?;
            let called = self.calls.call(cluster, self.protocol(cluster), request).await;
            called.map_err(|error| CallError::new(error.to_string()))
        }
        .boxed()
    }
}

impl Target {
    fn protocol(&self, cluster: &Cluster) -> UpstreamProtocol {
        match cluster.spec.protocol {
            _ if self.grpc => UpstreamProtocol::Http2,
            UpstreamProtocol::Client => UpstreamProtocol::Http1,
            fixed => fixed,
        }
    }
}

impl Calls {
    async fn call(
        &self,
        cluster: &Arc<Cluster>,
        protocol: UpstreamProtocol,
        request: Request<Bytes>,
    ) -> Result<Response<Bytes>> {
        let refused = |why| pingora_error::Error::explain(ErrorType::ConnectNoRoute, why);
        let Admission::Granted(_place) = cluster.admit(protocol).await else {
            return Err(refused("the cluster's limits are reached"));
        };
        let endpoint = cluster.pick(|| fastrand::u64(..), None, &[]);
        let endpoint = endpoint.ok_or_else(|| refused("the cluster has no healthy endpoint"))?;
        let (head, authority, body) = head(request, protocol)?;
        let peer = peer::build(cluster, &endpoint.endpoint, protocol, &authority, None)?;
        let load = endpoint.begin(cluster);
        let connector = self.0.get_or_init(|| Connector::new(Some(ConnectorOptions::new(POOL))));
        let (mut session, _) = match connector.get_http_session(&peer).await {
            Ok(session) => session,
            Err(error) => {
                load.failed(NoAnswer::Connection);
                return Err(error);
            }
        };
        if peer.is_tls() {
            peer::verify(cluster.tls(), session.digest())?;
        }
        let answer = exchange(&mut session, head, body).await?;
        connector.release_http_session(session, &peer, peer.idle_timeout()).await;
        Ok(answer)
    }
}

async fn exchange(session: &mut HttpSession, head: RequestHeader, body: Bytes) -> Result<Response<Bytes>> {
    session.write_request_header(Box::new(head)).await?;
    if !body.is_empty() {
        session.write_request_body(body, true).await?;
    }
    session.finish_request_body().await?;
    loop {
        session.read_response_header().await?;
        if session.response_header().is_none_or(|head| !head.status.is_informational()) {
            break;
        }
    }
    let head = session.response_header().or_err(ErrorType::ReadError, "no head of an answer")?;
    let (status, headers) = (head.status, head.headers.clone());
    let mut whole = BytesMut::new();
    while let Some(part) = session.read_response_body().await? {
        if whole.len() + part.len() > MOST {
            return pingora_error::Error::e_explain(ErrorType::ReadError, "an answer that is too long");
        }
        whole.extend_from_slice(&part);
    }
    let mut answer = Response::new(whole.freeze());
    *answer.status_mut() = status;
    *answer.headers_mut() = headers;
    if let HttpSession::H2(session) = session
        && let Some(trailers) = session.read_trailers().await?
    {
        merge(answer.headers_mut(), &trailers);
    }
    Ok(answer)
}

/// What only the end of an answer says, gRPC's status above all, stands beside what its head says.
fn merge(headers: &mut HeaderMap, trailers: &HeaderMap) {
    for (name, value) in trailers.iter().filter(|(name, _)| name.as_str().starts_with("grpc-")) {
        headers.insert(name.clone(), value.clone());
    }
}

/// The head as it goes out, the authority that it names, and the body.
fn head(request: Request<Bytes>, protocol: UpstreamProtocol) -> Result<(RequestHeader, String, Bytes)> {
    let (mut parts, body) = request.into_parts();
    let authority = parts.uri.authority().map(ToString::to_string).unwrap_or_default();
    let target = parts.uri.path_and_query().cloned();
    parts.headers.insert(header::CONTENT_LENGTH, HeaderValue::from(body.len()));
    let host = HeaderValue::from_str(&authority).or_err(ErrorType::InternalError, "authority of a call")?;
    let mut head = RequestHeader::from(http::Request::new(()).into_parts().0);
    edit_request(&mut head, |out| -> Result<()> {
        out.method = parts.method;
        out.headers = parts.headers;
        if protocol == UpstreamProtocol::Http1 {
            out.version = Version::HTTP_11;
            out.uri = target.map_or_else(Uri::default, Uri::from);
            out.headers.insert(header::HOST, host);
        } else {
            out.version = Version::HTTP_2;
            out.headers.remove(header::HOST);
            out.uri = parts.uri;
        }
        Ok(())
    })?;
    Ok((head, authority, body))
}
