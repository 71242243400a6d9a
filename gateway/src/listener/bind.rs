//! Making listening sockets.
//!
//! Invariant: a socket that comes from here listens already; connections queue in the kernel until the accept loop begins.

use std::{
    collections::BTreeMap,
    fmt, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::{
        fd::{AsFd, BorrowedFd},
        unix::{fs::FileTypeExt, net::UnixListener},
    },
    path::Path,
    sync::Arc,
};

use config_model::diagnostic::{Code, Diagnostic};
use routing::listener::{Bind, ListenerKey};
use socket2::{Domain, Protocol, Socket, Type};

use super::Inherited;

/// Connections that the kernel may queue; it cuts this to `net.core.somaxconn`.
const BACKLOG: i32 = 65535;

/// How listener keys become addresses of this process.
#[derive(Clone, Debug, Default)]
pub struct BindOptions {
    /// Address for listeners that have none of their own; `None`: every address, both families.
    pub address: Option<IpAddr>,
    /// Port of the key → port to bind, for processes that may not bind the low ones.
    pub ports: BTreeMap<u16, u16>,
    /// Whether the system chooses the port where `ports` does not.
    pub any: bool,
    /// Sockets that another process has left to this one, which are taken before any is made.
    pub inherited: Inherited,
}

impl BindOptions {
    /// The port to bind for a port of the configuration.
    pub fn port(&self, port: u16) -> u16 {
        self.ports.get(&port).copied().unwrap_or(if self.any { 0 } else { port })
    }
}

/// Where a listener is bound.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BoundAddress {
    /// TCP.
    Tcp(SocketAddr),
    /// Unix domain socket.
    Unix(Arc<str>),
}

impl fmt::Display for BoundAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BoundAddress::Tcp(address) => address.fmt(f),
            BoundAddress::Unix(path) => f.write_str(path),
        }
    }
}

/// A listener whose socket cannot be had now; it is tried again.
#[derive(Clone, Debug)]
pub struct BindFailure {
    /// The listener.
    pub key: ListenerKey,
    /// What was to be bound.
    pub address: String,
    /// Why not.
    pub reason: String,
}

impl BindFailure {
    /// As a finding.
    pub fn diagnostic(&self) -> Diagnostic {
        Diagnostic::new(Code::LISTENER_NOT_BOUND, self.to_string()).hint(
            "free the port or change it; for a port below 1024 without the right to bind it, use --port-map or a Service's targetPort. It is tried again",
        )
    }
}

impl fmt::Display for BindFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "listener {} cannot be bound on {}: {}", self.key, self.address, self.reason)
    }
}

/// A bound socket, not yet accepting.
#[derive(Debug)]
pub(super) enum BoundSocket {
    Tcp(std::net::TcpListener),
    Unix(UnixListener),
}

impl AsFd for BoundSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            BoundSocket::Tcp(listener) => listener.as_fd(),
            BoundSocket::Unix(listener) => listener.as_fd(),
        }
    }
}

/// Binds a listener.
pub(super) fn bind(
    key: &ListenerKey,
    options: &BindOptions,
) -> Result<(BoundSocket, BoundAddress), BindFailure> {
    let port = options.port(key.port);
    let (wanted, result) = match &key.bind {
        Bind::Unix(path) => {
            let left = options.inherited.take_unix(path);
            (path.to_string(), left.map_or_else(|| unix(path), Ok))
        }
        Bind::Ip(ip) => tcp_one(SocketAddr::new(*ip, port), options),
        Bind::Any => match options.address {
            Some(ip) => tcp_one(SocketAddr::new(ip, port), options),
            None => {
                let left = options.inherited.take_tcp(|at| at.ip().is_unspecified() && at.port() == port);
                (format!("port {port}"), left.map_or_else(|| tcp_any(port), Ok))
            }
        },
    };
    result.map_err(|error| BindFailure { key: key.clone(), address: wanted, reason: error.to_string() })
}

type Bound = io::Result<(BoundSocket, BoundAddress)>;

fn tcp_one(address: SocketAddr, options: &BindOptions) -> (String, Bound) {
    let left = options.inherited.take_tcp(|at| at == address);
    (address.to_string(), left.map_or_else(|| tcp(address), Ok))
}

/// Both families on one socket; IPv4 alone where the machine has no IPv6.
fn tcp_any(port: u16) -> Bound {
    match tcp(SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), port)) {
        Err(error) if !matches!(error.kind(), io::ErrorKind::AddrInUse | io::ErrorKind::PermissionDenied) => {
            tcp(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), port))
        }
        result => result,
    }
}

fn tcp(address: SocketAddr) -> Bound {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // Restarting must not wait for connections in TIME_WAIT. Not SO_REUSEPORT: two processes would share a port unnoticed.
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(!address.ip().is_unspecified())?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    let listener = std::net::TcpListener::from(socket);
    let bound = listener.local_addr()?;
    Ok((BoundSocket::Tcp(listener), BoundAddress::Tcp(bound)))
}

fn unix(path: &Arc<str>) -> Bound {
    let file = Path::new(path.as_ref());
    // The socket file of an earlier process stays behind and would refuse the bind; nothing but a socket is removed.
    if std::fs::symlink_metadata(file).is_ok_and(|meta| meta.file_type().is_socket()) {
        std::fs::remove_file(file)?;
    }
    let listener = UnixListener::bind(file)?;
    listener.set_nonblocking(true)?;
    Ok((BoundSocket::Unix(listener), BoundAddress::Unix(path.clone())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_address_takes_both_families_and_a_taken_port_is_a_finding() {
        let key = ListenerKey { bind: Bind::Any, port: 80 };
        let options = BindOptions { ports: BTreeMap::from([(80, 0)]), ..BindOptions::default() };
        let (_socket, address) = bind(&key, &options).unwrap();
        let BoundAddress::Tcp(address) = address else { panic!("not TCP: {address}") };
        std::net::TcpStream::connect(("127.0.0.1", address.port())).unwrap();

        let taken = BindOptions { ports: BTreeMap::from([(80, address.port())]), ..BindOptions::default() };
        let failure = bind(&key, &taken).unwrap_err();
        assert!(failure.to_string().starts_with("listener 0.0.0.0_80 cannot be bound on port "), "{failure}");
        assert_eq!(failure.diagnostic().code, Code::LISTENER_NOT_BOUND);
    }

    #[test]
    fn a_stale_unix_socket_is_replaced_and_a_file_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("gw.sock").to_string_lossy().into_owned();
        let key = ListenerKey { bind: Bind::Unix(path.as_str().into()), port: 0 };
        drop(bind(&key, &BindOptions::default()).unwrap());
        let (_socket, _) = bind(&key, &BindOptions::default()).unwrap();

        let file = dir.path().join("file").to_string_lossy().into_owned();
        std::fs::write(&file, "mine").unwrap();
        let key = ListenerKey { bind: Bind::Unix(file.as_str().into()), port: 0 };
        assert!(bind(&key, &BindOptions::default()).is_err());
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "mine");
    }
}
