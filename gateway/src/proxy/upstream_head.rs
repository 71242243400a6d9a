//! Response heads that no client may get: what an upstream says that nobody asked for, or that two readers would read
//! differently.
//!
//! Invariant: a refused response becomes 502 and its connection is not used again. The engine has read the head by then, and has
//! dropped a length that stood beside a coding; what it forwards is framed anew in any case.

use super::ctx::Ctx;
use http::{HeaderMap, StatusCode, Version, header};
use pingora_error::{Error, ErrorType, Result};
use pingora_http::{RequestHeader, ResponseHeader};

/// Informational responses before the one that counts.
const MAX_INFORMATIONAL: u8 = 16;
/// Fields of a head, and bytes of them (Envoy's limits on both sides).
const MAX_FIELDS: usize = 100;
const MAX_BYTES: usize = 60 * 1024;

/// Looks at a head of an upstream.
///
/// # Errors
/// When it is refused; the error is the upstream's.
pub(super) fn check(request: &RequestHeader, head: &ResponseHeader, ctx: &mut Ctx) -> Result<()> {
    let refuse = |why: &'static str| {
        let mut error = Error::explain(ErrorType::InvalidHTTPHeader, why);
        error.as_up();
        Err(error)
    };
    if head.status == StatusCode::SWITCHING_PROTOCOLS {
        if !asked_for(request) {
            return refuse("another protocol that nobody asked for");
        }
    } else if head.status.is_informational() {
        ctx.informational = ctx.informational.saturating_add(1);
        if ctx.informational > MAX_INFORMATIONAL {
            return refuse("informational responses without end");
        }
        return Ok(());
    }
    match flaw(head.version, &head.headers) {
        Some(why) => refuse(why),
        None => Ok(()),
    }
}

/// The engine passes on requests for WebSockets only.
fn asked_for(request: &RequestHeader) -> bool {
    request
        .headers
        .get(header::UPGRADE)
        .is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"websocket"))
}

fn flaw(version: Version, headers: &HeaderMap) -> Option<&'static str> {
    if headers.len() > MAX_FIELDS {
        return Some("too many fields");
    }
    let (mut bytes, mut codings, mut lengths) = (0, 0, 0);
    let (mut chunked, mut list) = (true, false);
    // One look at each field in place of a look-up of each name.
    for (name, value) in headers {
        bytes += name.as_str().len() + value.len() + 4;
        if name == header::TRANSFER_ENCODING {
            codings += 1;
            chunked = value.as_bytes().eq_ignore_ascii_case(b"chunked");
        } else if name == header::CONTENT_LENGTH {
            lengths += 1;
            list |= value.as_bytes().contains(&b',');
        }
    }
    if bytes > MAX_BYTES {
        return Some("the head is too long");
    }
    if version == Version::HTTP_10 && codings > 0 {
        // RFC 9112 §6.1: somebody between changed the version.
        return Some("a transfer coding in HTTP/1.0");
    }
    if codings > 1 || !chunked {
        return Some("a transfer coding that nobody here can undo");
    }
    (lengths > 1 || list).then_some("several lengths")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::Snapshot;
    use std::sync::Arc;

    fn judged(upgrade: Option<&str>, status: u16, fields: &[(&'static str, &str)]) -> bool {
        let mut request = RequestHeader::build("GET", b"/", None).unwrap();
        if let Some(upgrade) = upgrade {
            request.insert_header("upgrade", upgrade).unwrap();
        }
        let mut head = ResponseHeader::build(status, None).unwrap();
        for (name, value) in fields {
            head.append_header(*name, *value).unwrap();
        }
        check(&request, &head, &mut Ctx::new(Arc::new(Snapshot::default()))).is_ok()
    }

    #[test]
    fn only_what_was_asked_for_and_is_read_in_one_way_goes_on() {
        assert!(judged(None, 200, &[("content-length", "2")]));
        assert!(judged(None, 200, &[("transfer-encoding", "Chunked")]));
        assert!(judged(Some("WebSocket"), 101, &[]));
        assert!(!judged(None, 101, &[]));
        assert!(!judged(Some("h2c"), 101, &[]));
        assert!(!judged(None, 200, &[("transfer-encoding", "gzip, chunked")]));
        assert!(!judged(None, 200, &[("transfer-encoding", "chunked"), ("transfer-encoding", "chunked")]));
        assert!(!judged(None, 200, &[("content-length", "2, 2")]));
        assert!(!judged(None, 200, &[("content-length", "2"), ("content-length", "2")]));
        assert!(!judged(None, 200, &[("x", &"a".repeat(70_000))]));
    }

    #[test]
    fn informational_responses_come_to_an_end() {
        let request = RequestHeader::build("GET", b"/", None).unwrap();
        let head = ResponseHeader::build(103, None).unwrap();
        let mut ctx = Ctx::new(Arc::new(Snapshot::default()));
        let passed = (0..100).take_while(|_| check(&request, &head, &mut ctx).is_ok()).count();
        assert_eq!(passed, usize::from(MAX_INFORMATIONAL));
    }
}
