//! Connections that the engine cannot make by itself: counted ones, ones that begin with a PROXY header, abstract unix
//! sockets, hosts with several addresses, and those whose TLS is ours.
//!
//! Invariant: a cluster that needs none of it is dialled by the engine. What limits say comes before the socket is
//! opened; the PROXY header comes before everything else on the wire, in clear (Istio: before TLS).

use super::{
    failure::Cause,
    mesh, peer, race,
    secure::{Handshake, Secured},
};
use crate::{
    listener::ConnectionInfo,
    runtime::{
        Cluster,
        connections::{Connection, Sharing},
    },
    telemetry::istio::Principals,
};
use async_trait::async_trait;
use pingora_core::{
    connectors::L4Connect,
    protocols::{
        Digest, GetProxyDigest as _,
        l4::{socket::SocketAddr as PeerAddress, stream::Stream, virt::VirtualSocketStream},
        raw_connect::ProxyDigest,
    },
};
use pingora_error::{Error, ErrorType, OrErr as _, Result};
use pingora_http::ResponseHeader;
use routing::cluster::{Address, Endpoint, ProxyVersion, UpstreamProtocol};
use std::{
    hash::BuildHasher as _,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::fd::AsFd,
    sync::Arc,
};
use tokio::{
    io::AsyncWriteExt as _,
    net::{TcpSocket, TcpStream, UnixStream},
};

/// Makes the connection of one attempt.
#[derive(Debug)]
pub(super) struct Dial {
    cluster: Arc<Cluster>,
    protocol: UpstreamProtocol,
    header: Option<Box<[u8]>>,
    /// Name of an abstract socket.
    abstract_name: Option<Box<str>>,
    /// The addresses to try, where the engine is not given the one.
    addresses: Option<(SocketAddr, Arc<[SocketAddr]>)>,
    /// TLS that is ours.
    secure: Option<Secure>,
    /// It is to the workload beside a sidecar, whose own rules must let it pass.
    to_workload: bool,
}

/// The sources by which the rules of a sidecar's network know what it hands to the workload, and do not send it back (Istio:
/// `InboundPassthroughBindIpv4`, `InboundPassthroughBindIpv6`).
const OF_SIDECAR: (Ipv4Addr, Ipv6Addr) = (Ipv4Addr::new(127, 0, 0, 6), Ipv6Addr::new(0, 0, 0, 0, 0, 0, 0, 6));

/// TLS that is ours, and how the engine gets what it carries.
#[derive(Debug)]
pub(super) struct Secure {
    pub(super) handshake: Handshake,
    /// The connection may go to the engine's pool, which knows it by its file descriptor: so the engine is given one end of a
    /// pair. Where it may not, the engine is given the TLS itself.
    pub(super) pooled: bool,
}

/// What is remembered with a connection.
struct Made {
    /// Where it is counted.
    counted: Option<Arc<Connection>>,
    /// Its two ends, where the engine was not told the address.
    ends: Option<(SocketAddr, SocketAddr)>,
    /// The names in the certificates of TLS that the engine does not see.
    principals: Option<Arc<Principals>>,
}

impl Dial {
    /// For an attempt that the engine cannot dial; `None` where it can.
    pub(super) fn for_attempt(
        cluster: &Arc<Cluster>,
        endpoint: &Endpoint,
        protocol: UpstreamProtocol,
        client: Option<&ConnectionInfo>,
        secure: Option<Secure>,
    ) -> Option<Self> {
        let header = cluster.spec.proxy_protocol.map(|version| header(version, client));
        let (abstract_name, addresses) = match &endpoint.address {
            Address::Unix(path) => (path.strip_prefix('@').map(Box::from), None),
            Address::Ip(first) if !endpoint.alternates.is_empty() || secure.is_some() => {
                (None, Some((*first, endpoint.alternates.clone())))
            }
            Address::Ip(_) | Address::Name(..) => (None, None),
        };
        let to_workload = client.is_some_and(ConnectionInfo::is_inbound);
        let needed = header.is_some()
            || abstract_name.is_some()
            || addresses.is_some()
            || secure.is_some()
            || to_workload
            || cluster.tracks_connections();
        needed.then(|| Self {
            cluster: cluster.clone(),
            protocol,
            header,
            abstract_name,
            addresses,
            secure,
            to_workload,
        })
    }

    /// For a connection that nobody shares and that is not the engine's.
    pub(super) fn alone(
        cluster: &Arc<Cluster>,
        endpoint: &Endpoint,
        client: Option<&ConnectionInfo>,
        handshake: Option<Handshake>,
    ) -> Self {
        let protocol = UpstreamProtocol::Http1;
        let secure = handshake.map(|handshake| Secure { handshake, pooled: false });
        Self::for_attempt(cluster, endpoint, protocol, client, secure).unwrap_or_else(|| Self {
            cluster: cluster.clone(),
            protocol,
            header: None,
            abstract_name: None,
            addresses: None,
            secure: None,
            to_workload: false,
        })
    }

    /// Remembers the two ends of the connection, which nobody else does where it is not the engine's.
    pub(super) fn with_ends(mut self, endpoint: &Endpoint) -> Self {
        if let Address::Ip(first) = &endpoint.address {
            self.addresses.get_or_insert_with(|| (*first, endpoint.alternates.clone()));
        }
        self
    }

    /// A bare connection to this address, or to one of several where there are, with its header sent; and what is to be kept as
    /// long as the connection.
    ///
    /// # Errors
    /// Why there is none: a limit, or what the address answered.
    pub(super) async fn open(&self, address: SocketAddr) -> Result<(TcpStream, Option<ProxyDigest>)> {
        if self.cluster.room_for_connection(self.protocol).is_none() {
            return Err(Cause::Overflow.error());
        }
        let (mut socket, ends) = match &self.addresses {
            None => (self.reach(address).await.map_err(|e| refused(&e))?, None),
            Some((first, others)) => {
                let all = std::iter::once(*first).chain(others.iter().copied());
                let connect = |address| self.reach(address);
                let (socket, remote) = race::first(all, connect).await.map_err(|e| refused(&e))?;
                let local = socket.local_addr().map_err(|e| refused(&e))?;
                (socket, Some((local, remote)))
            }
        };
        self.begin(&mut socket).await?;
        let tracked = self.finish(&socket, ends)?;
        Ok((socket, tracked))
    }

    async fn reach(&self, address: SocketAddr) -> io::Result<TcpStream> {
        // The loopback is nobody's to redirect.
        if !self.to_workload || address.ip().is_loopback() {
            return TcpStream::connect(address).await;
        }
        let (socket, source) = match address {
            SocketAddr::V4(_) => (TcpSocket::new_v4()?, IpAddr::from(OF_SIDECAR.0)),
            SocketAddr::V6(_) => (TcpSocket::new_v6()?, IpAddr::from(OF_SIDECAR.1)),
        };
        socket.bind(SocketAddr::new(source, 0))?;
        socket.connect(address).await
    }

    /// Connections that begin with different headers are different; and so are those to different hosts, where the
    /// engine is not told the address.
    pub(super) fn pool_key(&self) -> u64 {
        let host = self.addresses.as_ref().map(|(first, _)| first);
        if self.header.is_none() && host.is_none() {
            return 0;
        }
        foldhash::fast::FixedState::with_seed(0).hash_one((&self.header, host, self.secure.is_some()))
    }

    /// The address that the engine is given in place of the first, where it does not see the socket. It takes a connection from
    /// its pool only where the other end has the address that it was given, and any will do where that is unspecified.
    pub(super) fn stand_in(&self) -> Option<SocketAddr> {
        let (first, _) = self.addresses.as_ref()?;
        Some(SocketAddr::from((Ipv4Addr::UNSPECIFIED, first.port())))
    }

    fn sharing(&self) -> Sharing {
        match self.protocol {
            UpstreamProtocol::Http2 => Sharing::Shared,
            UpstreamProtocol::Http1 | UpstreamProtocol::Client => Sharing::Exclusive,
        }
    }

    fn finish(
        &self,
        socket: &impl AsFd,
        ends: Option<(SocketAddr, SocketAddr)>,
    ) -> Result<Option<ProxyDigest>> {
        let counted = if self.cluster.tracks_connections() {
            let life = self.cluster.spec.pool.max_connection_duration;
            let connection = self
                .cluster
                .connections
                .add(socket, &self.cluster.counters, self.sharing(), life)
                .or_err(ErrorType::ConnectError, "no file descriptor is left")?;
            Some(connection)
        } else {
            None
        };
        if counted.is_none() && ends.is_none() {
            return Ok(None);
        }
        Made { counted, ends, principals: None }.digest().map(Some)
    }

    /// The connection, with its header sent and without TLS.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub(super) async fn plain(&self, address: &PeerAddress) -> Result<Stream> {
        let (mut stream, tracked) = match address {
            PeerAddress::Inet(address) => {
                let (socket, tracked) = self.open(*address).await?;
                (Stream::from(socket), tracked)
            }
            PeerAddress::Unix(address) => {
                if self.cluster.room_for_connection(self.protocol).is_none() {
                    return Err(Cause::Overflow.error());
                }
                let path = address.as_pathname();
                let mut socket = match (&self.abstract_name, path) {
                    (Some(name), _) => connect_abstract(name),
                    (None, Some(path)) => UnixStream::connect(path).await,
                    (None, None) => Err(io::ErrorKind::AddrNotAvailable.into()),
                }
                .map_err(|e| refused(&e))?;
                self.begin(&mut socket).await?;
                let tracked = self.finish(&socket, None)?;
                (Stream::from(socket), tracked)
            }
        };
        if let Some(tracked) = tracked {
            stream.set_proxy_digest(tracked);
        }
        Ok(stream)
    }

    /// The same with what the engine sets on sockets that it sees.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub(super) async fn set_up(&self, address: &PeerAddress) -> Result<Stream> {
        let mut stream = self.plain(address).await?;
        if let PeerAddress::Inet(_) = address {
            stream.set_nodelay()?;
            if let Some(asked) = &self.cluster.spec.pool.keepalive {
                stream.set_keepalive(&peer::keepalive(asked))?;
            }
        }
        Ok(stream)
    }

    /// The connection with TLS that is ours.
    ///
    /// # Errors
    /// Where it cannot be made, or is to somebody else.
    pub(super) async fn secured(&self, handshake: &Handshake, address: &PeerAddress) -> Result<Secured> {
        let Some(tls) = self.cluster.tls() else {
            return Err(Cause::UntrustedUpstream.explain("TLS without a specification"));
        };
        handshake.with(tls, self.set_up(address).await?).await
    }

    /// Its TLS, where that is ours.
    pub(super) fn handshake(&self) -> Option<&Handshake> {
        self.secure.as_ref().map(|secure| &secure.handshake)
    }
}

#[async_trait]
impl L4Connect for Dial {
    async fn connect(&self, address: &PeerAddress) -> Result<Stream> {
        let Some(Secure { handshake, pooled }) = &self.secure else {
            return self.plain(address).await;
        };
        let secured = self.secured(handshake, address).await?;
        let made = secured.bare().get_proxy_digest();
        let principals = secured.principals().cloned();
        let made = made_of(made.as_deref()).map(|made| made.again(principals));
        let mut stream = if *pooled {
            Stream::from(mesh::relay(secured)?)
        } else {
            Stream::from(VirtualSocketStream::new(Box::new(secured)))
        };
        if let Some(made) = made {
            stream.set_proxy_digest(made.digest()?);
        }
        Ok(stream)
    }
}

impl Dial {
    async fn begin(&self, socket: &mut (impl tokio::io::AsyncWrite + Unpin)) -> Result<()> {
        match &self.header {
            Some(header) => socket.write_all(header).await.map_err(|e| refused(&e)),
            None => Ok(()),
        }
    }
}

impl Made {
    fn again(&self, principals: Option<Arc<Principals>>) -> Self {
        Self { counted: self.counted.clone(), ends: self.ends, principals }
    }

    /// The engine has no place for what belongs to a connection but this one, which is for connections by way of a proxy;
    /// it never looks at it.
    fn digest(self) -> Result<ProxyDigest> {
        Ok(ProxyDigest::new(Box::new(ResponseHeader::build(200, None)?), Some(Box::new(self))))
    }
}

/// The counted connection that an attempt got.
pub(super) fn tracked(digest: Option<&Digest>) -> Option<&Arc<Connection>> {
    made_of(digest?.proxy_digest.as_deref())?.counted.as_ref()
}

/// The two ends of a connection, ours first, where the engine was not told the address.
pub(super) fn ends(digest: Option<&ProxyDigest>) -> Option<(SocketAddr, SocketAddr)> {
    made_of(digest)?.ends
}

/// The names in the certificates of TLS that the engine does not see.
pub(super) fn principals(digest: Option<&ProxyDigest>) -> Option<&Arc<Principals>> {
    made_of(digest)?.principals.as_ref()
}

fn made_of(digest: Option<&ProxyDigest>) -> Option<&Made> {
    digest?.user_data.as_ref()?.downcast_ref()
}

/// An abstract address connects at once or not at all: there is nothing to wait for but the other's backlog.
fn connect_abstract(name: &str) -> io::Result<UnixStream> {
    use std::os::{linux::net::SocketAddrExt as _, unix::net};
    let socket = net::UnixStream::connect_addr(&net::SocketAddr::from_abstract_name(name)?)?;
    socket.set_nonblocking(true)?;
    UnixStream::from_std(socket)
}

fn refused(error: &io::Error) -> Box<Error> {
    let kind = match error.kind() {
        io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound => ErrorType::ConnectRefused,
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => ErrorType::ConnectNoRoute,
        io::ErrorKind::TimedOut => ErrorType::ConnectTimedout,
        _ => ErrorType::ConnectError,
    };
    let mut e = Error::explain(kind, error.to_string());
    e.as_up();
    e
}

/// The PROXY header (HAProxy's description of the protocol, §2.1 and §2.2): who the client is, and where it connected to.
fn header(version: ProxyVersion, client: Option<&ConnectionInfo>) -> Box<[u8]> {
    let ends = client.map(|client| (client.peer, client.local));
    match version {
        ProxyVersion::V1 => text_header(ends).into_bytes().into(),
        ProxyVersion::V2 => binary_header(ends).into(),
    }
}

fn text_header(ends: Option<(SocketAddr, SocketAddr)>) -> String {
    match ends {
        Some((SocketAddr::V4(from), SocketAddr::V4(to))) => {
            format!("PROXY TCP4 {} {} {} {}\r\n", from.ip(), to.ip(), from.port(), to.port())
        }
        Some((SocketAddr::V6(from), SocketAddr::V6(to))) => {
            format!("PROXY TCP6 {} {} {} {}\r\n", from.ip(), to.ip(), from.port(), to.port())
        }
        _ => "PROXY UNKNOWN\r\n".to_owned(),
    }
}

fn binary_header(ends: Option<(SocketAddr, SocketAddr)>) -> Vec<u8> {
    let mut out = b"\r\n\r\n\0\r\nQUIT\n".to_vec();
    let (family, addresses): (u8, Vec<u8>) = match ends {
        Some((SocketAddr::V4(from), SocketAddr::V4(to))) => {
            (0x11, [from.ip().octets(), to.ip().octets()].concat())
        }
        Some((SocketAddr::V6(from), SocketAddr::V6(to))) => {
            (0x21, [from.ip().octets(), to.ip().octets()].concat())
        }
        _ => {
            // LOCAL: about nobody.
            out.extend([0x20, 0, 0, 0]);
            return out;
        }
    };
    out.extend([0x21, family]);
    let ports = ends.map(|(from, to)| [from.port().to_be_bytes(), to.port().to_be_bytes()].concat());
    let ports = ports.unwrap_or_default();
    let length = u16::try_from(addresses.len() + ports.len()).unwrap_or(u16::MAX);
    out.extend(length.to_be_bytes());
    out.extend(addresses);
    out.extend(ports);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ends(from: &str, to: &str) -> Option<(SocketAddr, SocketAddr)> {
        Some((from.parse().unwrap(), to.parse().unwrap()))
    }

    #[test]
    fn headers_are_as_their_description_has_them() {
        assert_eq!(text_header(ends("1.2.3.4:5", "6.7.8.9:80")), "PROXY TCP4 1.2.3.4 6.7.8.9 5 80\r\n");
        assert_eq!(text_header(ends("[2001:db8::1]:5", "[::1]:80")), "PROXY TCP6 2001:db8::1 ::1 5 80\r\n");
        assert_eq!(text_header(None), "PROXY UNKNOWN\r\n");
        let v2 = binary_header(ends("1.2.3.4:5", "6.7.8.9:80"));
        assert_eq!(v2[..12], *b"\r\n\r\n\0\r\nQUIT\n");
        assert_eq!(v2[12..], [0x21, 0x11, 0, 12, 1, 2, 3, 4, 6, 7, 8, 9, 0, 5, 0, 80]);
        assert_eq!(binary_header(ends("[::1]:5", "[::1]:80")).len(), 16 + 36);
        assert_eq!(binary_header(None)[12..], [0x20, 0, 0, 0]);
    }
}
