//! Revocation lists: which certificates are revoked, read from PEM by hand because the TLS library reads none.
//!
//! Invariant: total on any bytes. A list that cannot be read whole gives nothing, so that its server fails closed. Lists are
//! configuration: their signatures are not checked, nor are their dates.

use std::collections::HashSet;

use base64::{Engine, engine::general_purpose::STANDARD};

const SEQUENCE: u8 = 0x30;
const INTEGER: u8 = 0x02;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;

/// Issuer (as encoded) and serial number (big-endian, without leading zeros) of each revoked certificate; `None` when
/// the text is not whole lists.
pub(super) fn revoked(pem: &[u8]) -> Option<HashSet<(Vec<u8>, Vec<u8>)>> {
    let text = std::str::from_utf8(pem).ok()?;
    let mut all = HashSet::new();
    let mut rest = text;
    while let Some((_, after)) = rest.split_once("-----BEGIN X509 CRL-----") {
        let (body, after) = after.split_once("-----END X509 CRL-----")?;
        let encoded: String = body.chars().filter(|c| !c.is_whitespace()).collect();
        let der = STANDARD.decode(encoded).ok()?;
        list(&der, &mut all)?;
        rest = after;
    }
    // Something was written, and it is no list.
    if all.is_empty() && rest.len() == text.len() && !text.trim().is_empty() { None } else { Some(all) }
}

/// RFC 5280 §5.1.
fn list(der: &[u8], all: &mut HashSet<(Vec<u8>, Vec<u8>)>) -> Option<()> {
    let (_, whole, _) = element(der).filter(|(tag, ..)| *tag == SEQUENCE)?;
    let (_, mut rest, _) =
        element(whole.content).filter(|(tag, ..)| *tag == SEQUENCE).map(|(t, e, r)| (t, e.content, r))?;
    if rest.first() == Some(&INTEGER) {
        rest = element(rest)?.2;
    }
    // The signature's algorithm.
    rest = element(rest)?.2;
    let (tag, issuer, after) = element(rest)?;
    if tag != SEQUENCE {
        return None;
    }
    // This update, and perhaps the next.
    rest = element(after)?.2;
    if matches!(rest.first(), Some(&(UTC_TIME | GENERALIZED_TIME))) {
        rest = element(rest)?.2;
    }
    let Some((SEQUENCE, entries, _)) = element(rest) else { return Some(()) };
    let mut rest = entries.content;
    while !rest.is_empty() {
        let (_, entry, after) = element(rest)?;
        let (tag, serial, _) = element(entry.content)?;
        if tag != INTEGER {
            return None;
        }
        let significant = serial.content.iter().position(|b| *b != 0).unwrap_or(serial.content.len());
        all.insert((issuer.whole.to_vec(), serial.content.get(significant..)?.to_vec()));
        rest = after;
    }
    Some(())
}

struct Element<'d> {
    whole: &'d [u8],
    content: &'d [u8],
}

/// The first element of DER: its tag, itself, and what follows it.
fn element(der: &[u8]) -> Option<(u8, Element<'_>, &[u8])> {
    let (&tag, rest) = der.split_first()?;
    let (&first, mut rest) = rest.split_first()?;
    let mut length = usize::from(first);
    if first >= 0x80 {
        let count = usize::from(first & 0x7f);
        if count == 0 || count > 4 {
            return None;
        }
        let (bytes, after) = rest.split_at_checked(count)?;
        length = bytes.iter().fold(0, |n, b| n << 8 | usize::from(*b));
        rest = after;
    }
    let (content, after) = rest.split_at_checked(length)?;
    let whole = der.get(..der.len() - after.len())?;
    Some((tag, Element { whole, content }, after))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Made with OpenSSL: of `O = Limen, CN = test ca`, with one serial number, 1001.
    const LIST: &str = "\
-----BEGIN X509 CRL-----\n\
MIHQMHgCAQEwCgYIKoZIzj0EAwIwIjEOMAwGA1UECgwFTGltZW4xEDAOBgNVBAMM\n\
B3Rlc3QgY2EXDTI2MTEyMzE0MTY0MloXDTM2MTEyMDE0MTY0MlowFTATAgIQARcN\n\
MjYxMTIzMTQxNjQyWqAOMAwwCgYDVR0UBAMCAQEwCgYIKoZIzj0EAwIDSAAwRQIh\n\
AOMQfUWnq6LMsfl2PyPLqA/GByGVmyuqtiIK6uDksLN/AiAn4RZsmUWzjQerXi8T\n\
nvBjexn5/+eM7k6GfM0OW4pfyQ==\n\
-----END X509 CRL-----";

    #[test]
    fn a_list_names_its_issuer_and_the_serial_numbers() {
        let found = revoked(LIST.as_bytes()).unwrap();
        let [(issuer, serial)] = &found.into_iter().collect::<Vec<_>>()[..] else { panic!("not one") };
        assert_eq!(serial, &[0x10, 0x01]);
        assert!(issuer.windows(7).any(|part| part == b"test ca"));
        assert_eq!(revoked(b"").unwrap().len(), 0);
        assert_eq!(revoked([LIST, LIST].concat().as_bytes()).unwrap().len(), 1);
    }

    #[test]
    fn what_is_not_whole_gives_nothing() {
        for cut in 0..LIST.len() - 26 {
            let part = &LIST[..cut];
            assert!(revoked(part.as_bytes()).is_none_or(|found| found.is_empty()), "{part}");
        }
        assert_eq!(revoked(b"hello"), None);
    }
}
