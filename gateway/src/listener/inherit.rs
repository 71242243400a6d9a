//! Listening sockets that an earlier process has left to this one.
//!
//! Invariant: a socket is known by the address that the system says it has, and is taken once. What nobody takes is closed when the
//! last handle goes.

use std::{
    io,
    net::{SocketAddr, TcpListener},
    os::{fd::OwnedFd, unix::net::UnixListener},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use socket2::SockRef;

use super::{BoundAddress, bind::BoundSocket};

/// Sockets to be taken. Clones are handles to the same ones.
#[derive(Clone, Debug, Default)]
pub struct Inherited {
    sockets: Arc<Mutex<Vec<(BoundAddress, BoundSocket)>>>,
}

impl Inherited {
    /// From what was handed over.
    ///
    /// # Errors
    /// When one of them is no listening socket with an address.
    pub fn new(descriptors: Vec<OwnedFd>) -> io::Result<Inherited> {
        let sockets = descriptors.into_iter().map(known).collect::<io::Result<Vec<_>>>()?;
        Ok(Inherited { sockets: Arc::new(Mutex::new(sockets)) })
    }

    /// How many there are to take.
    #[must_use]
    pub fn len(&self) -> usize {
        self.sockets().len()
    }

    /// Whether there are none to take.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Takes the socket of exactly this address.
    #[must_use]
    pub fn take_address(&self, address: SocketAddr) -> Option<TcpListener> {
        match self.take_tcp(|at| at == address)? {
            (BoundSocket::Tcp(listener), _) => Some(listener),
            (BoundSocket::Unix(_), _) => None,
        }
    }

    pub(super) fn take_tcp(&self, of: impl Fn(SocketAddr) -> bool) -> Option<(BoundSocket, BoundAddress)> {
        self.take(|address| matches!(address, BoundAddress::Tcp(at) if of(*at)))
    }

    pub(super) fn take_unix(&self, path: &str) -> Option<(BoundSocket, BoundAddress)> {
        self.take(|address| matches!(address, BoundAddress::Unix(at) if **at == *path))
    }

    fn take(&self, of: impl Fn(&BoundAddress) -> bool) -> Option<(BoundSocket, BoundAddress)> {
        let mut sockets = self.sockets();
        let at = sockets.iter().position(|(address, _)| of(address))?;
        let (address, socket) = sockets.swap_remove(at);
        Some((socket, address))
    }

    /// A panic while the list was held left it whole.
    fn sockets(&self) -> MutexGuard<'_, Vec<(BoundAddress, BoundSocket)>> {
        self.sockets.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn known(descriptor: OwnedFd) -> io::Result<(BoundAddress, BoundSocket)> {
    let socket = SockRef::from(&descriptor);
    if !socket.is_listener()? {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "a socket that does not listen was handed over",
        ));
    }
    socket.set_nonblocking(true)?;
    let address = socket.local_addr()?;
    if let Some(address) = address.as_socket() {
        return Ok((BoundAddress::Tcp(address), BoundSocket::Tcp(descriptor.into())));
    }
    match address.as_pathname().and_then(|path| path.to_str()) {
        Some(path) => {
            Ok((BoundAddress::Unix(path.into()), BoundSocket::Unix(UnixListener::from(descriptor))))
        }
        None => {
            Err(io::Error::new(io::ErrorKind::InvalidInput, "a socket without an address was handed over"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_is_taken_by_its_address_once() {
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let at = tcp.local_addr().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let unix = UnixListener::bind(&path).unwrap();
        let inherited = Inherited::new(vec![tcp.into(), unix.into()]).unwrap();
        let (path, other) = (path.to_str().unwrap(), SocketAddr::from(([127, 0, 0, 1], 1)));
        assert!(inherited.take_address(other).is_none());
        assert_eq!(inherited.take_address(at).unwrap().local_addr().unwrap(), at);
        assert!(inherited.take_address(at).is_none());
        assert!(inherited.take_unix(path).is_some());
        assert!(inherited.is_empty());
    }

    #[test]
    fn what_does_not_listen_is_refused() {
        let (one, _other) = std::os::unix::net::UnixStream::pair().unwrap();
        assert!(Inherited::new(vec![one.into()]).is_err());
    }
}
