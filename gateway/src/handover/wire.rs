//! What is said on the private socket: two bytes a message, and with some of them sockets (SCM_RIGHTS).
//!
//! Invariant: a message arrives whole or is an error. Sockets that come are closed on exec, and are closed when nobody takes them.

use std::{
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::{
        fd::{BorrowedFd, OwnedFd},
        unix::net::UnixStream,
    },
};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};

/// Sockets in one message; the kernel takes 253 (SCM_MAX_FD).
pub(super) const BATCH: usize = 64;

/// What a message is about. The numbers are an interface between versions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// The successor asks for the sockets, in this version of what is said here.
    Ask = b'1' as isize,
    /// Some of the sockets.
    Sockets = b's' as isize,
    /// Those were all.
    Complete = b'e' as isize,
    /// The successor is ready: the sockets are to be its own.
    Ready = b'r' as isize,
    /// They are.
    Yours = b'y' as isize,
}

impl Kind {
    const ALL: [Kind; 5] = [Kind::Ask, Kind::Sockets, Kind::Complete, Kind::Ready, Kind::Yours];
}

/// Sends a message, with at most [`BATCH`] sockets.
///
/// # Errors
/// What the socket reports.
pub(super) fn send(to: &UnixStream, kind: Kind, sockets: &[BorrowedFd<'_>]) -> io::Result<()> {
    let count = u8::try_from(sockets.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    let frame = [kind as u8, count];
    let mut room = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(BATCH))];
    let mut rights = SendAncillaryBuffer::new(&mut room);
    if !sockets.is_empty() && !rights.push(SendAncillaryMessage::ScmRights(sockets)) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let sent = sendmsg(to, &[IoSlice::new(&frame)], &mut rights, SendFlags::NOSIGNAL)?;
    if sent == frame.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
}

/// Receives a message.
///
/// # Errors
/// `UnexpectedEof` when the other end is gone, `InvalidData` for anything that is no message; whatever the socket reports.
pub(super) fn receive(from: &UnixStream) -> io::Result<(Kind, Vec<OwnedFd>)> {
    let mut frame = [0; 2];
    let mut room = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(BATCH))];
    let mut rights = RecvAncillaryBuffer::new(&mut room);
    let came = loop {
        match recvmsg(from, &mut [IoSliceMut::new(&mut frame)], &mut rights, RecvFlags::CMSG_CLOEXEC) {
            Err(rustix::io::Errno::INTR) => {}
            other => break other?,
        }
    };
    let mut sockets = Vec::new();
    for message in rights.drain() {
        if let RecvAncillaryMessage::ScmRights(some) = message {
            sockets.extend(some);
        }
    }
    if came.bytes == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let [kind, count] = frame;
    let known = Kind::ALL.into_iter().find(|known| *known as u8 == kind);
    let whole = came.bytes == frame.len()
        && usize::from(count) == sockets.len()
        && !came.flags.contains(ReturnFlags::CTRUNC);
    match known {
        Some(kind) if whole => Ok((kind, sockets)),
        _ => Err(io::Error::new(io::ErrorKind::InvalidData, "not a message of a gateway's")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{io::Write, os::fd::AsFd};

    #[test]
    fn a_message_brings_its_sockets() {
        let (here, there) = UnixStream::pair().unwrap();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        send(&here, Kind::Sockets, &vec![listener.as_fd(); BATCH]).unwrap();
        send(&here, Kind::Complete, &[]).unwrap();
        let (kind, sockets) = receive(&there).unwrap();
        assert_eq!((kind, sockets.len()), (Kind::Sockets, BATCH));
        let same = std::net::TcpListener::from(sockets.into_iter().next().unwrap());
        assert_eq!(same.local_addr().unwrap(), listener.local_addr().unwrap());
        assert!(matches!(receive(&there), Ok((Kind::Complete, sockets)) if sockets.is_empty()));
        drop(here);
        assert_eq!(receive(&there).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn what_is_no_message_is_an_error() {
        for bytes in [&b"GE"[..], b"s\x03", b"e"] {
            let (mut here, there) = UnixStream::pair().unwrap();
            here.write_all(bytes).unwrap();
            drop(here);
            assert_eq!(receive(&there).unwrap_err().kind(), io::ErrorKind::InvalidData, "{bytes:?}");
        }
    }
}
