//! Connections of a sidecar: found by where they were going, and by what they show as far as a chain asks for it.
//!
//! Invariant: a connection gets its listener, chain and certificate from one snapshot; one that was made to the socket that others are
//! redirected to is closed, as it would come back for ever. A server that speaks first is not kept waiting where no chain of its address asks for a
//! client's bytes.

use routing::listener::{Chains, Direction, Reached, Wants};
use tokio::time::{Instant, timeout};

use super::{
    Client, Course, Handshake, LiveListener,
    accept::{Accepted, terminate},
    counting::Refusal,
    idle, preface, sniff,
    socket::Socket,
};

/// Serves a connection of a listener whose chains are matched. `live` is the listener that accepted it.
pub(super) async fn serve(
    (mut socket, mut begun): (Socket, Vec<u8>),
    mut live: LiveListener,
    mut accepted: Accepted<'_>,
) {
    let (serving, edge, peer) = (accepted.serving, accepted.edge, accepted.endpoints.peer);
    let redirected = live.listener.reached == Reached::Redirected;
    let mut destination = accepted.endpoints.local;
    if redirected {
        destination = socket.original_destination();
        if destination == socket.local {
            return serving.refused(Refusal::Itself);
        }
        let Some(found) = edge.source.handed_over(&serving.key, destination) else { return };
        live = found;
    }
    let LiveListener { listener, certificates, edge: config } = live;
    let Chains::Matched(matched) = &listener.chains else { return };
    let limits = config.limits;
    let fair = Instant::now() + limits.newcomer;
    let close_idle = serving.close_idle.clone();

    let wants = matched.wants(destination);
    let shown = if wants == Wants::default() {
        sniff::Shown::default()
    } else {
        // Istio: on its way out, only where HTTP is one of the things that it may be.
        let limit = limits.detection.filter(|_| wants.http || listener.direction == Direction::Inbound);
        let sniffing = async {
            let sniffing = sniff::sniff(&mut socket, &mut begun, wants);
            match limit {
                Some(limit) => timeout(limit, sniffing).await,
                None => Ok(sniffing.await),
            }
        };
        let sniffed = tokio::select! {
            // First, so that who has asked for something already is heard.
            biased;
            sniffed = sniffing => sniffed,
            () = idle::closed(close_idle.clone(), fair) => return,
        };
        match sniffed {
            Ok(Ok(shown)) => shown,
            Ok(Err(error)) => {
                return tracing::debug!(listener = %listener.key, %peer, %error, "closed before it showed what it is");
            }
            Err(_) => sniff::raw(None),
        }
    };
    let sni = shown.sniffed.server_name.clone();
    let Some(chain) = matched.pick(destination, &shown.sniffed) else {
        edge.handler.unmatched(&listener.key, peer, destination, sni.as_deref());
        return tracing::debug!(listener = %listener.key, %peer, %destination, "no chain is for the connection");
    };
    accepted.endpoints.listener = listener.key.clone();
    if redirected {
        (accepted.endpoints.local, accepted.endpoints.bound_port) = (destination, destination.port());
    }
    let direction = listener.direction;
    let course = Course { direction, destination, redirected, sniffed: shown.sniffed };
    accepted.endpoints.course = Some(Box::new(course));
    let most = config.connections.handshakes;
    accepted.config = config;

    match (chain.tls.is_some(), shown.hello) {
        (true, Some(hello)) => {
            let shaken =
                Box::pin(terminate(&certificates, chain, hello.signs, (socket, begun), serving, most));
            match timeout(limits.handshake, shaken).await {
                Ok(Ok(stream)) => {
                    serving.all.shaken(Handshake::Complete);
                    accepted.terminated(stream, chain, sni).await;
                }
                Ok(Err(reason)) => {
                    serving.all.shaken(Handshake::Failed);
                    tracing::debug!(listener = %listener.key, %peer, reason, "TLS refused");
                }
                Err(_) => {
                    serving.all.shaken(Handshake::TimedOut);
                    tracing::debug!(listener = %listener.key, %peer, "TLS handshake not complete in time");
                }
            }
        }
        (true, None) => {
            tracing::debug!(listener = %listener.key, %peer, "closed: not the TLS that its chain is for");
        }
        (false, _) => match &chain.tcp {
            Some(route) => accepted.tunnel(Client::of(socket, begun), sni, (false, None), route).await,
            None => {
                let detected = tokio::select! {
                    biased;
                    detected = preface::detect(&mut socket, begun, limits) => detected,
                    () = idle::closed(close_idle, fair) => return,
                };
                match detected {
                    Ok(begun) => {
                        accepted.requests(socket.behind(Vec::new()), begun, None, (false, None)).await
                    }
                    Err(error) => {
                        tracing::debug!(listener = %listener.key, %peer, %error, "closed before a request");
                    }
                }
            }
        },
    }
}
