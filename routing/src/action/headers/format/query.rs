//! The query of a path, as operators ask for it.
//!
//! Invariant: bytes that are no escape stay as they are; nothing is refused.

use std::borrow::Cow;

pub(super) fn split_query(path: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = memchr::memchr(b'?', path)?;
    Some((path.get(..at)?, path.get(at + 1..)?))
}

/// The first value of a name, both decoded (Envoy: `parseAndDecodeQueryString`).
pub(super) fn parameter(query: &[u8], name: &[u8]) -> Option<Vec<u8>> {
    query.split(|b| *b == b'&').find_map(|pair| {
        let (key, value) = match memchr::memchr(b'=', pair) {
            Some(at) => (pair.get(..at)?, pair.get(at + 1..)?),
            None => (pair, &[][..]),
        };
        (&*decoded(key) == name).then(|| decoded(value).into_owned())
    })
}

fn decoded(text: &[u8]) -> Cow<'_, [u8]> {
    if memchr::memchr(b'%', text).is_none() {
        return Cow::Borrowed(text);
    }
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((first, tail)) = rest.split_first() {
        let digit = |at: usize| char::from(*tail.get(at)?).to_digit(16);
        rest = match (first, digit(0), digit(1)) {
            (b'%', Some(high), Some(low)) => {
                out.push(u8::try_from(high * 16 + low).unwrap_or_default());
                tail.get(2..).unwrap_or_default()
            }
            _ => {
                out.push(*first);
                tail
            }
        };
    }
    Cow::Owned(out)
}
