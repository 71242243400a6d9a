//! A cluster's endpoint as the engine dials it.
//!
//! Invariant: connections are shared only where cluster, protocol and trust are the same. TLS that cannot be verified
//! as its specification asks is not used: it fails closed.

use super::{
    connect::{self, Dial, Secure},
    failure::Cause,
    mesh::Carries,
    secure::Handshake,
};
use crate::{
    listener::ConnectionInfo,
    runtime::Cluster,
    telemetry::istio::Principals,
    tls::{Revocation, Trust},
};
use pingora_core::{
    protocols::{
        Digest, GetProxyDigest as _,
        l4::{ext::TcpKeepalive, socket::SocketAddr as PeerAddress, stream::Stream},
        tls::{HandshakeCompleteHook, SslDigest, TlsRef},
    },
    tls::x509::{X509, X509Ref},
    upstreams::peer::HttpPeer,
};
use pingora_error::{Error, ErrorType, Result};
use routing::{
    cluster::{Address, Endpoint, KeepAlive, UpstreamProtocol, UpstreamTls},
    host::without_port,
};
use std::{
    any::Any,
    net::{IpAddr, SocketAddr},
    os::unix::net,
    sync::Arc,
    time::{Duration, SystemTime},
};
use tokio::io::{AsyncRead, AsyncWrite};

/// Streams on one HTTP/2 connection to an upstream before another is opened.
const H2_STREAMS: usize = 100;
/// How often a silent HTTP/2 connection to an upstream is asked whether it is alive.
const H2_PING: Duration = Duration::from_secs(60);

/// What the operating system does where a DestinationRule sends keep-alive probes and does not say how (Linux).
const KEEPALIVE_IDLE: Duration = Duration::from_secs(7200);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(75);
const KEEPALIVE_PROBES: u32 = 9;

/// Whether an upstream's certificate is one that was asked for; found at the handshake, kept with the connection.
pub(super) enum Verdict {
    /// It is, with the names of both ends.
    Accept(Arc<Principals>),
    Refuse(&'static str),
}

/// The peer for one attempt. `authority` is what is sent upstream: server name where the specification has none.
///
/// # Errors
/// [`Cause::UntrustedUpstream`] where verification is asked for and impossible; [`Cause::NoHealthyUpstream`] for an
/// address that cannot be dialled.
pub(super) fn build(
    cluster: &Arc<Cluster>,
    endpoint: &Endpoint,
    protocol: UpstreamProtocol,
    authority: &str,
    client: Option<&ConnectionInfo>,
) -> Result<HttpPeer> {
    let spec = &cluster.spec;
    let secured = cluster.tls_to(endpoint);
    let sni = secured.as_ref().map(|(tls, _)| server_name(tls, authority)).unwrap_or_default();
    let pool_key = cluster.pool_key(secured.as_ref().map(|(_, trust)| trust));
    let once = spec.pool.max_requests_per_connection == Some(1);
    let has_address = matches!(endpoint.address, Address::Ip(_));
    let (ours, secured) = match secured {
        Some((tls, Trust::Usable(material))) if has_address && tls.is_of_mesh() => {
            (Some(Handshake::of_mesh(material, sni.clone(), Carries::http(protocol))), None)
        }
        // Each request has a handshake: those are worth resuming, and the pool never sees the connection.
        Some((tls, Trust::Usable(material)))
            if has_address && once && tls.sni.is_some() && protocol != UpstreamProtocol::Http2 =>
        {
            (Some(Handshake::of_http1(material, tls)), None)
        }
        other => (None, other),
    };
    let ours = ours.map(|handshake| Secure { handshake, pooled: !once });
    let mut peer = match &endpoint.address {
        Address::Ip(address) => HttpPeer::new(*address, secured.is_some(), sni),
        Address::Unix(path) => HttpPeer::new_uds(path, secured.is_some(), sni)?,
        // Views hold resolved addresses only.
        Address::Name(..) => return Err(Cause::NoHealthyUpstream.error()),
    };
    peer.group_key = pool_key;
    let options = &mut peer.options;
    options.connection_timeout = Some(spec.connect_timeout);
    options.total_connection_timeout = Some(spec.connect_timeout);
    options.idle_timeout = spec.idle_timeout;
    if let Some(dial) = Dial::for_attempt(cluster, endpoint, protocol, client, ours) {
        peer.group_key ^= dial.pool_key();
        if let Some(address) = dial.stand_in() {
            peer._address = PeerAddress::Inet(address);
        }
        options.custom_l4 = Some(Arc::new(dial));
    }
    if once || matches!(&endpoint.address, Address::Unix(path) if path.starts_with('@')) {
        // Nobody else finds it in the pool, and the pool lets it go at once. (The engine cannot tell abstract sockets
        // from each other, so that none of theirs is used twice.)
        peer.group_key = fastrand::u64(..);
        options.idle_timeout = Some(Duration::ZERO);
    }
    options.tcp_keepalive = spec.pool.keepalive.as_ref().map(keepalive);
    match protocol {
        UpstreamProtocol::Http1 | UpstreamProtocol::Client => options.set_http_version(1, 1),
        UpstreamProtocol::Http2 => {
            options.set_http_version(2, 2);
            options.max_h2_streams = spec.pool.max_streams.map_or(H2_STREAMS, |streams| streams as usize);
            options.h2_ping_interval = Some(spec.pool.h2_keepalive.map_or(H2_PING, |(interval, _)| interval));
        }
    }
    if let Some((tls, trust)) = &secured {
        verification(&mut peer, tls, trust, authority)?;
    }
    Ok(peer)
}

/// A connection that carries bytes.
pub(super) trait Duplex: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Duplex for T {}

/// A connection for what is not HTTP, and its two ends where they are known, ours first.
pub(super) struct Made {
    pub(super) stream: Box<dyn Duplex>,
    pub(super) ends: Option<(SocketAddr, SocketAddr)>,
    /// Names in the certificates of both ends.
    pub(super) principals: Option<Arc<Principals>>,
}

/// A connection for what is not HTTP, made and verified.
///
/// # Errors
/// As [`build`], and why it could not be made.
pub(super) async fn connect(
    cluster: &Arc<Cluster>,
    endpoint: &Endpoint,
    client: &ConnectionInfo,
) -> Result<Made> {
    let handshake = match cluster.tls_to(endpoint) {
        None => None,
        Some((_, Trust::Unavailable(why))) => return Err(Cause::UntrustedUpstream.explain(&*why)),
        Some((tls, Trust::Usable(material))) if tls.is_of_mesh() => {
            let name = tls.sni.as_deref().unwrap_or_default().to_owned();
            Some(Handshake::of_mesh(material, name, Carries::Tcp))
        }
        Some((tls, Trust::Usable(material))) => Some(Handshake::of_tcp(material, tls)),
    };
    let address = match &endpoint.address {
        Address::Ip(address) => PeerAddress::Inet(*address),
        Address::Unix(path) => {
            let path = net::SocketAddr::from_pathname(&**path);
            PeerAddress::Unix(path.map_err(|_| Cause::NoHealthyUpstream.error())?)
        }
        Address::Name(..) => return Err(Cause::NoHealthyUpstream.error()),
    };
    let dial = Dial::alone(cluster, endpoint, Some(client), handshake).with_ends(endpoint);
    let made = async {
        Ok(match dial.handshake() {
            None => {
                let stream = dial.set_up(&address).await?;
                Made { ends: ends(&stream), principals: None, stream: Box::new(stream) }
            }
            Some(handshake) => {
                let stream = dial.secured(handshake, &address).await?;
                Made {
                    ends: ends(stream.bare()),
                    principals: stream.principals().cloned(),
                    stream: Box::new(stream),
                }
            }
        })
    };
    let limit = cluster.spec.connect_timeout;
    match tokio::time::timeout(limit, made).await {
        Ok(made) => made,
        Err(_) => Error::e_explain(ErrorType::ConnectTimedout, format!("not connected in {limit:?}")),
    }
}

fn ends(stream: &Stream) -> Option<(SocketAddr, SocketAddr)> {
    connect::ends(stream.get_proxy_digest().as_deref())
}

/// TCP keep-alive as a DestinationRule asks for it.
pub(super) fn keepalive(asked: &KeepAlive) -> TcpKeepalive {
    TcpKeepalive {
        idle: asked.time.unwrap_or(KEEPALIVE_IDLE),
        interval: asked.interval.unwrap_or(KEEPALIVE_INTERVAL),
        count: asked.probes.unwrap_or(KEEPALIVE_PROBES) as usize,
        user_timeout: Duration::ZERO,
    }
}

/// The names in the certificates of both ends, where they were looked at and there are any.
pub(super) fn principals(digest: Option<&SslDigest>) -> Option<Arc<Principals>> {
    digest?.extension.get::<Verdict>()?.principals()
}

impl Verdict {
    /// The names in the certificates of both ends, where there are any.
    pub(super) fn principals(&self) -> Option<Arc<Principals>> {
        match self {
            Self::Accept(principals) if **principals != Principals::default() => Some(principals.clone()),
            Self::Accept(_) | Self::Refuse(_) => None,
        }
    }
}

/// Checks what [`build`] left to be checked after the handshake, on new and on pooled connections alike.
///
/// # Errors
/// [`Cause::UntrustedUpstream`] where the certificate is not one that was asked for, or nobody looked.
pub(super) fn verify(tls: Option<&UpstreamTls>, digest: Option<&Digest>) -> Result<()> {
    let Some(tls) = tls else { return Err(Cause::UntrustedUpstream.explain("TLS without a specification")) };
    if tls.insecure_skip_verify {
        return Ok(());
    }
    match digest.and_then(|d| d.ssl_digest.as_ref()?.extension.get::<Verdict>()) {
        Some(Verdict::Accept(_)) => Ok(()),
        Some(Verdict::Refuse(why)) => Err(Cause::UntrustedUpstream.explain(*why)),
        None => Err(Cause::UntrustedUpstream.explain("the certificate was not looked at")),
    }
}

fn verification(peer: &mut HttpPeer, tls: &UpstreamTls, trust: &Trust, authority: &str) -> Result<()> {
    let material = match trust {
        Trust::Usable(material) => material,
        Trust::Unavailable(why) => return Err(Cause::UntrustedUpstream.explain(&**why)),
    };
    peer.client_cert_key = material.client.clone();
    if tls.insecure_skip_verify {
        peer.options.verify_cert = false;
        peer.options.verify_hostname = false;
        return Ok(());
    }
    peer.options.ca = material.roots.clone();
    let mut address = None;
    if peer.sni.is_empty() {
        // RFC 6066 §3: an address is not a server name, and none is sent. The engine verifies nothing without one, but
        // leaves an address out of the handshake by itself.
        let host = without_port(authority).trim_start_matches('[').trim_end_matches(']');
        let Ok(ip) = host.parse::<IpAddr>() else {
            return Err(Cause::UntrustedUpstream.explain("no server name to verify: set tls.sni"));
        };
        peer.sni = ip.to_string();
        address = Some(ip);
    }
    peer.options.verify_cert = true;
    peer.options.verify_hostname = tls.verify_host && address.is_none();
    let address = address.filter(|_| tls.verify_host);
    let names = tls.subject_alt_names.clone();
    peer.options.upstream_tls_handshake_complete_hook =
        Some(look(names, address, material.revocation.clone()));
    Ok(())
}

/// Looks at the certificate at the end of a handshake, for [`verify`].
pub(super) fn look(
    names: Vec<Arc<str>>,
    address: Option<IpAddr>,
    revocation: Option<Arc<Revocation>>,
) -> HandshakeCompleteHook {
    Arc::new(move |ssl: &TlsRef| {
        Some(Arc::new(judge(ssl, &names, address, revocation.as_deref())) as Arc<dyn Any + Send + Sync>)
    })
}

/// Whether this is whom a specification asks for.
pub(super) fn judge(
    ssl: &TlsRef,
    names: &[Arc<str>],
    address: Option<IpAddr>,
    revocation: Option<&Revocation>,
) -> Verdict {
    if let Some(revocation) = revocation {
        let chain: Vec<X509> = ssl.peer_cert_chain().into_iter().flatten().map(ToOwned::to_owned).collect();
        if let Err(why) = revocation.check(&chain, SystemTime::now()) {
            return Verdict::Refuse(why);
        }
    }
    if matches!(ssl.version_str(), "TLSv1" | "TLSv1.1") {
        return Verdict::Refuse("the upstream speaks no TLS newer than 1.1");
    }
    if address.is_some_and(|ip| !has_any(ssl, &[ip.to_string().into()])) {
        return Verdict::Refuse("the certificate is not for the address");
    }
    if !names.is_empty() && !has_any(ssl, names) {
        return Verdict::Refuse("none of the subject alternative names");
    }
    let name = |certificate: Option<&X509Ref>| {
        let names = certificate?.subject_alt_names()?;
        names.iter().find_map(|name| name.uri().map(Arc::from))
    };
    let peer = ssl.peer_certificate();
    let principals = Principals { source: name(ssl.certificate()), destination: name(peer.as_deref()) };
    Verdict::Accept(Arc::new(principals))
}

fn server_name(tls: &UpstreamTls, authority: &str) -> String {
    match &tls.sni {
        Some(sni) => sni.to_string(),
        None => {
            let host = without_port(authority);
            // RFC 6066 §3: an address is not a server name.
            let literal = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>().is_ok();
            if literal { String::new() } else { host.to_owned() }
        }
    }
}

fn has_any(ssl: &TlsRef, wanted: &[Arc<str>]) -> bool {
    let Some(names) = ssl.peer_certificate().and_then(|c| c.subject_alt_names()) else { return false };
    names.iter().any(|name| {
        wanted.iter().any(|w| {
            name.dnsname().is_some_and(|n| dns_matches(n, w))
                || name.uri() == Some(&**w)
                || name.ipaddress().is_some_and(|ip| w.parse::<IpAddr>().is_ok_and(|w| octets(w) == ip))
        })
    })
}

/// Envoy's exact matcher of DNS names: a wildcard in the certificate stands for one label (RFC 6125 §6.4.3).
fn dns_matches(certificate: &str, wanted: &str) -> bool {
    if certificate.eq_ignore_ascii_case(wanted) {
        return true;
    }
    match (certificate.strip_prefix("*."), wanted.split_once('.')) {
        (Some(suffix), Some((label, rest))) => !label.is_empty() && suffix.eq_ignore_ascii_case(rest),
        _ => false,
    }
}

fn octets(ip: IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::Material;

    fn tls(sni: Option<&str>) -> UpstreamTls {
        UpstreamTls { sni: sni.map(Into::into), verify_host: true, ..UpstreamTls::default() }
    }

    fn usable() -> Trust {
        Trust::Usable(Arc::new(Material {
            roots: None,
            client: None,
            revocation: None,
            digest: 0,
            sessions: std::sync::OnceLock::new(),
        }))
    }

    #[test]
    fn the_server_name_is_the_specifications_or_the_authoritys_host() {
        assert_eq!(server_name(&tls(Some("a.example")), "b.example:443"), "a.example");
        assert_eq!(server_name(&tls(None), "b.example:443"), "b.example");
        assert_eq!(server_name(&tls(None), "10.0.0.1:443"), "");
        assert_eq!(server_name(&tls(None), "[::1]:443"), "");
    }

    #[test]
    fn verification_that_cannot_happen_refuses_the_connection() {
        let peer = |sni: &str| HttpPeer::new("127.0.0.1:1", true, sni.to_owned());
        assert!(verification(&mut peer(""), &tls(None), &usable(), "").is_err());
        let unavailable = Trust::Unavailable("no such file".into());
        assert!(verification(&mut peer("a.example"), &tls(None), &unavailable, "a.example").is_err());
        let mut named = peer("a.example");
        assert!(verification(&mut named, &tls(None), &usable(), "a.example").is_ok());
        assert!(named.options.verify_cert && named.options.verify_hostname);
    }

    #[test]
    fn an_address_is_verified_although_it_is_no_server_name() {
        let mut peer = HttpPeer::new("127.0.0.1:1", true, String::new());
        assert!(verification(&mut peer, &tls(None), &usable(), "[::1]:443").is_ok());
        assert!(peer.options.verify_cert && !peer.options.verify_hostname);
        assert_eq!(peer.sni, "::1", "the engine verifies nothing for an empty name");
        assert!(peer.options.upstream_tls_handshake_complete_hook.is_some());
    }

    #[test]
    fn names_nobody_looked_at_do_not_match() {
        let mut asked = tls(Some("a.example"));
        asked.subject_alt_names = vec!["spiffe://x".into()];
        assert!(verify(Some(&asked), None).is_err());
        assert!(verify(Some(&tls(None)), None).is_err());
    }

    #[test]
    fn a_wildcard_stands_for_one_label() {
        assert!(dns_matches("*.example.com", "a.example.com"));
        assert!(!dns_matches("*.example.com", "a.b.example.com"));
        assert!(!dns_matches("*.example.com", "example.com"));
    }
}
