//! Where a connection is between messages, from the first byte to the last.
//!
//! Invariant: what is approved ends at a place that this reading has understood: within a body, or at the end of a whole and
//! good head. Data of bodies costs arithmetic only.

use super::{
    Flaw, HeadPolicy,
    chunked::Chunked,
    head::{self, Body},
};

/// Reads the client's side of one HTTP/1 connection.
#[derive(Debug)]
pub(crate) struct Reader {
    policy: HeadPolicy,
    state: State,
    /// Whether the request being read asked for another protocol.
    upgrade: bool,
    heads: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Head,
    Length(u64),
    Chunked(Chunked),
    /// Behind a request that asked for another protocol, before its answer is known.
    Asked,
    /// Another protocol.
    Tunnel,
    /// Nothing more is read.
    Refused,
}

/// Why reading stopped behind what was approved.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    /// It did not: all is approved.
    All,
    /// The rest is the beginning of a head.
    Unfinished,
    /// The rest comes behind a request that asked for another protocol; what it is depends on the answer.
    Undecided,
    /// The next `len` bytes are a head that goes on as `head`.
    Rewritten { len: usize, head: Vec<u8> },
    /// The rest is refused, with these bytes for the engine in its place.
    Refused { flaw: Flaw, stand_in: Vec<u8> },
    /// The body is refused.
    BadBody(Flaw),
}

impl Reader {
    pub(crate) fn new(policy: HeadPolicy) -> Reader {
        Reader { policy, state: State::Head, upgrade: false, heads: 0 }
    }

    /// Heads approved so far, those that stand in for refused ones included.
    pub(crate) fn heads(&self) -> u64 {
        self.heads
    }

    /// Whether a message has just ended, or none has begun.
    pub(crate) fn between_messages(&self) -> bool {
        matches!(self.state, State::Head | State::Asked)
    }

    /// Whether the client may still be sending what nobody will read.
    pub(crate) fn unread(&self) -> bool {
        matches!(self.state, State::Refused | State::Length(_) | State::Chunked(_))
    }

    /// Whether a body is coming.
    pub(crate) fn in_body(&self) -> bool {
        matches!(self.state, State::Length(_) | State::Chunked(_))
    }

    /// Whether nothing more is read.
    pub(crate) fn is_refused(&self) -> bool {
        self.state == State::Refused
    }

    /// Whether what follows a request that asked for another protocol is not known yet.
    pub(crate) fn asked(&self) -> bool {
        self.state == State::Asked
    }

    /// The answer to a request for another protocol: taken, and all that follows is not ours to read; or the next request.
    pub(crate) fn answered(&mut self, switched: bool) {
        if self.state == State::Asked {
            self.state = if switched { State::Tunnel } else { State::Head };
        }
    }

    /// Refuses what has come of a head, for another reason than what it says.
    pub(crate) fn refuse(&mut self, flaw: Flaw) -> Stop {
        self.refused(flaw, None)
    }

    /// Reads on; returns how many bytes are approved, and why not more.
    pub(crate) fn read(&mut self, bytes: &[u8]) -> (usize, Stop) {
        let mut at = 0;
        loop {
            let rest = bytes.get(at..).unwrap_or_default();
            if rest.is_empty() {
                return (at, Stop::All);
            }
            match self.state {
                State::Tunnel => return (bytes.len(), Stop::All),
                State::Refused => return (at, Stop::Unfinished),
                State::Asked => return (at, Stop::Undecided),
                State::Length(left) => {
                    let here = left.min(rest.len() as u64);
                    // Not more than `rest` holds.
                    at += here as usize;
                    self.body_goes_on(left - here);
                }
                State::Chunked(chunked) => match chunked.advance(rest) {
                    Ok((used, Chunked::Done)) => {
                        at += used;
                        self.body_goes_on(0);
                    }
                    Ok((used, next)) => {
                        at += used;
                        self.state = State::Chunked(next);
                    }
                    Err(flaw) => {
                        self.state = State::Refused;
                        return (at, Stop::BadBody(flaw));
                    }
                },
                State::Head => match head::scan(rest, &self.policy) {
                    Ok(None) => return (at, Stop::Unfinished),
                    Ok(Some(head)) => {
                        self.heads += 1;
                        self.upgrade = head.upgrade;
                        match head.body {
                            Body::Length(length) => self.body_goes_on(length),
                            Body::Chunked => self.state = State::Chunked(Chunked::START),
                        }
                        if let Some(rewritten) = head.rewritten {
                            return (at, Stop::Rewritten { len: head.len, head: rewritten });
                        }
                        at += head.len;
                    }
                    Err(bad) => {
                        let line = bad.line.map(|line| [line.method, b" ", line.target].concat());
                        return (at, self.refused(bad.flaw, line));
                    }
                },
            }
        }
    }

    fn body_goes_on(&mut self, left: u64) {
        self.state = match left {
            0 if self.upgrade => State::Asked,
            0 => State::Head,
            left => State::Length(left),
        };
    }

    /// The engine gets a head in place of the refused one, so that the answer comes in its turn behind those of earlier requests
    /// and is logged and counted. `-` is no method that a client could send here.
    fn refused(&mut self, flaw: Flaw, line: Option<Vec<u8>>) -> Stop {
        self.state = State::Refused;
        self.heads += 1;
        let mut stand_in = line.unwrap_or_else(|| b"- /".to_vec());
        stand_in.extend_from_slice(b" HTTP/1.1\r\nhost: -\r\nconnection: close\r\n\r\n");
        Stop::Refused { flaw, stand_in }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

    fn reader() -> Reader {
        Reader::new(HeadPolicy::default())
    }

    #[test]
    fn several_messages_in_one_read_are_all_understood() {
        let post = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 26\r\n\r\nGET /smuggled HTTP/1.1\r\n\r\n";
        let chunked = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nGET\r\n0\r\n\r\n";
        let all = format!("{GET}{post}{chunked}{GET}");
        assert_eq!(reader().read(all.as_bytes()), (all.len(), Stop::All));
        let mut reader = reader();
        let mut approved = 0;
        for end in 0..=all.len() {
            let (more, stop) = reader.read(&all.as_bytes()[approved..end]);
            approved += more;
            assert!(matches!(stop, Stop::All | Stop::Unfinished), "{stop:?}");
        }
        assert_eq!((approved, reader.heads()), (all.len(), 4));
        assert!(reader.between_messages());
    }

    #[test]
    fn what_follows_a_bad_head_is_never_approved() {
        let mut reader = reader();
        let bytes = format!("{GET}GET / HTTP/1.1\r\n\r\n{GET}");
        let (approved, stop) = reader.read(bytes.as_bytes());
        assert_eq!(approved, GET.len());
        let Stop::Refused { flaw: Flaw::MissingHost, stand_in } = stop else { panic!("{stop:?}") };
        assert!(stand_in.starts_with(b"GET / HTTP/1.1\r\n"));
        assert_eq!(reader.read(GET.as_bytes()), (0, Stop::Unfinished));
        assert_eq!(reader.heads(), 2);
    }

    #[test]
    fn a_bad_chunk_ends_the_reading_behind_the_good_ones() {
        let mut reader = reader();
        let head = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
        let (approved, stop) = reader.read(format!("{head}zz\r\n").as_bytes());
        assert_eq!((approved, stop), (head.len(), Stop::BadBody(Flaw::Chunk)));
        assert!(reader.unread());
    }

    #[test]
    fn what_follows_an_upgrade_waits_for_the_answer() {
        let head = "GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n";
        for switched in [true, false] {
            let mut reader = reader();
            assert_eq!(reader.read(format!("{head}{GET}").as_bytes()), (head.len(), Stop::Undecided));
            reader.answered(switched);
            assert_eq!(reader.read(GET.as_bytes()), (GET.len(), Stop::All));
            assert_eq!(reader.heads(), if switched { 1 } else { 2 });
        }
    }

    #[test]
    fn an_absolute_target_is_replaced_and_reading_goes_on_behind_it() {
        let mut reader = reader();
        let head = "POST http://b/ HTTP/1.1\r\nContent-Length: 2\r\n\r\n";
        let (approved, stop) = reader.read(format!("{head}ab{GET}").as_bytes());
        assert_eq!(approved, 0);
        assert!(matches!(stop, Stop::Rewritten { len, .. } if len == head.len()));
        assert_eq!(reader.read(format!("ab{GET}").as_bytes()), (2 + GET.len(), Stop::All));
    }
}
