//! The part of a ClientHello that decides where a connection goes: the server name, the protocols the client offers and the
//! signatures it can check.
//!
//! Invariant: reads only what is there; no input makes it panic, and it holds no more than [`LIMIT`] bytes of a peer that has
//! not shown a certificate request yet. The handshake itself is BoringSSL's: what is read here is put back.

use std::{fmt, io};

/// Most bytes of a ClientHello, as Envoy's TLS inspector has it.
pub const LIMIT: usize = 16 * 1024;

/// What the client says it can check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Signs {
    /// RSA only, or nothing said (TLS 1.1 and older).
    Rsa,
    /// ECDSA too.
    Ecdsa,
}

/// What we read of a ClientHello.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientHello {
    /// Server name, lower case.
    pub server_name: Option<String>,
    /// Signatures.
    pub signs: Signs,
    /// The ALPN list as sent: names, each behind a byte with its length.
    protocols: Box<[u8]>,
}

impl ClientHello {
    /// The protocols that the client offers, in its order of preference.
    pub fn protocols(&self) -> impl Iterator<Item = &[u8]> {
        let mut list = Cursor(&self.protocols);
        std::iter::from_fn(move || {
            let length = list.u8()?;
            list.take(length.into())
        })
    }
}

/// Why there is no ClientHello.
#[derive(Debug)]
pub enum HelloError {
    /// More bytes are needed.
    Incomplete,
    /// The bytes are not TLS, or not a ClientHello.
    NotTls,
    /// A length does not fit, or a name is not one.
    Malformed,
    /// Longer than [`LIMIT`].
    TooLong,
    /// The socket failed or ended.
    Io(io::Error),
}

impl fmt::Display for HelloError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HelloError::Incomplete => f.write_str("incomplete ClientHello"),
            HelloError::NotTls => f.write_str("not a TLS ClientHello"),
            HelloError::Malformed => f.write_str("malformed ClientHello"),
            HelloError::TooLong => f.write_str("ClientHello too long"),
            HelloError::Io(error) => error.fmt(f),
        }
    }
}

/// Parses the bytes a client begins with (RFC 8446 §4.1.2 and §5.1; RFC 6066 §3).
///
/// # Errors
/// [`HelloError::Incomplete`] when a longer input could be a ClientHello.
pub fn parse(bytes: &[u8]) -> Result<ClientHello, HelloError> {
    let handshake = records(bytes)?;
    let mut cursor = Cursor(&handshake.bytes);
    let short = || if handshake.complete { HelloError::Malformed } else { HelloError::Incomplete };
    let kind = cursor.u8().ok_or_else(short)?;
    if kind != 1 {
        return Err(HelloError::NotTls);
    }
    let length = cursor.u24().ok_or(HelloError::Incomplete)?;
    if length > LIMIT {
        return Err(HelloError::TooLong);
    }
    let body = cursor.take(length).ok_or(HelloError::Incomplete)?;
    hello(body).ok_or(HelloError::Malformed)
}

struct Handshake {
    bytes: Vec<u8>,
    complete: bool,
}

/// Joins the handshake records, of which the last may be cut short.
fn records(bytes: &[u8]) -> Result<Handshake, HelloError> {
    let mut cursor = Cursor(bytes);
    let mut joined = Vec::new();
    while let Some(kind) = cursor.u8() {
        if kind != 22 {
            return Err(HelloError::NotTls);
        }
        let Some(major) = cursor.u8() else { break };
        if major != 3 {
            return Err(HelloError::NotTls);
        }
        let (Some(_minor), Some(length)) = (cursor.u8(), cursor.u16()) else { break };
        if length == 0 {
            return Err(HelloError::Malformed);
        }
        match cursor.take(length) {
            Some(part) => joined.extend_from_slice(part),
            None => {
                joined.extend_from_slice(cursor.0);
                break;
            }
        }
        if needed(&joined).is_some_and(|needed| joined.len() >= needed) {
            return Ok(Handshake { bytes: joined, complete: true });
        }
    }
    Ok(Handshake { bytes: joined, complete: false })
}

/// Length of the handshake message that the bytes begin, header included.
fn needed(bytes: &[u8]) -> Option<usize> {
    let mut cursor = Cursor(bytes);
    cursor.u8()?;
    cursor.u24().map(|length| length + 4)
}

fn hello(body: &[u8]) -> Option<ClientHello> {
    let mut cursor = Cursor(body);
    cursor.take(2 + 32)?;
    let session = cursor.u8()?;
    cursor.take(session.into())?;
    let ciphers = cursor.u16()?;
    cursor.take(ciphers)?;
    let compression = cursor.u8()?;
    cursor.take(compression.into())?;
    let mut found = ClientHello { server_name: None, signs: Signs::Rsa, protocols: Box::default() };
    if cursor.0.is_empty() {
        return Some(found);
    }
    let length = cursor.u16()?;
    let mut extensions = Cursor(cursor.take(length)?);
    while !extensions.0.is_empty() {
        let kind = extensions.u16()?;
        let length = extensions.u16()?;
        let data = Cursor(extensions.take(length)?);
        match kind {
            0 => found.server_name = server_name(data)?,
            13 => found.signs = signatures(data)?,
            16 => found.protocols = protocols(data)?,
            _ => {}
        }
    }
    Some(found)
}

/// The first host_name entry; an empty extension is what a server sends, not a client.
fn server_name(mut data: Cursor<'_>) -> Option<Option<String>> {
    let length = data.u16()?;
    let mut list = Cursor(data.take(length)?);
    while !list.0.is_empty() {
        let kind = list.u8()?;
        let length = list.u16()?;
        let name = list.take(length)?;
        if kind == 0 {
            return name_text(name).map(Some);
        }
    }
    Some(None)
}

/// RFC 6066 §3: a DNS name in ASCII, without a trailing dot (which is dropped here, as clients disagree).
fn name_text(name: &[u8]) -> Option<String> {
    let allowed = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
    if name.is_empty() || name.len() > 255 || !name.iter().all(allowed) {
        return None;
    }
    let text = std::str::from_utf8(name).ok()?;
    Some(text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase())
}

/// RFC 8446 §4.2.3: ecdsa_secp256r1_sha256, ecdsa_secp384r1_sha384, ecdsa_secp521r1_sha512.
fn signatures(mut data: Cursor<'_>) -> Option<Signs> {
    let length = data.u16()?;
    let mut list = Cursor(data.take(length)?);
    let mut signs = Signs::Rsa;
    while let Some(scheme) = list.u16() {
        if matches!(scheme, 0x0403 | 0x0503 | 0x0603) {
            signs = Signs::Ecdsa;
        }
    }
    Some(signs)
}

/// RFC 7301 §3.1: no name is empty.
fn protocols(mut data: Cursor<'_>) -> Option<Box<[u8]>> {
    let length = data.u16()?;
    let list = data.take(length)?;
    let mut names = Cursor(list);
    while let Some(length) = names.u8() {
        names.take(length.into()).filter(|name| !name.is_empty())?;
    }
    Some(list.into())
}

/// Bytes not yet read; every read is bounds-checked.
struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (head, tail) = self.0.split_at_checked(count)?;
        self.0 = tail;
        Some(head)
    }

    fn u8(&mut self) -> Option<u8> {
        let (first, tail) = self.0.split_first()?;
        self.0 = tail;
        Some(*first)
    }

    fn u16(&mut self) -> Option<usize> {
        match self.take(2)? {
            [a, b] => Some(usize::from(*a) << 8 | usize::from(*b)),
            _ => None,
        }
    }

    fn u24(&mut self) -> Option<usize> {
        match self.take(3)? {
            [a, b, c] => Some(usize::from(*a) << 16 | usize::from(*b) << 8 | usize::from(*c)),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn block(length_bytes: usize, data: &[u8]) -> Vec<u8> {
        let mut out = data.len().to_be_bytes()[8 - length_bytes..].to_vec();
        out.extend_from_slice(data);
        out
    }

    fn message(name: &[u8], schemes: &[u8]) -> Vec<u8> {
        let entry = [&[0][..], &block(2, name)].concat();
        let sni = [&[0, 0][..], &block(2, &block(2, &entry))].concat();
        let signatures = [&[0, 13][..], &block(2, &block(2, schemes))].concat();
        let alpn = [&[0, 16][..], &block(2, &block(2, b"\x02h2\x08http/1.1"))].concat();
        let body = [
            &[3, 3][..],
            &[7; 32],
            &block(1, &[9; 32]),
            &block(2, &[0x13, 0x01]),
            &block(1, &[0]),
            &block(2, &[sni, signatures, alpn].concat()),
        ]
        .concat();
        [&[1][..], &block(3, &body)].concat()
    }

    fn in_records(message: &[u8], size: usize) -> Vec<u8> {
        message.chunks(size).flat_map(|part| [&[22, 3, 1][..], &block(2, part)].concat()).collect()
    }

    #[test]
    fn reads_name_and_signatures_also_across_records() {
        let message = message(b"Shop.Example.COM.", &[8, 4, 4, 3]);
        let want = ClientHello {
            server_name: Some("shop.example.com".into()),
            signs: Signs::Ecdsa,
            protocols: b"\x02h2\x08http/1.1"[..].into(),
        };
        assert_eq!(want.protocols().collect::<Vec<_>>(), [&b"h2"[..], b"http/1.1"]);
        for size in [1, 7, 100, 4000] {
            assert_eq!(parse(&in_records(&message, size)).unwrap(), want, "records of {size}");
        }
    }

    #[test]
    fn every_prefix_asks_for_more() {
        let bytes = in_records(&message(b"a.example", &[8, 4]), 40);
        for end in 0..bytes.len() {
            assert!(matches!(parse(&bytes[..end]), Err(HelloError::Incomplete)), "at {end}");
        }
        assert_eq!(parse(&bytes).unwrap().signs, Signs::Rsa);
    }

    #[test]
    fn what_is_not_tls_is_said_at_once() {
        assert!(matches!(parse(b"G"), Err(HelloError::NotTls)));
        assert!(matches!(parse(&[22, 2]), Err(HelloError::NotTls)));
        let bad_name = in_records(&message(b"a b", &[8, 4]), 4000);
        assert!(matches!(parse(&bad_name), Err(HelloError::Malformed)));
        assert!(matches!(parse(&[22, 3, 1, 0, 4, 1, 255, 255, 255]), Err(HelloError::TooLong)));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&bytes);
        }

        #[test]
        fn no_damage_makes_it_panic(at in 0usize..170, value: u8, size in 1usize..200) {
            let mut bytes = in_records(&message(b"a.example", &[4, 3]), size);
            if let Some(byte) = bytes.get_mut(at) {
                *byte = value;
            }
            let _ = parse(&bytes);
        }
    }
}
