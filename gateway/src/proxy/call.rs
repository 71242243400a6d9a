//! Calls of the gateway's own to services of the mesh, outside of any request: what its collectors are sent.
//!
//! Invariant: a service is reached as requests to it are, with its endpoints, its TLS and its trust; nothing is sent where that fails.
//! No call waits for a place in a cluster's limits, and none is made on the data plane's runtime.

use super::{mirror, peer};
use crate::{
    runtime::{Cluster, InFlight},
    snapshot::SnapshotCell,
    telemetry::export::{Answer, Courier, Destination, Protocol},
};
use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Request, header};
use pingora_core::{
    connectors::{ConnectorOptions, http::Connector},
    protocols::http::client::HttpSession,
    upstreams::peer::{HttpPeer, Peer},
};
use pingora_error::{Error, ErrorType, Result};
use pingora_http::RequestHeader;
use routing::cluster::UpstreamProtocol;
use std::{
    net::SocketAddr,
    sync::{Arc, OnceLock},
    time::Duration,
};

/// Idle connections that are kept.
const POOL: usize = 8;
/// Bytes of an answer that are kept.
const MOST_ANSWER: usize = 64 * 1024;
/// How long a connection outside of the mesh may take.
const CONNECT: Duration = Duration::from_secs(5);

/// Makes calls by the snapshot in force.
pub struct Caller {
    snapshots: Arc<SnapshotCell>,
    connector: OnceLock<Connector>,
}

/// Whom a call goes to.
struct Target {
    peer: HttpPeer,
    protocol: UpstreamProtocol,
    of_mesh: Option<(Arc<Cluster>, InFlight)>,
}

impl Caller {
    /// For the configurations of `snapshots`.
    #[must_use]
    pub fn new(snapshots: Arc<SnapshotCell>) -> Self {
        Self { snapshots, connector: OnceLock::new() }
    }

    async fn target(&self, to: &Destination, spoken: Protocol, authority: &str) -> Result<Target> {
        match to {
            Destination::Cluster(name) => {
                let cluster = self.snapshots.load().clusters.get(name).cloned();
                let Some(cluster) = cluster else {
                    return Error::e_explain(ErrorType::ConnectError, "no such service");
                };
                let protocol = match (spoken, cluster.spec.protocol) {
                    (Protocol::Grpc, _) | (Protocol::Http, UpstreamProtocol::Http2) => {
                        UpstreamProtocol::Http2
                    }
                    (Protocol::Http, _) => UpstreamProtocol::Http1,
                };
                let Some(endpoint) = cluster.pick(|| fastrand::u64(..), None, &[]) else {
                    return Error::e_explain(ErrorType::ConnectError, "no healthy upstream");
                };
                let peer = peer::build(&cluster, &endpoint.endpoint, protocol, authority, None)?;
                let load = endpoint.begin(&cluster);
                Ok(Target { peer, protocol, of_mesh: Some((cluster, load)) })
            }
            Destination::Address(host, port) => {
                let address = resolve(host, *port).await?;
                let mut peer = HttpPeer::new(address, false, String::new());
                peer.options.total_connection_timeout = Some(CONNECT);
                let protocol = match spoken {
                    Protocol::Grpc => UpstreamProtocol::Http2,
                    Protocol::Http => UpstreamProtocol::Http1,
                };
                if protocol == UpstreamProtocol::Http2 {
                    peer.options.set_http_version(2, 2);
                }
                Ok(Target { peer, protocol, of_mesh: None })
            }
        }
    }

    async fn call(&self, to: &Destination, spoken: Protocol, message: Request<Bytes>) -> Result<Answer> {
        let host = message.headers().get(header::HOST).and_then(|host| host.to_str().ok());
        let authority = host.unwrap_or_default().to_owned();
        let Target { peer, protocol, of_mesh } = self.target(to, spoken, &authority).await?;
        let (parts, body) = message.into_parts();
        let mut head = RequestHeader::from(parts);
        head.insert_header(header::CONTENT_LENGTH, body.len())?;
        let head = mirror::copy_of(&head, protocol, &authority, true)?;
        let connector = self.connector.get_or_init(|| Connector::new(Some(ConnectorOptions::new(POOL))));
        let (mut session, _) = connector.get_http_session(&peer).await?;
        if peer.is_tls() {
            let tls = of_mesh.as_ref().and_then(|(cluster, _)| cluster.tls());
            peer::verify(tls, session.digest())?;
        }
        session.write_request_header(Box::new(head)).await?;
        session.write_request_body(body, true).await?;
        session.finish_request_body().await?;
        let answer = answer(&mut session).await?;
        if let Some((_, load)) = &of_mesh {
            load.answered(answer.status.as_u16());
        }
        connector.release_http_session(session, &peer, peer.idle_timeout()).await;
        Ok(answer)
    }
}

#[async_trait]
impl Courier for Caller {
    async fn carry(
        &self,
        to: &Destination,
        spoken: Protocol,
        message: Request<Bytes>,
    ) -> Result<Answer, String> {
        self.call(to, spoken, message).await.map_err(|error| error.to_string())
    }
}

/// Reads an answer to its end.
async fn answer(session: &mut HttpSession) -> Result<Answer> {
    loop {
        session.read_response_header().await?;
        if session.response_header().is_none_or(|head| !head.status.is_informational()) {
            break;
        }
    }
    let Some(head) = session.response_header() else {
        return Error::e_explain(ErrorType::ReadError, "no response");
    };
    let (status, mut headers) = (head.status, HeaderMap::clone(&head.headers));
    let mut body = BytesMut::new();
    while let Some(part) = session.read_response_body().await? {
        let room = MOST_ANSWER - body.len();
        body.extend_from_slice(part.get(..part.len().min(room)).unwrap_or_default());
    }
    if let HttpSession::H2(stream) = session
        && let Some(trailers) = stream.read_trailers().await?
    {
        headers.extend(trailers);
    }
    Ok(Answer { status, headers, body: body.freeze() })
}

async fn resolve(host: &str, port: u16) -> Result<SocketAddr> {
    let found = tokio::net::lookup_host((host, port)).await;
    match found.ok().and_then(|mut found| found.next()) {
        Some(address) => Ok(address),
        None => Error::e_explain(ErrorType::ConnectError, format!("{host} is not known")),
    }
}
