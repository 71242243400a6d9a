//! Connections to the endpoints of one cluster, where something limits them: how many, how long, how many requests.
//!
//! Invariant: the engine keeps the connections; here is what it does not know of them. A connection that is to go is shut
//! down when nobody uses it, which the engine's pool sees as the upstream's end. Nothing in use is ever cut.

use super::limits::Counters;
use socket2::{SockRef, Socket};
use std::{
    collections::HashMap,
    net::Shutdown,
    os::fd::AsFd,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

/// Whether several requests use a connection at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sharing {
    /// HTTP/1: while it is in use, nobody else gets it.
    Exclusive,
    /// HTTP/2: it goes on to get requests while it is in use.
    Shared,
}

/// The open connections of one cluster.
#[derive(Debug, Default)]
pub struct Connections {
    open: Mutex<HashMap<u64, Weak<Connection>>>,
    next: AtomicU64,
    /// Counts up when connections that may be shared are to make room for new ones.
    epoch: AtomicU64,
}

/// One connection; its drop, with the engine's, ends its count.
#[derive(Debug)]
pub struct Connection {
    id: u64,
    /// The same socket again, to shut it down by.
    socket: Socket,
    users: AtomicU32,
    requests: AtomicU32,
    retired: AtomicBool,
    sharing: Sharing,
    of: Arc<Connections>,
    counters: Arc<Counters>,
}

/// One request on a connection; its drop is the request's end.
#[derive(Debug)]
pub struct InUse(Arc<Connection>);

impl Connections {
    fn open(&self) -> MutexGuard<'_, HashMap<u64, Weak<Connection>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes a connection that was just made, and that it may live for so long.
    ///
    /// # Errors
    /// When the process has no file descriptors left.
    pub fn add(
        self: &Arc<Self>,
        socket: &impl AsFd,
        counters: &Arc<Counters>,
        sharing: Sharing,
        life: Option<Duration>,
    ) -> std::io::Result<Arc<Connection>> {
        let socket = SockRef::from(socket).try_clone()?;
        let id = self.next.fetch_add(1, Relaxed);
        counters.connections.fetch_add(1, Relaxed);
        let connection = Arc::new(Connection {
            id,
            socket,
            users: AtomicU32::new(0),
            requests: AtomicU32::new(0),
            retired: AtomicBool::new(false),
            sharing,
            of: self.clone(),
            counters: counters.clone(),
        });
        self.open().insert(id, Arc::downgrade(&connection));
        if let Some(life) = life {
            let weak = Arc::downgrade(&connection);
            tokio::spawn(async move {
                tokio::time::sleep(life).await;
                if let Some(connection) = weak.upgrade() {
                    connection.retire();
                }
            });
        }
        Ok(connection)
    }

    /// Shuts one down that nobody uses; `None` when all are in use.
    #[must_use]
    pub fn evict_idle(&self) -> Option<()> {
        let open: Vec<_> = self.open().values().filter_map(Weak::upgrade).collect();
        let idle = open.iter().find(|connection| {
            connection.users.load(Relaxed) == 0
                && connection.requests.load(Relaxed) > 0
                && !connection.retired.load(Relaxed)
        })?;
        idle.retire();
        Some(())
    }

    /// Has all new requests go to new connections: the pool goes on to give requests to one that is shared.
    fn renew(&self) {
        self.epoch.fetch_add(1, Relaxed);
        let open: Vec<_> = self.open().values().filter_map(Weak::upgrade).collect();
        for connection in open.iter().filter(|connection| connection.requests.load(Relaxed) > 0) {
            connection.retired.store(true, Relaxed);
            connection.close_if_free();
        }
    }

    /// Part of the identity for the connection pool: connections of another number get no new requests.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.epoch.load(Relaxed)
    }
}

impl Connection {
    /// Begins one request.
    #[must_use = "the connection is free again when the guard is dropped"]
    pub fn begin(self: &Arc<Self>) -> InUse {
        self.users.fetch_add(1, Relaxed);
        self.requests.fetch_add(1, Relaxed);
        InUse(self.clone())
    }

    /// Ends it as soon as nobody uses it; new requests go elsewhere.
    pub fn retire(&self) {
        let first = !self.retired.swap(true, Relaxed);
        if first && self.sharing == Sharing::Shared && self.users.load(Relaxed) > 0 {
            self.of.renew();
        }
        self.close_if_free();
    }

    fn close_if_free(&self) {
        if self.retired.load(Relaxed) && self.users.load(Relaxed) == 0 {
            // Closed by the peer already: that is what is wanted.
            let _already_closed = self.socket.shutdown(Shutdown::Both);
        }
    }
}

impl InUse {
    /// Requests so far, this one included.
    #[must_use]
    pub fn requests(&self) -> u32 {
        self.0.requests.load(Relaxed)
    }

    /// Makes this the last request.
    pub fn retire(&self) {
        self.0.retire();
    }
}

impl Drop for InUse {
    fn drop(&mut self) {
        self.0.users.fetch_sub(1, Relaxed);
        self.0.close_if_free();
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.counters.connections.fetch_sub(1, Relaxed);
        self.of.open().remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::Limit;
    use std::{
        io::Read,
        net::{TcpListener, TcpStream},
    };

    fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let ours = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (ours, listener.accept().unwrap().0)
    }

    #[test]
    fn a_retired_connection_closes_when_its_last_request_ends() {
        let (pool, counters) = (Arc::new(Connections::default()), Arc::new(Counters::default()));
        let (ours, mut theirs) = pair();
        theirs.set_nonblocking(true).unwrap();
        let connection = pool.add(&ours, &counters, Sharing::Shared, None).unwrap();
        let (first, second) = (connection.begin(), connection.begin());
        assert_eq!((second.requests(), pool.epoch()), (2, 0));
        second.retire();
        assert_eq!(pool.epoch(), 1, "new requests go elsewhere");
        drop(first);
        assert!(theirs.read(&mut [0]).is_err(), "still open");
        drop(second);
        theirs.set_nonblocking(false).unwrap();
        assert_eq!(theirs.read(&mut [0]).unwrap(), 0, "closed");
        assert_eq!(counters.now(Limit::Connections), 1);
        drop(connection);
        assert_eq!(counters.now(Limit::Connections), 0);
    }

    #[test]
    fn only_what_nobody_uses_makes_room() {
        let (pool, counters) = (Arc::new(Connections::default()), Arc::new(Counters::default()));
        let (ours, mut theirs) = pair();
        let connection = pool.add(&ours, &counters, Sharing::Exclusive, None).unwrap();
        assert_eq!(pool.evict_idle(), None, "it is made for a request that is about to use it");
        let request = connection.begin();
        assert_eq!(pool.evict_idle(), None);
        drop(request);
        assert_eq!(pool.evict_idle(), Some(()));
        assert_eq!(theirs.read(&mut [0]).unwrap(), 0);
    }
}
