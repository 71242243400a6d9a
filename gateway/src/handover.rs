//! Handing the listening sockets to the process that comes after this one, over a private unix socket.
//!
//! Invariant: at every moment somebody accepts. The old process serves until the new one says that it is ready, and goes on serving
//! when it never does; connections that wait in the kernel's queues wait for whoever accepts next. Only a process of the same user
//! is given anything.

mod wire;

use std::{
    fmt, fs, io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::{fs::PermissionsExt, net::UnixStream},
    },
    path::Path,
    sync::Arc,
    time::Duration,
};

use tokio::net::UnixListener;

use crate::{
    drain::{DrainController, DrainState},
    listener::{Inherited, ListenerManager},
};
use wire::{Kind, receive, send};

/// How long the other process may be silent, but for its start.
const ANSWER: Duration = Duration::from_secs(10);
/// How long a successor may take to become ready; then its place is free for another.
const START: Duration = Duration::from_secs(600);
/// After an accept failed for want of descriptors, trying again at once would only spin.
const PAUSE: Duration = Duration::from_secs(1);

/// The process that serves while this one starts.
pub struct Predecessor {
    stream: UnixStream,
}

impl Predecessor {
    /// Asks at `path` for the sockets of a process that serves; `None`: there is none.
    ///
    /// # Errors
    /// When there is one, and it is another user's or does not give them.
    pub fn find(path: &Path) -> io::Result<Option<(Predecessor, Inherited)>> {
        let stream = match UnixStream::connect(path) {
            Ok(stream) => stream,
            Err(error)
                if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) =>
            {
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        known_user(&stream)?;
        stream.set_read_timeout(Some(ANSWER))?;
        stream.set_write_timeout(Some(ANSWER))?;
        let sockets = ask(&stream)?;
        Ok(Some((Predecessor { stream }, Inherited::new(sockets)?)))
    }

    /// Tells it that this process is ready, and waits until it accepts no more. One that has gone meanwhile is no obstacle.
    pub fn take_over(self) {
        let answered = send(&self.stream, Kind::Ready, &[]).and_then(|()| receive(&self.stream));
        match answered {
            Ok((Kind::Yours, _)) => tracing::info!("took over from the process before"),
            Ok((kind, _)) => tracing::warn!(?kind, "the process before gave another answer than expected"),
            Err(error) => tracing::warn!(%error, "the process before is gone"),
        }
    }
}

impl fmt::Debug for Predecessor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Predecessor")
    }
}

/// What a process offers to the one after it.
pub struct Offer {
    listener: std::os::unix::net::UnixListener,
}

impl fmt::Debug for Offer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Offer")
    }
}

/// What goes to a successor besides the listeners, and what follows when it has taken over.
pub struct Estate {
    /// The data plane's listeners.
    pub listeners: ListenerManager,
    /// Handles to the sockets of the admin surfaces.
    pub surfaces: Vec<OwnedFd>,
    /// The switch for going away.
    pub drain: Arc<DrainController>,
    /// Stops whatever accepts on `surfaces`.
    pub stop_surfaces: Box<dyn FnOnce() + Send + Sync>,
}

impl fmt::Debug for Estate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Estate").field("listeners", &self.listeners).finish_non_exhaustive()
    }
}

impl Offer {
    /// Opens the socket at `path` for this user alone, in the place of whatever socket is there.
    ///
    /// # Errors
    /// When the folder cannot be written, or something is there that is no socket.
    pub fn open(path: &Path) -> io::Result<Offer> {
        use std::os::unix::fs::FileTypeExt;
        if fs::symlink_metadata(path).is_ok_and(|there| !there.file_type().is_socket()) {
            return Err(io::Error::new(
                io::ErrorKind::AlreadyExists,
                "there is something else than a socket",
            ));
        }
        let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?.to_string_lossy();
        // Made beside it and renamed: nobody ever finds it with other permissions, and no moment is without one.
        let made = path.with_file_name(format!(".{name}.{}", std::process::id()));
        // Left behind by a process of the same number, if at all.
        let _left_behind = fs::remove_file(&made);
        let listener = std::os::unix::net::UnixListener::bind(&made)?;
        listener.set_nonblocking(true)?;
        fs::set_permissions(&made, fs::Permissions::from_mode(0o600))?;
        fs::rename(&made, path)?;
        Ok(Offer { listener })
    }

    /// Waits for a successor and gives it everything; returns when one has taken over, or this process goes away by itself.
    pub async fn serve(self, estate: Estate) {
        let listener = match UnixListener::from_std(self.listener) {
            Ok(listener) => listener,
            Err(error) => return tracing::error!(%error, "no process can take over"),
        };
        let drain = estate.drain.clone();
        let successor = tokio::select! {
            successor = succeeded(&listener, &estate) => successor,
            () = drain.reached(DrainState::Draining) => return,
        };
        let Estate { listeners, surfaces, drain, stop_surfaces } = estate;
        listeners.stop_listening();
        stop_surfaces();
        drop(surfaces);
        tracing::info!("another process has taken over; draining");
        drain.start();
        // It goes on without this word too.
        let _told = send(&successor, Kind::Yours, &[]);
    }
}

/// The successor that became ready; those that did not are passed over.
async fn succeeded(listener: &UnixListener, estate: &Estate) -> UnixStream {
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream.into_std(),
            Err(error) => {
                tracing::warn!(%error, "cannot hear a successor");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        let sockets = estate.listeners.sockets().and_then(|mut sockets| {
            for surface in &estate.surfaces {
                sockets.push(surface.try_clone()?);
            }
            Ok(sockets)
        });
        let (Ok(stream), Ok(sockets)) = (stream, sockets) else {
            tracing::warn!("no file descriptor is left for a successor");
            continue;
        };
        let given = tokio::task::spawn_blocking(move || give(&stream, &sockets).map(|()| stream));
        match given.await {
            Ok(Ok(successor)) => return successor,
            Ok(Err(error)) => tracing::warn!(%error, "a successor did not become ready: serving on"),
            Err(error) => tracing::warn!(%error, "a successor could not be served"),
        }
    }
}

/// Gives the sockets and waits for the word.
fn give(to: &UnixStream, sockets: &[OwnedFd]) -> io::Result<()> {
    known_user(to)?;
    to.set_nonblocking(false)?;
    to.set_read_timeout(Some(ANSWER))?;
    to.set_write_timeout(Some(ANSWER))?;
    expect(to, Kind::Ask)?;
    for some in sockets.chunks(wire::BATCH) {
        let some: Vec<_> = some.iter().map(AsFd::as_fd).collect();
        send(to, Kind::Sockets, &some)?;
    }
    send(to, Kind::Complete, &[])?;
    to.set_read_timeout(Some(START))?;
    expect(to, Kind::Ready)
}

fn ask(of: &UnixStream) -> io::Result<Vec<OwnedFd>> {
    send(of, Kind::Ask, &[])?;
    let mut sockets = Vec::new();
    loop {
        match receive(of)? {
            (Kind::Sockets, some) => sockets.extend(some),
            (Kind::Complete, _) => return Ok(sockets),
            (kind, _) => return Err(io::Error::other(format!("{kind:?} in place of sockets"))),
        }
    }
}

fn expect(from: &UnixStream, wanted: Kind) -> io::Result<()> {
    match receive(from)? {
        (kind, _) if kind == wanted => Ok(()),
        (kind, _) => Err(io::Error::other(format!("{kind:?} in place of {wanted:?}"))),
    }
}

/// Whoever could read the socket's folder could come; the kernel says who it is.
fn known_user(stream: &UnixStream) -> io::Result<()> {
    let other = rustix::net::sockopt::socket_peercred(stream)?.uid;
    if other == rustix::process::geteuid() {
        Ok(())
    } else {
        Err(io::Error::new(io::ErrorKind::PermissionDenied, "the other process is another user's"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{net::TcpListener, thread};

    #[test]
    fn any_number_of_sockets_is_given() {
        let made: Vec<TcpListener> = (0..200).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
        let sockets: Vec<OwnedFd> = made.iter().map(|one| one.try_clone().unwrap().into()).collect();
        let (here, there) = UnixStream::pair().unwrap();
        let giving = thread::spawn(move || give(&here, &sockets).map(|()| send(&here, Kind::Yours, &[])));
        let taken = Inherited::new(ask(&there).unwrap()).unwrap();
        assert_eq!(taken.len(), 200);
        for one in &made {
            assert!(taken.take_address(one.local_addr().unwrap()).is_some());
        }
        Predecessor { stream: there }.take_over();
        giving.join().unwrap().unwrap().unwrap();
    }

    #[test]
    fn a_successor_that_dies_is_none() {
        let (here, there) = UnixStream::pair().unwrap();
        let giving = thread::spawn(move || give(&here, &[]));
        assert!(ask(&there).unwrap().is_empty());
        drop(there);
        assert_eq!(giving.join().unwrap().unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn the_socket_is_this_users_alone_and_replaces_nothing_but_a_socket() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("handover.sock");
        assert!(Predecessor::find(&path).unwrap().is_none());
        drop(Offer::open(&path).unwrap());
        assert!(Predecessor::find(&path).unwrap().is_none(), "nobody listens");
        let _offer = Offer::open(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        let file = dir.path().join("file");
        fs::write(&file, "mine").unwrap();
        assert!(Offer::open(&file).is_err());
        assert_eq!(fs::read_to_string(&file).unwrap(), "mine");
    }
}
