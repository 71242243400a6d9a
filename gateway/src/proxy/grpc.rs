//! Messages of gRPC calls, counted as they pass.
//!
//! Invariant: no byte is kept or changed. A message counts when its first byte passes (Envoy: FrameInspector), once however often
//! the request is sent. They are told at once: what Istio tells every five seconds is never further behind here.

use super::{
    ctx::Ctx,
    record::{self, Way},
};
use crate::telemetry::IstioMetrics;

/// Bytes in front of each message: a flag, and the length.
const HEAD: u8 = 5;
/// The flag of a compressed message.
const COMPRESSED: u8 = 1;

/// The frames of one way.
#[derive(Clone, Copy, Debug, Default)]
struct Frames {
    /// Bytes of the head of the frame under way that have passed.
    head: u8,
    /// Bytes of the message that are to come; while the head passes, those of its length so far.
    left: u32,
    /// It is not gRPC after all.
    broken: bool,
}

impl Frames {
    /// Messages that begin in these bytes.
    fn pass(&mut self, mut bytes: &[u8]) -> u32 {
        let mut begun = 0;
        while let Some((&first, rest)) = bytes.split_first() {
            if self.broken {
                return begun;
            }
            match self.head {
                0 if first & !COMPRESSED != 0 => self.broken = true,
                0 => {
                    begun += 1;
                    (self.head, self.left) = (1, 0);
                    bytes = rest;
                }
                HEAD => {
                    let there = u32::try_from(bytes.len()).unwrap_or(u32::MAX).min(self.left);
                    bytes = bytes.get(there as usize..).unwrap_or_default();
                    self.left -= there;
                }
                _ => {
                    self.left = self.left << 8 | u32::from(first);
                    self.head += 1;
                    bytes = rest;
                }
            }
            if self.head == HEAD && self.left == 0 {
                self.head = 0;
            }
        }
        begun
    }
}

/// Messages of one call.
#[derive(Debug, Default)]
pub(super) struct Messages {
    request: Frames,
    response: Frames,
    /// The attempt that the request's frames are those of, and its messages so far.
    attempt: (u32, u32),
    /// Messages of the request that were counted.
    counted: u32,
}

/// Counts what passes of a request.
pub(super) fn request(metrics: &IstioMetrics, ctx: &mut Ctx, bytes: &[u8]) {
    let attempt = ctx.attempt;
    let messages = ctx.messages.get_or_insert_default();
    if messages.attempt.0 != attempt {
        // Sent again from its beginning.
        messages.request = Frames::default();
        messages.attempt = (attempt, 0);
    }
    messages.attempt.1 += messages.request.pass(bytes);
    let new = messages.attempt.1.saturating_sub(messages.counted);
    if new > 0 {
        messages.counted += new;
        record::target(metrics, Way::of(ctx)).request_messages(new);
    }
}

/// Counts what passes of a response.
pub(super) fn response(metrics: &IstioMetrics, ctx: &mut Ctx, bytes: &[u8]) {
    let new = ctx.messages.get_or_insert_default().response.pass(bytes);
    if new > 0 {
        record::target(metrics, Way::of(ctx)).response_messages(new);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const THREE: &[u8] = b"\0\0\0\0\x02ab\x01\0\0\0\0\0\0\0\x01\x00";

    fn three() -> Vec<u8> {
        let mut bytes = THREE.to_vec();
        bytes.extend([b'x'; 256]);
        bytes
    }

    #[test]
    fn messages_are_counted_however_they_are_cut() {
        let bytes = three();
        for size in 1..bytes.len() {
            let mut frames = Frames::default();
            let count: u32 = bytes.chunks(size).map(|part| frames.pass(part)).sum();
            assert_eq!((count, frames.head), (3, 0), "in parts of {size}");
        }
    }

    #[test]
    fn a_message_counts_with_its_first_byte_and_what_is_no_message_does_not() {
        let mut frames = Frames::default();
        assert_eq!(frames.pass(b"\0"), 1);
        assert_eq!(frames.pass(b"\0\0\0\x05hello"), 0);
        assert_eq!(frames.pass(b"GET / HTTP/1.1"), 0);
        assert_eq!(frames.pass(b"\0\0\0\0\0"), 0, "it was broken before");
    }

    #[test]
    fn the_largest_length_is_no_overflow() {
        let mut frames = Frames::default();
        assert_eq!(frames.pass(&[0, 0xff, 0xff, 0xff, 0xff, 1, 2]), 1);
        assert_eq!(frames.left, u32::MAX - 2);
    }
}
