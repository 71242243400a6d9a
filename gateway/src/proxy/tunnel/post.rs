//! A connection that is carried in the bodies of one POST and its answer (Envoy: `use_post`), for proxies that do not speak
//! CONNECT.
//!
//! Invariant: what the client says goes out in chunks, and its end is the last of them; the connection to the proxy stays open
//! for what is still to come back. A body that breaks off is an error, never an end.

use crate::listener::http1::Chunked;
use std::{
    io::{self, Write as _},
    pin::Pin,
    task::{Context, Poll, ready},
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Bytes that are read at a time.
const BUFFER: usize = 16 * 1024;

/// How an answer's body ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::proxy) enum Body {
    /// With its last chunk.
    Chunked(Chunked),
    /// After so many bytes.
    Left(u64),
    /// With the connection.
    ToTheEnd,
}

impl Body {
    /// As the head of an answer says (RFC 9112 §6.3); `None` where it contradicts itself.
    pub(super) fn of(head: &[u8], status: u16) -> Option<Self> {
        let text = std::str::from_utf8(head).ok()?;
        let (mut length, mut chunked) = (None, false);
        for line in text.split("\r\n").skip(1) {
            let Some((name, value)) = line.split_once(':') else { continue };
            let value = value.trim_matches([' ', '\t']);
            if name.eq_ignore_ascii_case("content-length") {
                let plain = !value.is_empty() && value.bytes().all(|b| b.is_ascii_digit());
                let value: u64 = value.parse().ok().filter(|_| plain)?;
                if length.replace(value).is_some_and(|before| before != value) {
                    return None;
                }
            } else if name.eq_ignore_ascii_case("transfer-encoding") {
                if chunked || !value.eq_ignore_ascii_case("chunked") {
                    return None;
                }
                chunked = true;
            }
        }
        match (length, chunked) {
            (Some(_), true) => None,
            _ if status == 204 => Some(Self::Left(0)),
            (None, true) => Some(Self::Chunked(Chunked::START)),
            (Some(length), false) => Some(Self::Left(length)),
            (None, false) => Some(Self::ToTheEnd),
        }
    }

    fn is_over(self) -> bool {
        matches!(self, Self::Left(0) | Self::Chunked(Chunked::Done))
    }
}

/// The proxy's side of the connection, as if it were the target's.
pub(in crate::proxy) struct Posted<S> {
    proxy: S,
    body: Body,
    /// What was read and is not understood yet, from `read` on.
    raw: Vec<u8>,
    read: usize,
    /// What is to be written, from `written` on.
    out: Vec<u8>,
    written: usize,
    ended: bool,
}

impl<S> Posted<S> {
    /// After the proxy's answer, behind whose head came `early`.
    pub(in crate::proxy) fn new(proxy: S, body: Body, early: Vec<u8>) -> Self {
        Self { proxy, body, raw: early, read: 0, out: Vec::new(), written: 0, ended: false }
    }

    /// Moves what is there of the body to `to`; nothing where more has to be read first.
    fn decode(&mut self, to: &mut ReadBuf<'_>) -> io::Result<()> {
        while !self.body.is_over() {
            let raw = self.raw.get(self.read..).unwrap_or_default();
            let room = raw.len().min(to.remaining());
            let data = match self.body {
                Body::ToTheEnd => room,
                Body::Left(left) | Body::Chunked(Chunked::Data(left)) => {
                    room.min(usize::try_from(left).unwrap_or(usize::MAX))
                }
                Body::Chunked(_) => 0,
            };
            if data > 0 {
                to.put_slice(raw.get(..data).unwrap_or_default());
            } else if raw.is_empty() || to.remaining() == 0 {
                return Ok(());
            }
            // Between the data: a byte of the framing.
            let taken = data.max(1);
            self.body = match self.body {
                Body::ToTheEnd => Body::ToTheEnd,
                Body::Left(left) => Body::Left(left.saturating_sub(taken as u64)),
                Body::Chunked(state) => {
                    let part = raw.get(..taken).unwrap_or_default();
                    let (_, state) = state.advance(part).map_err(|_| broken("a chunk that is none"))?;
                    Body::Chunked(state)
                }
            };
            self.read += taken;
        }
        Ok(())
    }
}

impl<S: AsyncWrite + Unpin> Posted<S> {
    fn drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(left) = self.out.get(self.written..).filter(|left| !left.is_empty()) {
            match ready!(Pin::new(&mut self.proxy).poll_write(cx, left))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                written => self.written += written,
            }
        }
        self.out.clear();
        self.written = 0;
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Posted<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        to: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = to.filled().len();
        loop {
            self.decode(to)?;
            if to.filled().len() > before || to.remaining() == 0 || self.body.is_over() {
                return Poll::Ready(Ok(()));
            }
            let mut raw = std::mem::take(&mut self.raw);
            raw.resize(BUFFER, 0);
            let mut buffer = ReadBuf::new(&mut raw);
            let polled = Pin::new(&mut self.proxy).poll_read(cx, &mut buffer);
            let filled = buffer.filled().len();
            raw.truncate(filled);
            (self.raw, self.read) = (raw, 0);
            ready!(polled)?;
            if filled == 0 {
                return Poll::Ready(match self.body {
                    Body::ToTheEnd => Ok(()),
                    Body::Chunked(_) | Body::Left(_) => Err(broken("its body breaks off")),
                });
            }
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Posted<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.drain(cx))?;
        if data.is_empty() {
            // A chunk of nothing would be the last.
            return Poll::Ready(Ok(0));
        }
        write!(self.out, "{:x}\r\n", data.len())?;
        self.out.extend_from_slice(data);
        self.out.extend_from_slice(b"\r\n");
        match self.drain(cx) {
            Poll::Ready(Err(e)) => Poll::Ready(Err(e)),
            // What does not go now goes before what comes next.
            Poll::Ready(Ok(())) | Poll::Pending => Poll::Ready(Ok(data.len())),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.drain(cx))?;
        Pin::new(&mut self.proxy).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.ended {
            ready!(self.drain(cx))?;
            self.out.extend_from_slice(b"0\r\n\r\n");
            self.ended = true;
        }
        self.poll_flush(cx)
    }
}

fn broken(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, format!("the proxy's answer: {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

    #[test]
    fn an_answer_says_how_it_ends_or_is_none() {
        let of = |lines: &str| Body::of(format!("HTTP/1.1 200 OK\r\n{lines}\r\n").as_bytes(), 200);
        assert_eq!(of(""), Some(Body::ToTheEnd));
        assert_eq!(of("Content-Length: 5\r\n"), Some(Body::Left(5)));
        assert_eq!(of("content-length: 5\r\nContent-Length: 5\r\n"), Some(Body::Left(5)));
        assert_eq!(of("Transfer-Encoding: Chunked\r\n"), Some(Body::Chunked(Chunked::START)));
        for contradiction in [
            "Content-Length: 5\r\nContent-Length: 6\r\n",
            "Content-Length: +5\r\n",
            "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
            "Transfer-Encoding: gzip, chunked\r\n",
        ] {
            assert_eq!(of(contradiction), None, "{contradiction}");
        }
        assert_eq!(Body::of(b"HTTP/1.1 204 No\r\nContent-Length: 5\r\n\r\n", 204), Some(Body::Left(0)));
    }

    async fn read(body: Body, early: &[u8], rest: &[u8]) -> io::Result<Vec<u8>> {
        let (near, mut far) = duplex(7);
        let rest = rest.to_vec();
        let wrote = tokio::spawn(async move { far.write_all(&rest).await });
        let mut got = Vec::new();
        let ended = Posted::new(near, body, early.to_vec()).read_to_end(&mut got).await;
        drop(wrote.await);
        ended.map(|_| got)
    }

    #[tokio::test]
    async fn what_comes_back_is_taken_out_of_its_frame_however_it_is_cut() {
        let chunked = Body::Chunked(Chunked::START);
        let whole = b"5\r\nhello\r\n1;x=y\r\n \r\n5\r\nworld\r\n0\r\nx: y\r\n\r\n";
        for cut in 0..whole.len() {
            let (early, rest) = whole.split_at(cut);
            assert_eq!(read(chunked, early, rest).await.unwrap(), b"hello world", "{cut}");
        }
        assert_eq!(read(Body::Left(5), b"he", b"llo and more").await.unwrap(), b"hello");
        assert_eq!(read(Body::ToTheEnd, b"he", b"llo").await.unwrap(), b"hello");
    }

    #[tokio::test]
    async fn what_breaks_off_is_no_end() {
        assert!(read(Body::Left(6), b"", b"hello").await.is_err());
        assert!(read(Body::Chunked(Chunked::START), b"", b"5\r\nhello\r\n").await.is_err());
        assert!(read(Body::Chunked(Chunked::START), b"", b"x\r\n").await.is_err());
    }

    #[tokio::test]
    async fn what_goes_out_is_chunks_and_its_end_leaves_the_way_back_open() {
        let (near, mut far) = duplex(1024);
        let mut posted = Posted::new(near, Body::ToTheEnd, Vec::new());
        posted.write_all(b"hello").await.unwrap();
        posted.write_all(&[b'x'; 17]).await.unwrap();
        posted.shutdown().await.unwrap();
        let mut got = vec![0; 38];
        far.read_exact(&mut got).await.unwrap();
        assert_eq!(got, b"5\r\nhello\r\n11\r\nxxxxxxxxxxxxxxxxx\r\n0\r\n\r\n");
        far.write_all(b"back").await.unwrap();
        drop(far);
        let mut back = String::new();
        posted.read_to_string(&mut back).await.unwrap();
        assert_eq!(back, "back");
    }
}
