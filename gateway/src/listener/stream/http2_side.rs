//! What is known of the client's side of an HTTP/2 connection, and when it is too quiet.
//!
//! Invariant: a connection without a stream is told to go before it is closed; one with a stream is closed only where streams have an
//! idle time.

use std::{
    io,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::time::Instant;

use super::{
    super::{EdgeLimits, connection::ConnectionInfo, http2::Frames},
    http1_side::Ready,
    timer::Timer,
};

/// How long a client that was told to go, and has no stream, is waited for (Envoy: `drain_timeout`).
const FAREWELL: Duration = Duration::from_secs(5);

pub(super) struct Http2Side {
    pub(super) ready: Ready,
    pub(super) frames: Frames,
    /// When the preface must be complete.
    pub(super) deadline: Instant,
    /// Too much was sent that is no request.
    pub(super) flood: bool,
    /// How often it was looked at while it was busy for longer than it may be idle.
    looks: u64,
    /// It was idle for too long and was told to go: when it must have gone.
    gone_by: Option<Instant>,
}

impl Http2Side {
    /// A client that has sent `begun`, and must have sent its preface by `deadline`.
    pub(super) fn new(deadline: Instant, begun: Vec<u8>) -> Http2Side {
        let (mut ready, mut frames) = (Ready::default(), Frames::default());
        let flood = frames.read(&begun).is_err();
        ready.add(begun);
        Http2Side { ready, frames, deadline, flood, looks: 0, gone_by: None }
    }

    /// Nothing comes: why the connection ends, once it has been so for too long.
    pub(super) fn poll_quiet(
        &mut self,
        info: &ConnectionInfo,
        limits: &EdgeLimits,
        timer: &mut Timer,
        cx: &mut Context<'_>,
    ) -> Poll<io::Error> {
        loop {
            if info.is_busy() {
                let moved = self.frames.progress().wrapping_add(info.bytes_sent());
                let limit = limits.stream_idle.unwrap_or(limits.idle);
                ready!(timer.poll_idle(limit, moved.wrapping_add(self.looks), cx));
                if limits.stream_idle.is_some() {
                    return Poll::Ready(io::ErrorKind::TimedOut.into());
                }
                // It may take its time. Whether it is busy is looked at all the same: nobody tells when it is not.
                self.looks += 1;
            } else if let Some(gone) = self.gone_by {
                ready!(timer.poll_deadline(gone, cx));
                return Poll::Ready(io::ErrorKind::TimedOut.into());
            } else {
                // Another number than a busy one's.
                ready!(timer.poll_idle(limits.idle, !info.finished(), cx));
                self.gone_by = Some(Instant::now() + FAREWELL);
                info.ask_to_go();
            }
        }
    }
}
