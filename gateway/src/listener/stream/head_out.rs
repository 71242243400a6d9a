//! Heads of responses on their way out: the engine writes some names of fields in title case, and says of each
//! connection that it is kept. Envoy writes every name in lower case, and a connection of HTTP/1.1 is kept unless it is
//! said not to be (RFC 9112 §9.3).
//!
//! Invariant: nothing but heads is touched, and of heads nothing but names and that one line. A response has one head;
//! what comes until the exchange is over is its body, whatever it looks like.

/// The most that is looked at in one go; less than the stream's buffer holds, so that it is taken whole.
const MOST: usize = 2048;
const KEPT: &[u8] = b"Connection: keep-alive\r\n";

/// Where the next byte of what is written belongs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Place {
    /// In no head.
    #[default]
    Elsewhere,
    LineStart,
    InLine,
}

/// What has been written of heads so far.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct HeadOut {
    /// Requests that have got the head of their response.
    answered: u64,
    place: Place,
}

/// The beginning of what is to be written, and where its end leaves off.
pub(super) struct Piece {
    /// Bytes that it stands for.
    pub(super) taken: usize,
    after: HeadOut,
}

impl HeadOut {
    /// What goes out in place of the beginning of `bytes`, where that is of a head; it is left in `out`. `finished`: exchanges that are
    /// over.
    pub(super) fn piece(&self, bytes: &[u8], finished: u64, out: &mut Vec<u8>) -> Option<Piece> {
        let mut after = *self;
        if after.place == Place::Elsewhere {
            if finished < self.answered {
                return None;
            }
            let status = bytes.strip_prefix(b"HTTP/1.1 ")?.get(..3)?;
            // What is only informational is followed by the head that counts.
            if status.first() != Some(&b'1') || status == b"101" {
                after.answered = finished + 1;
            }
            after.place = Place::InLine;
        }
        let cut = match bytes.get(..MOST) {
            Some(most) => memchr::memrchr(b'\n', most).map_or(MOST, |at| at + 1),
            None => bytes.len(),
        };
        let bytes = bytes.get(..cut).unwrap_or(bytes);
        out.clear();
        out.extend_from_slice(bytes);
        let mut end = None;
        let mut kept = None;
        let first = (after.place == Place::LineStart).then_some(0);
        for start in first.into_iter().chain(memchr::memchr_iter(b'\n', bytes).map(|at| at + 1)) {
            match bytes.get(start..).unwrap_or_default() {
                [b'\r', b'\n', ..] => {
                    end = Some(start + 2);
                    break;
                }
                [b'A'..=b'Z', ..] => kept = lower(out, start).or(kept),
                _ => {}
            }
        }
        after.place = match (end, bytes.last()) {
            (Some(_), _) => Place::Elsewhere,
            (None, Some(b'\n')) => Place::LineStart,
            (None, _) => Place::InLine,
        };
        let taken = end.unwrap_or(cut);
        out.truncate(taken);
        if let Some(kept) = kept {
            out.drain(kept..kept + KEPT.len());
        }
        Some(Piece { taken, after })
    }

    /// Notes that a piece has been written.
    pub(super) fn wrote(&mut self, piece: &Piece) {
        *self = piece.after;
    }
}

/// Writes the name of the line at `start` in lower case; gives the line back where it is not to go out at all.
fn lower(out: &mut [u8], start: usize) -> Option<usize> {
    let line = out.get_mut(start..).unwrap_or_default();
    if line.starts_with(KEPT) {
        return Some(start);
    }
    for byte in line.iter_mut().take_while(|byte| **byte != b':') {
        byte.make_ascii_lowercase();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Everything as it goes out, written in slices of `step` bytes.
    fn sent(out: &mut HeadOut, text: &str, finished: u64, step: usize) -> String {
        let mut sent = Vec::new();
        let mut rest = text.as_bytes();
        while !rest.is_empty() {
            let bytes = &rest[..step.min(rest.len())];
            let mut instead = Vec::new();
            match out.piece(bytes, finished, &mut instead) {
                Some(piece) => {
                    sent.extend_from_slice(&instead);
                    rest = &rest[piece.taken..];
                    out.wrote(&piece);
                }
                None => {
                    sent.extend_from_slice(bytes);
                    rest = &rest[bytes.len()..];
                }
            }
        }
        String::from_utf8(sent).unwrap()
    }

    #[test]
    fn names_go_out_in_lower_case_and_values_as_they_are() {
        let head = "HTTP/1.1 200 OK\r\nContent-Type: Text/Plain\r\nx-a: Date: B\r\nConnection: keep-alive\r\nDate: Mon\r\n\r\n";
        let want = "HTTP/1.1 200 OK\r\ncontent-type: Text/Plain\r\nx-a: Date: B\r\ndate: Mon\r\n\r\n";
        let mut out = HeadOut::default();
        assert_eq!(sent(&mut out, head, 0, usize::MAX), want);
        let body = "HTTP/1.1 200 OK\r\nA: B\r\nConnection: keep-alive\r\n\r\n";
        assert_eq!(sent(&mut out, body, 0, usize::MAX), body, "a body may look like a head");
        assert_eq!(sent(&mut out, &format!("{head}{body}"), 1, usize::MAX), format!("{want}{body}"));
    }

    #[test]
    fn that_a_connection_closes_is_said() {
        let head = "HTTP/1.1 404 Not Found\r\nConnection: close\r\n\r\n";
        let mut out = HeadOut::default();
        assert_eq!(sent(&mut out, head, 0, usize::MAX), head.replace("Connection", "connection"));
    }

    #[test]
    fn a_head_follows_what_is_only_informational() {
        let mut out = HeadOut::default();
        assert_eq!(sent(&mut out, "HTTP/1.1 100 Continue\r\n\r\n", 0, usize::MAX).len(), 25);
        assert_eq!(
            sent(&mut out, "HTTP/1.1 200 OK\r\nDate: x\r\n\r\n", 0, usize::MAX),
            "HTTP/1.1 200 OK\r\ndate: x\r\n\r\n"
        );
        let mut out = HeadOut::default();
        let switch = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n\r\n";
        assert_eq!(sent(&mut out, switch, 0, usize::MAX), switch.replace("Con", "con"));
        assert_eq!(sent(&mut out, switch, 0, usize::MAX), switch, "of the tunnel");
    }

    #[test]
    fn long_heads_go_out_in_pieces() {
        let long = format!("x-long: {}\r\n", "Ab".repeat(5000));
        let many: String = (0..100).map(|n| format!("Set-Cookie: Name{n}=Value\r\n")).collect();
        let head = format!("HTTP/1.1 200 OK\r\n{many}{long}Server: X\r\nConnection: keep-alive\r\n\r\n");
        let want =
            format!("HTTP/1.1 200 OK\r\n{}{long}server: X\r\n\r\n", many.replace("Set-Cookie", "set-cookie"));
        assert_eq!(
            sent(&mut HeadOut::default(), &format!("{head}Body: B"), 0, usize::MAX),
            format!("{want}Body: B")
        );
    }
}
