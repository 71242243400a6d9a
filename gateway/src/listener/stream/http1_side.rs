//! What is known of an HTTP/1 client's side: what was read strictly and goes on, and what is put aside until it can be.
//!
//! Invariant: the engine gets nothing that the reader has not approved, and everything that it has, in order.

use super::{
    super::{
        EdgeLimits, HeadPolicy,
        connection::ConnectionInfo,
        http1::{Flaw, Reader, Stop},
    },
    head_out::HeadOut,
};
use pingora_core::protocols::IO;
use std::{
    io,
    mem::MaybeUninit,
    pin::Pin,
    task::{Context, Poll, ready},
};
use tokio::{
    io::{AsyncRead, BufWriter, ReadBuf},
    time::Instant,
};

/// Approved, and not yet taken by the engine from `taken` on.
#[derive(Default)]
pub(super) struct Ready {
    bytes: Vec<u8>,
    taken: usize,
}

impl Ready {
    pub(super) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    pub(super) fn add(&mut self, mut bytes: Vec<u8>) {
        if self.bytes.is_empty() {
            self.bytes = bytes;
        } else {
            self.bytes.append(&mut bytes);
        }
    }

    pub(super) fn take(&mut self, buf: &mut ReadBuf<'_>) {
        let waiting = self.bytes.get(self.taken..).unwrap_or_default();
        let count = waiting.len().min(buf.remaining());
        buf.put_slice(waiting.get(..count).unwrap_or_default());
        self.taken += count;
        if self.taken == self.bytes.len() {
            *self = Ready::default();
        }
    }
}

/// One HTTP/1 client.
pub(super) struct Http1Side {
    pub(super) reader: Reader,
    pub(super) ready: Ready,
    /// Read, and not approved.
    pub(super) held: Vec<u8>,
    /// `held` has not been looked at since something changed.
    pub(super) unseen: bool,
    /// When the head in `held` must be complete.
    pub(super) deadline: Option<Instant>,
    /// When the body must be complete.
    pub(super) body_deadline: Option<Instant>,
    /// The body is bad from here on.
    pub(super) body_flaw: Option<Flaw>,
    pub(super) head_out: HeadOut,
    /// The piece of a head that goes out.
    pub(super) out: Vec<u8>,
}

impl Http1Side {
    pub(super) fn new(policy: HeadPolicy, begun: Vec<u8>) -> Http1Side {
        Http1Side {
            reader: Reader::new(policy),
            ready: Ready::default(),
            unseen: !begun.is_empty(),
            held: begun,
            deadline: None,
            body_deadline: None,
            body_flaw: None,
            head_out: HeadOut::default(),
            out: Vec::new(),
        }
    }

    /// Reads into `held`: the engine listens for a client that goes away with room for one byte, and a head that came in pieces
    /// of one byte would cost a system call for each.
    pub(super) fn poll_aside<S: IO>(
        &mut self,
        io: &mut BufWriter<S>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        let mut room = [const { MaybeUninit::uninit() }; 1024];
        let mut read = ReadBuf::uninit(&mut room);
        ready!(Pin::new(io).poll_read(cx, &mut read))?;
        self.held.extend_from_slice(read.filled());
        self.unseen |= !read.filled().is_empty();
        Poll::Ready(Ok(read.filled().len()))
    }

    /// Looks at what has come behind `before`, and leaves in `buf` what is approved of it.
    pub(super) fn came(
        &mut self,
        buf: &mut ReadBuf<'_>,
        before: usize,
        info: &ConnectionInfo,
        limits: &EdgeLimits,
    ) {
        let new = buf.filled().get(before..).unwrap_or_default();
        if self.held.is_empty() {
            self.decide(info);
            let (approved, stop) = self.reader.read(new);
            if stop != Stop::All {
                let rest = new.get(approved..).unwrap_or_default().to_vec();
                self.stopped(stop, rest, info, limits);
                buf.set_filled(before + approved);
            }
            return;
        }
        // A head is looked at again when another line of it has come, so that sending it in crumbs buys nothing.
        self.unseen |= memchr::memchr(b'\n', new).is_some()
            || self.reader.asked()
            || self.held.len() + new.len() > limits.head.max_bytes;
        self.held.extend_from_slice(new);
        buf.set_filled(before);
    }

    /// Looks at what was put aside.
    pub(super) fn look(&mut self, info: &ConnectionInfo, limits: &EdgeLimits) {
        self.unseen = false;
        self.decide(info);
        let mut held = std::mem::take(&mut self.held);
        let (approved, stop) = self.reader.read(&held);
        let rest = held.split_off(approved);
        self.ready.add(held);
        self.stopped(stop, rest, info, limits);
    }

    pub(super) fn stopped(
        &mut self,
        stop: Stop,
        mut rest: Vec<u8>,
        info: &ConnectionInfo,
        limits: &EdgeLimits,
    ) {
        match stop {
            Stop::All => self.deadline = None,
            Stop::Unfinished => {
                self.deadline.get_or_insert_with(|| Instant::now() + limits.request_head);
                self.held = rest;
            }
            Stop::Undecided => {
                self.deadline = None;
                self.held = rest;
            }
            Stop::Rewritten { len, head } => {
                self.ready.add(head);
                self.held = rest.split_off(len.min(rest.len()));
                self.deadline = None;
                self.unseen = !self.held.is_empty();
            }
            Stop::Refused { flaw, stand_in } => {
                info.refuse(self.reader.heads(), flaw);
                self.ready.add(stand_in);
                self.deadline = None;
            }
            Stop::BadBody(flaw) => {
                info.refuse(self.reader.heads(), flaw);
                self.body_flaw = Some(flaw);
            }
        }
    }

    /// The answer to a request for another protocol, as soon as it is known.
    pub(super) fn decide(&mut self, info: &ConnectionInfo) {
        if !self.reader.asked() {
            return;
        }
        if info.switched() {
            self.reader.answered(true);
        } else if info.finished() >= self.reader.heads() {
            self.reader.answered(false);
        }
    }

    /// Whether what comes now is behind a whole request that is not answered yet.
    pub(super) fn awaits_answer(&self, info: &ConnectionInfo) -> bool {
        self.reader.between_messages() && !self.reader.asked() && info.finished() < self.reader.heads()
    }

    /// Whether the engine has nothing to do for this client.
    pub(super) fn is_idle(&self, info: &ConnectionInfo) -> bool {
        self.reader.between_messages() && self.held.is_empty() && info.finished() >= self.reader.heads()
    }
}
