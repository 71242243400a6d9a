//! What is counted of requests that ended in one way, and of connections.
//!
//! Invariant: an outcome fits into a word, so that it is found by comparing one.

use super::histogram::{Bounds, Histogram};
use crate::telemetry::{flags::Flags, names};
use std::sync::atomic::{AtomicU64, Ordering};

/// Protocol of a request as metrics tell it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RequestProtocol {
    /// Plain HTTP of any version.
    Http,
    /// Content type `application/grpc`.
    Grpc,
    /// Not HTTP.
    Tcp,
}

impl RequestProtocol {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            RequestProtocol::Http => "http",
            RequestProtocol::Grpc => "grpc",
            RequestProtocol::Tcp => "tcp",
        }
    }
}

/// How a request ended: flags in the upper half, below them status, gRPC status and protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Outcome(u64);

/// No gRPC status; none of its statuses is that high.
const NO_STATUS: u8 = u8::MAX;
const GRPC: u64 = 1;

impl Outcome {
    pub(super) fn new(protocol: RequestProtocol, code: u16, grpc_status: Option<u8>, flags: Flags) -> Self {
        let (grpc, status) = match protocol {
            RequestProtocol::Grpc => (GRPC, grpc_status.unwrap_or(NO_STATUS)),
            RequestProtocol::Http | RequestProtocol::Tcp => (0, NO_STATUS),
        };
        Self(u64::from(flags.bits()) << 32 | u64::from(code) << 16 | u64::from(status) << 8 | grpc)
    }

    /// The outcome that stands for all of its kind where there are too many: the class of its status.
    pub(super) fn class(self) -> Self {
        Self::new(self.protocol(), self.code() / 100 * 100, None, Flags::default())
    }

    pub(super) fn flags(self) -> Flags {
        Flags::from_bits((self.0 >> 32) as u32)
    }

    pub(super) fn code(self) -> u16 {
        #[expect(clippy::cast_possible_truncation, reason = "its own part of the word")]
        let code = (self.0 >> 16) as u16;
        code
    }

    pub(super) fn grpc_status(self) -> Option<u8> {
        #[expect(clippy::cast_possible_truncation, reason = "its own part of the word")]
        let status = (self.0 >> 8) as u8;
        (status != NO_STATUS).then_some(status)
    }

    pub(super) fn protocol(self) -> RequestProtocol {
        if self.0 & GRPC == GRPC { RequestProtocol::Grpc } else { RequestProtocol::Http }
    }
}

/// Bounds of the three histograms.
#[derive(Debug)]
pub(super) struct AllBounds {
    pub(super) duration: Bounds,
    pub(super) request_bytes: Bounds,
    pub(super) response_bytes: Bounds,
}

impl AllBounds {
    /// The bounds of each histogram, by its name.
    pub(super) fn new(of: impl Fn(&str) -> Vec<f64>) -> Self {
        Self {
            duration: Bounds::new(&of(names::REQUEST_DURATION)),
            request_bytes: Bounds::new(&of(names::REQUEST_BYTES)),
            response_bytes: Bounds::new(&of(names::RESPONSE_BYTES)),
        }
    }
}

/// Requests of one outcome.
#[derive(Debug)]
pub(super) struct Series {
    pub(super) outcome: Outcome,
    pub(super) duration: Histogram,
    pub(super) request_bytes: Histogram,
    pub(super) response_bytes: Histogram,
}

impl Series {
    pub(super) fn new(outcome: Outcome, bounds: &AllBounds) -> Self {
        Self {
            outcome,
            duration: Histogram::new(&bounds.duration),
            request_bytes: Histogram::new(&bounds.request_bytes),
            response_bytes: Histogram::new(&bounds.response_bytes),
        }
    }

    /// Forgets everything.
    pub(super) fn reset(&self) {
        [&self.duration, &self.request_bytes, &self.response_bytes].into_iter().for_each(Histogram::reset);
    }

    pub(super) fn observe(
        &self,
        bounds: &AllBounds,
        (millis, request_bytes, response_bytes): (u64, u64, u64),
    ) {
        self.duration.observe(&bounds.duration, millis);
        self.request_bytes.observe(&bounds.request_bytes, request_bytes);
        self.response_bytes.observe(&bounds.response_bytes, response_bytes);
    }
}

/// Connections that are not HTTP, of one set of flags.
#[derive(Debug, Default)]
pub(super) struct TcpSeries {
    pub(super) opened: AtomicU64,
    pub(super) closed: AtomicU64,
    pub(super) sent: AtomicU64,
    pub(super) received: AtomicU64,
}

/// Messages of gRPC, both ways.
#[derive(Debug, Default)]
pub(super) struct Messages {
    pub(super) requests: AtomicU64,
    pub(super) responses: AtomicU64,
    /// Whether there ever was a call.
    pub(super) calls: AtomicU64,
}

impl Messages {
    /// Forgets everything.
    pub(super) fn reset(&self) {
        [&self.requests, &self.responses, &self.calls]
            .into_iter()
            .for_each(|n| n.store(0, Ordering::Relaxed));
    }

    pub(super) fn read(&self) -> Option<(u64, u64)> {
        (self.calls.load(Ordering::Relaxed) > 0)
            .then(|| (self.requests.load(Ordering::Relaxed), self.responses.load(Ordering::Relaxed)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::Flag;

    #[test]
    fn an_outcome_tells_all_that_was_put_into_it() {
        let mut flags = Flags::default();
        flags.insert(Flag::UpstreamOverflow);
        flags.insert(Flag::Overloaded);
        let outcome = Outcome::new(RequestProtocol::Grpc, 999, Some(16), flags);
        assert_eq!(
            (outcome.protocol(), outcome.code(), outcome.grpc_status(), outcome.flags()),
            (RequestProtocol::Grpc, 999, Some(16), flags)
        );
        let plain = Outcome::new(RequestProtocol::Http, 0, Some(3), Flags::default());
        assert_eq!((plain.grpc_status(), plain.code()), (None, 0), "only gRPC has such a status");
        assert_eq!(Outcome::new(RequestProtocol::Http, 418, None, flags).class().code(), 400);
    }
}
