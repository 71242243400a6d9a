//! Where a body in chunks ends (RFC 9112 §7.1).
//!
//! Invariant: chunk sizes are hexadecimal digits and nothing else, every line ends with CRLF, and an extension or a trailer
//! holds no control character, so that no reader can see another end. Data is skipped, not looked at.

use super::{Flaw, head};

/// Bytes of a chunk's size line.
const MAX_SIZE_LINE: u32 = 4096;
/// Bytes of a trailer section; the engine takes no more than 64 KiB.
const MAX_TRAILERS: u32 = 16 * 1024;

/// Where in a chunked body the last byte left us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Chunked {
    /// In the digits of a size: value so far, and bytes of the line.
    Size(u64, u32),
    /// In an extension: size, and bytes of the line.
    Extension(u64, u32),
    /// Before the LF of a size line.
    SizeLf(u64),
    /// In data: bytes left.
    Data(u64),
    /// Before the CR behind data.
    DataCr,
    /// Before the LF behind data.
    DataLf,
    /// At the beginning of a trailer line: bytes of the section.
    TrailerStart(u32),
    /// In the name of a trailer.
    TrailerName(u32),
    /// In the value of a trailer.
    TrailerValue(u32),
    /// Before the LF of a trailer.
    TrailerLf(u32),
    /// Before the last LF.
    LastLf,
    /// Behind the body.
    Done,
}

impl Chunked {
    pub(crate) const START: Chunked = Chunked::Size(0, 0);

    /// Reads on; returns how many bytes belong to the body and where that leads.
    pub(crate) fn advance(mut self, bytes: &[u8]) -> Result<(usize, Chunked), Flaw> {
        let mut at = 0;
        while let Some(&b) = bytes.get(at) {
            if let Chunked::Data(left) = self {
                let here = (bytes.len() - at) as u64;
                if here < left {
                    return Ok((bytes.len(), Chunked::Data(left - here)));
                }
                at += usize::try_from(left).map_err(|_| Flaw::Chunk)?;
                self = Chunked::DataCr;
                continue;
            }
            self = self.byte(b)?;
            at += 1;
            if self == Chunked::Done {
                break;
            }
        }
        Ok((at, self))
    }

    fn byte(self, b: u8) -> Result<Chunked, Flaw> {
        let bounded = |n: u32, most: u32| if n < most { Ok(n + 1) } else { Err(Flaw::Chunk) };
        Ok(match (self, b) {
            (Chunked::Size(size, n), b) if b.is_ascii_hexdigit() && n < 16 => {
                let digit = char::from(b).to_digit(16).ok_or(Flaw::Chunk)?;
                Chunked::Size(size << 4 | u64::from(digit), n + 1)
            }
            (Chunked::Size(size, 1..), b'\r') => Chunked::SizeLf(checked(size)?),
            (Chunked::Size(size, n @ 1..), b';') => Chunked::Extension(checked(size)?, n),
            (Chunked::Extension(size, _), b'\r') => Chunked::SizeLf(size),
            (Chunked::Extension(size, n), b) if !head::is_control(b) => {
                Chunked::Extension(size, bounded(n, MAX_SIZE_LINE)?)
            }
            (Chunked::SizeLf(0), b'\n') => Chunked::TrailerStart(0),
            (Chunked::SizeLf(size), b'\n') => Chunked::Data(size),
            (Chunked::DataCr, b'\r') => Chunked::DataLf,
            (Chunked::DataLf, b'\n') => Chunked::START,
            (Chunked::TrailerStart(_), b'\r') => Chunked::LastLf,
            (Chunked::LastLf, b'\n') => Chunked::Done,
            (Chunked::TrailerStart(n) | Chunked::TrailerName(n), b) if head::is_token(b) => {
                Chunked::TrailerName(bounded(n, MAX_TRAILERS)?)
            }
            (Chunked::TrailerName(n), b':') => Chunked::TrailerValue(n),
            (Chunked::TrailerValue(n), b'\r') => Chunked::TrailerLf(n),
            (Chunked::TrailerValue(n), b) if !head::is_control(b) => {
                Chunked::TrailerValue(bounded(n, MAX_TRAILERS)?)
            }
            (Chunked::TrailerLf(n), b'\n') => Chunked::TrailerStart(bounded(n, MAX_TRAILERS)?),
            _ => return Err(Flaw::Chunk),
        })
    }
}

/// Half the range, so that no reader's signed number overflows.
fn checked(size: u64) -> Result<u64, Flaw> {
    if size <= i64::MAX as u64 { Ok(size) } else { Err(Flaw::Chunk) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(body: &[u8]) -> Result<usize, Flaw> {
        let (at, state) = Chunked::START.advance(body)?;
        Ok(if state == Chunked::Done { at } else { usize::MAX })
    }

    /// Cut at every place, with the same end.
    fn in_pieces(body: &[u8]) {
        let end = whole(body).unwrap();
        for cut in 0..end {
            let (first, second) = body.split_at(cut);
            let (at, state) = Chunked::START.advance(first).unwrap();
            assert_eq!(at, cut);
            assert_eq!(state.advance(second).unwrap(), (end - cut, Chunked::Done));
        }
    }

    #[test]
    fn the_end_is_found_however_the_body_is_cut() {
        for body in [
            &b"0\r\n\r\n"[..],
            b"5\r\nhello\r\n0\r\n\r\nGET / HTTP/1.1\r\n",
            b"5;a=b;c=\"d\"\r\nhello\r\n00\r\nx: y\r\nz:\r\n\r\nrest",
            b"00000000000000Ab\r\n",
        ] {
            if whole(body).unwrap() < body.len() + 1 {
                in_pieces(body);
            }
        }
        assert_eq!(whole(b"5\r\nhello\r\n0\r\n\r\nGET"), Ok(15));
    }

    #[test]
    fn what_two_readers_could_read_differently_is_refused() {
        for body in [
            &b"0x5\r\n"[..],
            b"+5\r\n",
            b" 5\r\n",
            b"5 \r\n",
            b"\r\n",
            b";a\r\n",
            b"5\n",
            b"5\rx",
            b"5;a\nb\r\n",
            b"5;a\x00\r\n",
            b"5\r\nhelloworld",
            b"5\r\nhello\n",
            b"FFFFFFFFFFFFFFFF\r\n",
            b"10000000000000000\r\n",
            b"-1\r\n",
            b"0\r\n a: b\r\n",
            b"0\r\na\r\n",
            b"0\r\na: b\n",
            b"0\r\n: b\r\n",
            b"0\r\na: b\x00\r\n",
            b"g\r\n",
        ] {
            assert_eq!(whole(body), Err(Flaw::Chunk), "{:?}", String::from_utf8_lossy(body));
        }
        let long = [&b"1;"[..], &vec![b'a'; 5000]].concat();
        assert_eq!(whole(&long), Err(Flaw::Chunk));
    }
}
