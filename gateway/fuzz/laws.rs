//! What must hold for any bytes: the bodies of the fuzz targets, shared with the tests of the gateway.
//!
//! Invariant: a law is more than "no panic": what is read does not depend on how it was cut, nothing is read twice, and what is
//! accepted is in its one form.

use crate::{
    edge::{EscapedSlashes, PathPolicy},
    listener::{
        http1::{HeadPolicy, Leniency, Reader, Stop, Underscores, is_authority},
        proxy_header::parse as proxy_header_parse,
    },
    proxy::{
        forwarded_for,
        normalize::{Normal, normalize},
    },
    tls::client_hello as hello,
};

/// A stream of requests is read alike however it was cut, and nothing behind a refusal is let through.
pub fn http1(bytes: &[u8]) {
    let Some((&how, rest)) = bytes.split_first() else { return };
    let Some((&cut, bytes)) = rest.split_first() else { return };
    let bit = |n: u8| if how >> n & 1 == 1 { Leniency::Serve } else { Leniency::Refuse };
    let policy = HeadPolicy {
        max_bytes: 1024,
        max_fields: 20,
        underscores: match how >> 6 {
            0 | 1 => Underscores::Allow,
            2 => Underscores::Refuse,
            _ => Underscores::Drop,
        },
        http10: bit(0),
        trace: bit(1),
        bare_lf: bit(2),
    };
    let whole = read(policy, &[bytes]);
    let at = usize::from(cut).min(bytes.len());
    let (first, second) = bytes.split_at(at);
    alike(&whole, &read(policy, &[first, second]));
    let crumbs: Vec<&[u8]> = bytes.chunks(usize::from(cut % 7) + 1).collect();
    alike(&whole, &read(policy, &crumbs));
}

/// The same, but that of a bad body more or less may have gone through before it showed.
fn alike(a: &(Vec<u8>, bool, u64), b: &(Vec<u8>, bool, u64)) {
    assert_eq!((a.1, a.2), (b.1, b.2), "{:?} {:?}", a.0.escape_ascii(), b.0.escape_ascii());
    let common = if a.1 { a.0.len().min(b.0.len()) } else { usize::MAX };
    let begin = |out: &Vec<u8>| out[..common.min(out.len())].to_vec();
    assert_eq!(begin(&a.0), begin(&b.0));
}

/// What the engine would get of a client that sends these pieces, whether the client was refused, and how many heads there were.
fn read(policy: HeadPolicy, pieces: &[&[u8]]) -> (Vec<u8>, bool, u64) {
    let mut reader = Reader::new(policy);
    let (mut out, mut held) = (Vec::new(), Vec::new());
    let mut bad = false;
    for piece in pieces {
        held.extend_from_slice(piece);
        while !bad && !reader.is_refused() && !held.is_empty() {
            let (approved, stop) = reader.read(&held);
            assert!(approved <= held.len());
            out.extend(held.drain(..approved));
            match stop {
                Stop::All => assert!(held.is_empty()),
                Stop::Unfinished => break,
                // The law has an upstream that never switches.
                Stop::Undecided => reader.answered(false),
                Stop::Rewritten { len, head } => {
                    assert!(len <= held.len() && len > 0);
                    held.drain(..len);
                    out.extend(head);
                }
                Stop::Refused { .. } | Stop::BadBody(_) => bad = true,
            }
        }
    }
    (out, bad || reader.is_refused(), reader.heads())
}

/// A ClientHello is the same whatever follows, every part of it asks for more, and its name is in one form.
pub fn client_hello(bytes: &[u8]) {
    let Ok(found) = hello::parse(bytes) else { return };
    let longer = [bytes, b"what follows"].concat();
    assert_eq!(hello::parse(&longer).ok().as_ref(), Some(&found));
    if let Some(name) = &found.server_name {
        assert!(name.len() <= 255 && !name.ends_with("..") && !name.bytes().any(|b| b.is_ascii_uppercase()));
        assert!(name.bytes().all(|b| b.is_ascii_graphic() && !matches!(b, b'/' | b'@' | b':' | b',')));
    }
    assert!(found.protocols().all(|name| !name.is_empty() && name.len() < 256));
    let enough = (0..=bytes.len()).find(|end| hello::parse(&bytes[..*end]).is_ok());
    for end in 0..enough.unwrap_or(0) {
        assert!(matches!(hello::parse(&bytes[..end]), Err(hello::HelloError::Incomplete)), "{end}");
    }
}

/// A PROXY header ends where it ends whatever follows, and every part of it asks for more.
pub fn proxy_header(bytes: &[u8]) {
    let Ok(Some((said, used))) = proxy_header_parse::parse(bytes) else { return };
    assert!(used <= bytes.len());
    assert_eq!(proxy_header_parse::parse(&bytes[..used]), Ok(Some((said, used))));
    for end in 0..used {
        assert_eq!(proxy_header_parse::parse(&bytes[..end]), Ok(None), "{end}");
    }
    if let Some((source, destination)) = said {
        assert_eq!(source.is_ipv4(), destination.is_ipv4());
    }
}

/// A normalised path is its own normal form, under every policy.
pub fn path(bytes: &[u8]) {
    let Some((&how, path)) = bytes.split_first() else { return };
    let Ok(path) = std::str::from_utf8(path) else { return };
    let policy = PathPolicy {
        normalize: how & 1 == 1,
        merge_slashes: how & 2 == 2,
        escaped_slashes: match how >> 2 & 3 {
            0 => EscapedSlashes::Keep,
            1 => EscapedSlashes::Refuse,
            2 => EscapedSlashes::Redirect,
            _ => EscapedSlashes::Decode,
        },
    };
    let normal = match normalize(path, &policy) {
        Ok(Normal::Path(normal)) => normal.into_owned(),
        Ok(Normal::Redirect(normal)) => {
            assert_ne!(normal, path, "a redirect to itself would never end");
            normal
        }
        Err(_) => return,
    };
    assert!(normal.starts_with('/') || !policy.normalize, "{normal:?}");
    if policy.normalize {
        assert!(!normal.contains('\\') && !normal.contains("/../") && !normal.contains("/./"), "{normal:?}");
        assert!(!normal.ends_with("/..") && !normal.ends_with("/."), "{normal:?}");
    }
    if policy.merge_slashes {
        assert!(!normal.contains("//"), "{normal:?}");
    }
    assert_eq!(normalize(&normal, &policy), Ok(Normal::Path(normal.as_str().into())), "of {path:?}");
}

/// An authority holds nothing that one reader would take for the end of the host, and what trusted proxies say about the client
/// does not change when the client adds to it.
pub fn names(bytes: &[u8]) {
    if is_authority(bytes) {
        assert!(bytes.iter().all(|b| b.is_ascii_graphic()));
        assert!(!bytes.iter().any(|b| b"@/?#,\\%\"<>{}|^`".contains(b)), "{bytes:?}");
        let lower = bytes.to_ascii_lowercase();
        assert!(is_authority(&lower));
        let colons = bytes.iter().filter(|b| **b == b':').count();
        assert!(colons <= 1 || bytes.starts_with(b"["), "{bytes:?}");
    }
    let Some((&hops, said)) = bytes.split_first() else { return };
    let Ok(said) = std::str::from_utf8(said) else { return };
    let hops = usize::from(hops % 4);
    let client = forwarded_for::client([said.as_bytes()], hops);
    assert_eq!(forwarded_for::client([said.as_bytes(), b"192.0.2.1"], hops + 1), client, "{said:?}");
    let entries = said.split(',').count();
    if hops < entries {
        assert_eq!(
            forwarded_for::client([b"6.6.6.6", said.as_bytes()], hops),
            client,
            "a client's words moved the end"
        );
    }
    if let Some(client) = client {
        assert!(said.split(',').any(|entry| entry.trim().parse() == Ok(client)), "{said:?}");
    }
}
