//! One response being compressed.
//!
//! Invariant: what has come in can be read out at the other end at once: each piece is flushed, so that no event waits for the next
//! (Envoy does so too). A window is at most 1 MiB, so that many responses at a time fit into memory.

use super::super::{BodyFilter, Failure, Flow};
use bytes::Bytes;
use config_model::annotation::Algorithm;
use std::{
    io::{self, Write as _},
    sync::{Mutex, PoisonError},
};

/// Quick, and about as small as the defaults make it.
const GZIP: u32 = 5;
const BROTLI: u32 = 4;
const ZSTD: i32 = 3;
/// Logarithms of the windows.
const BROTLI_WINDOW: u32 = 18;
const ZSTD_WINDOW: u32 = 20;
const BUFFER: usize = 4096;

enum Writer {
    Gzip(flate2::write::GzEncoder<Vec<u8>>),
    Brotli(Box<brotli::CompressorWriter<Vec<u8>>>),
    Zstd(zstd::stream::write::Encoder<'static, Vec<u8>>),
}

/// Compresses one body. The lock is never waited for: a filter is one exchange's.
pub(super) struct Encoder(Mutex<Option<Writer>>);

impl Encoder {
    pub(super) fn new(algorithm: Algorithm) -> io::Result<Encoder> {
        let writer = match algorithm {
            Algorithm::Gzip => {
                Writer::Gzip(flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::new(GZIP)))
            }
            Algorithm::Br => Writer::Brotli(Box::new(brotli::CompressorWriter::new(
                Vec::new(),
                BUFFER,
                BROTLI,
                BROTLI_WINDOW,
            ))),
            Algorithm::Zstd => {
                let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), ZSTD)?;
                encoder.window_log(ZSTD_WINDOW)?;
                Writer::Zstd(encoder)
            }
        };
        Ok(Encoder(Mutex::new(Some(writer))))
    }
}

impl Writer {
    fn write(&mut self, piece: &[u8]) -> io::Result<Vec<u8>> {
        fn through<W: io::Write>(writer: &mut W, piece: &[u8]) -> io::Result<()> {
            writer.write_all(piece)?;
            writer.flush()
        }
        Ok(std::mem::take(match self {
            Writer::Gzip(encoder) => {
                through(encoder, piece)?;
                encoder.get_mut()
            }
            Writer::Brotli(encoder) => {
                through(&mut **encoder, piece)?;
                encoder.get_mut()
            }
            Writer::Zstd(encoder) => {
                through(encoder, piece)?;
                encoder.get_mut()
            }
        }))
    }

    fn finish(self, piece: &[u8]) -> io::Result<Vec<u8>> {
        match self {
            Writer::Gzip(mut encoder) => {
                encoder.write_all(piece)?;
                encoder.finish()
            }
            Writer::Brotli(mut encoder) => {
                encoder.write_all(piece)?;
                Ok(encoder.into_inner())
            }
            Writer::Zstd(mut encoder) => {
                encoder.write_all(piece)?;
                encoder.finish()
            }
        }
    }
}

impl BodyFilter for Encoder {
    fn piece(&mut self, piece: Bytes, last: bool) -> Result<Flow, Failure> {
        let writer = self.0.get_mut().unwrap_or_else(PoisonError::into_inner);
        let out = if last {
            writer.take().ok_or_else(|| Failure::new("a body that goes on behind its end"))?.finish(&piece)?
        } else {
            writer
                .as_mut()
                .ok_or_else(|| Failure::new("a body that goes on behind its end"))?
                .write(&piece)?
        };
        Ok(Flow::Pass(out.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read as _;

    fn piece(encoder: &mut Encoder, piece: &[u8], last: bool) -> Bytes {
        match encoder.piece(Bytes::copy_from_slice(piece), last).unwrap() {
            Flow::Pass(out) => out,
            other => panic!("{other:?}"),
        }
    }

    /// As much as can be read of what has come so far.
    fn decoded(algorithm: Algorithm, compressed: &[u8]) -> Vec<u8> {
        let mut reader: Box<dyn io::Read + '_> = match algorithm {
            Algorithm::Gzip => Box::new(flate2::read::GzDecoder::new(compressed)),
            Algorithm::Br => Box::new(brotli::Decompressor::new(compressed, 4096)),
            Algorithm::Zstd => Box::new(zstd::stream::read::Decoder::new(compressed).unwrap()),
        };
        let mut out = Vec::new();
        let mut byte = [0];
        while let Ok(1) = reader.read(&mut byte) {
            out.push(byte[0]);
        }
        out
    }

    #[test]
    fn each_piece_can_be_read_when_it_has_come_and_all_at_the_end() {
        for algorithm in [Algorithm::Gzip, Algorithm::Br, Algorithm::Zstd] {
            let mut encoder = Encoder::new(algorithm).unwrap();
            let mut out = piece(&mut encoder, b"data: one\n\n", false).to_vec();
            assert_eq!(decoded(algorithm, &out), b"data: one\n\n", "{algorithm:?}");
            out.extend(piece(&mut encoder, b"data: two\n\n", false));
            assert_eq!(decoded(algorithm, &out), b"data: one\n\ndata: two\n\n", "{algorithm:?}");
            let long = b"0123456789".repeat(20_000);
            out.extend(piece(&mut encoder, &long, false));
            out.extend(piece(&mut encoder, b"end", true));
            assert!(out.len() < 20_000, "{algorithm:?}: {}", out.len());
            assert!(decoded(algorithm, &out).ends_with(b"56789end"), "{algorithm:?}");
            assert_eq!(decoded(algorithm, &out).len(), 22 + 200_000 + 3);
            assert!(encoder.piece(Bytes::new(), true).is_err(), "it is over");
        }
    }
}
