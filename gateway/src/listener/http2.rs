//! What an HTTP/2 client does besides asking: frames that cost us more than the client, counted over the life of a
//! connection (RFC 9113 §10.5).
//!
//! Invariant: only frame headers are looked at; payload is skipped by its length. The clock is read once in a hundred frames
//! of one kind. What a client does for its requests is never counted against it.

use std::time::{Duration, Instant};

/// Length of the connection preface (RFC 9113 §3.4).
const PREFACE_BYTES: usize = 24;
const FRAME_HEADER: usize = 9;

/// Over how long the counts below are taken.
const WINDOW: Duration = Duration::from_secs(1);
const PINGS: u32 = 100;
const SETTINGS: u32 = 50;
const RESETS: u32 = 100;
const PRIORITIES: u32 = 1000;
const UNKNOWN: u32 = 1000;
/// In all, beyond what requests have earned.
const LIFETIME: u64 = 10_000;

/// A client that does nothing but cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Flood;

/// Reads the frame headers of one connection.
#[derive(Debug, Default)]
pub(super) struct Frames {
    preface: usize,
    header: [u8; FRAME_HEADER],
    have: usize,
    payload: usize,
    pings: Count,
    settings: Count,
    resets: Count,
    priorities: Count,
    unknown: Count,
    /// Header and data frames: what a client came for.
    useful: u64,
    headers: u64,
    progress: u64,
}

#[derive(Debug, Default)]
struct Count {
    window: u32,
    since: Option<Instant>,
    all: u64,
}

impl Count {
    fn add(&mut self, most: u32) -> Result<(), Flood> {
        self.all += 1;
        self.window += 1;
        if self.window < most {
            return Ok(());
        }
        let now = Instant::now();
        let fast = self.since.is_some_and(|since| now.duration_since(since) < WINDOW);
        // The first hundred begin to be timed at their end: a connection's first second is nobody's flood.
        (self.window, self.since) = (0, Some(now));
        if fast { Err(Flood) } else { Ok(()) }
    }
}

impl Frames {
    /// Bytes of the preface that have not come.
    pub(super) fn preface_left(&self) -> usize {
        PREFACE_BYTES - self.preface
    }

    /// Counts frames that move a request on.
    pub(super) fn progress(&self) -> u64 {
        self.progress
    }

    /// Reads on; how many bytes lie before the frame that is too much.
    pub(super) fn read(&mut self, bytes: &[u8]) -> Result<(), (usize, Flood)> {
        let mut at = 0;
        while let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) {
            if self.preface < PREFACE_BYTES {
                let here = rest.len().min(PREFACE_BYTES - self.preface);
                self.preface += here;
                at += here;
            } else if self.payload > 0 {
                let here = rest.len().min(self.payload);
                self.payload -= here;
                at += here;
            } else {
                let here = rest.len().min(FRAME_HEADER - self.have);
                let begun = self.have;
                for (slot, b) in self.header.iter_mut().skip(self.have).zip(rest) {
                    *slot = *b;
                }
                self.have += here;
                at += here;
                if self.have == FRAME_HEADER {
                    self.have = 0;
                    // A header that came in pieces is let through to its end; the next one is stopped in its place.
                    self.frame().map_err(|flood| (if begun == 0 { at - here } else { at }, flood))?;
                }
            }
        }
        Ok(())
    }

    fn frame(&mut self) -> Result<(), Flood> {
        let [a, b, c, kind, flags, ..] = self.header;
        self.payload = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
        let acknowledges = flags & 1 == 1;
        match kind {
            0 | 1 => {
                self.useful += 1;
                self.headers += u64::from(kind == 1);
                self.progress += 1;
                Ok(())
            }
            8 | 9 => {
                self.progress += 1;
                Ok(())
            }
            2 => self.priorities.add(PRIORITIES),
            3 => {
                let resets = self.resets.add(RESETS);
                // A client may take back some of what it asks for; one that takes back most of it does not ask.
                let most = self.resets.all * 2 > self.headers;
                if most && (resets.is_err() || self.resets.all > LIFETIME) { Err(Flood) } else { Ok(()) }
            }
            4 if acknowledges => Ok(()),
            4 => {
                self.settings.add(SETTINGS)?;
                if self.settings.all > LIFETIME { Err(Flood) } else { Ok(()) }
            }
            6 if acknowledges => Ok(()),
            6 => {
                self.pings.add(PINGS)?;
                if self.pings.all > LIFETIME + 10 * self.useful { Err(Flood) } else { Ok(()) }
            }
            _ => self.unknown.add(UNKNOWN),
        }
    }
}

/// Frames that make the engine end a connection with `ENHANCE_YOUR_CALM`, in its own words: header fields that do not end.
pub(super) fn last_straw() -> Vec<u8> {
    const STREAM: [u8; 4] = [0x7f, 0xff, 0xff, 0xff];
    let frame = |kind: u8| [[0, 0, 0, kind, 0].as_slice(), &STREAM].concat();
    let mut frames = frame(1);
    for _ in 0..64 {
        frames.extend(frame(9));
    }
    frames
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, payload: usize) -> Vec<u8> {
        let mut frame = vec![0, 0, u8::try_from(payload).unwrap(), kind, flags, 0, 0, 0, 1];
        frame.resize(FRAME_HEADER + payload, 6);
        frame
    }

    fn connection() -> Frames {
        let mut frames = Frames::default();
        frames.read(&[b' '; PREFACE_BYTES]).unwrap();
        frames
    }

    #[test]
    fn frames_are_told_apart_however_they_are_cut() {
        let bytes = [vec![b' '; PREFACE_BYTES], frame(1, 4, 20), frame(0, 1, 200), frame(8, 0, 4)].concat();
        let mut frames = Frames::default();
        for byte in bytes.chunks(1) {
            frames.read(byte).unwrap();
        }
        assert_eq!((frames.preface_left(), frames.progress(), frames.headers, frames.useful), (0, 3, 1, 2));
        let mut whole = Frames::default();
        whole.read(&bytes).unwrap();
        assert_eq!((whole.progress(), whole.have, whole.payload), (3, 0, 0));
    }

    #[test]
    fn floods_end_and_what_requests_need_does_not() {
        for (kind, payload) in [(6, 8), (4, 6), (3, 4), (2, 5), (250, 0)] {
            let mut frames = connection();
            let ended = (0..20_000).find(|_| frames.read(&frame(kind, 0, payload)).is_err());
            assert!(ended.is_some_and(|at| at < 2001), "{kind}: {ended:?}");
        }
        for kind in [0, 1, 8, 9] {
            let mut frames = connection();
            assert!((0..20_000).all(|_| frames.read(&frame(kind, 0, 4)).is_ok()), "{kind}");
        }
        let mut frames = connection();
        assert!((0..20_000).all(|_| frames.read(&frame(6, 1, 8)).is_ok()), "answers to our own");
    }

    #[test]
    fn a_client_may_cancel_less_than_it_asks_for() {
        let mut frames = connection();
        for _ in 0..5000 {
            assert_eq!(frames.read(&[frame(1, 5, 4), frame(1, 5, 4), frame(3, 0, 4)].concat()), Ok(()));
        }
    }
}
