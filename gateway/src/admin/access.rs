//! Who may ask the admin endpoints.
//!
//! Invariant: on a loopback address the machine's own users are trusted, but no page in their browser; on any other address
//! nobody is without the token. A token is compared by digest in constant time, and never printed.

use std::{fmt, io, net::IpAddr, net::SocketAddr, path::Path};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use boring::{memcmp, sha::sha256};
use http::{HeaderMap, HeaderValue, Request, StatusCode, header};

/// What is asked of clients of the admin endpoints.
#[derive(Clone, PartialEq, Eq)]
pub enum Access {
    /// They must be on this machine, and name it by address or as localhost.
    Local,
    /// They must show the token with this SHA-256.
    Token([u8; 32]),
    /// Nobody may: the address is open to others and there is no token.
    Closed,
}

impl fmt::Debug for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Access::Local => "Local",
            Access::Token(_) => "Token",
            Access::Closed => "Closed",
        })
    }
}

/// What a request may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Verdict {
    /// It is answered.
    Allow,
    /// It is refused with this status, and a sentence that says why.
    Refuse(StatusCode, &'static str),
}

impl Access {
    /// The rule for endpoints at `address`, with the token in `file` where one is given. Space around the token does not count.
    ///
    /// # Errors
    /// When the file cannot be read, or is empty.
    pub fn new(address: SocketAddr, file: Option<&Path>) -> io::Result<Access> {
        let Some(file) = file else {
            return Ok(if address.ip().is_loopback() { Access::Local } else { Access::Closed });
        };
        let text = std::fs::read(file)?;
        let token = text.trim_ascii();
        if token.is_empty() {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the file is empty"));
        }
        Ok(Access::Token(sha256(token)))
    }

    /// Judges a request by who sends it.
    pub fn judge<B>(&self, request: &Request<B>) -> Verdict {
        match self {
            Access::Local if is_local_name(request) => Verdict::Allow,
            // A page in a browser on this machine could otherwise turn the gateway by a name that resolves to it.
            Access::Local => {
                Verdict::Refuse(StatusCode::FORBIDDEN, "the Host header must be an address or localhost\n")
            }
            Access::Token(digest) => match shown(request.headers()) {
                Some(token) if memcmp::eq(&sha256(&token), digest) => Verdict::Allow,
                _ => Verdict::Refuse(StatusCode::UNAUTHORIZED, "this address asks for the admin token\n"),
            },
            Access::Closed => Verdict::Refuse(
                StatusCode::UNAUTHORIZED,
                "this address is not a loopback address: start with --admin-token-file\n",
            ),
        }
    }
}

/// Judges a request that changes something: another site's page must not make a browser send it (which would add credentials
/// that it knows, and can reach loopback).
pub(super) fn judge_origin<B>(request: &Request<B>) -> Verdict {
    let text = |name: header::HeaderName| request.headers().get(name).map(HeaderValue::as_bytes);
    let foreign = Verdict::Refuse(StatusCode::FORBIDDEN, "refused: sent by the page of another site\n");
    let site = request.headers().get("sec-fetch-site").map(HeaderValue::as_bytes);
    if site.is_some_and(|site| site != b"same-origin" && site != b"none") {
        return foreign;
    }
    let Some(origin) = text(header::ORIGIN) else { return Verdict::Allow };
    let authority = origin.strip_prefix(b"http://").or_else(|| origin.strip_prefix(b"https://"));
    match (authority, text(header::HOST)) {
        (Some(authority), Some(host)) if authority.eq_ignore_ascii_case(host) => Verdict::Allow,
        _ => foreign,
    }
}

/// The token that a client shows: `Bearer TOKEN`, or `Basic` with it as the password, which is what browsers can ask for.
fn shown(headers: &HeaderMap) -> Option<Vec<u8>> {
    let value = headers.get(header::AUTHORIZATION)?.as_bytes();
    let space = value.iter().position(|byte| *byte == b' ')?;
    let (scheme, rest) = value.split_at_checked(space)?;
    let rest = rest.trim_ascii();
    if scheme.eq_ignore_ascii_case(b"bearer") {
        return Some(rest.to_vec());
    }
    if !scheme.eq_ignore_ascii_case(b"basic") {
        return None;
    }
    let pair = STANDARD.decode(rest).ok()?;
    let colon = pair.iter().position(|byte| *byte == b':')?;
    pair.get(colon + 1..).map(<[u8]>::to_vec)
}

/// Whether the request names us by address, or as localhost: what a rebound DNS name cannot do.
fn is_local_name<B>(request: &Request<B>) -> bool {
    let Some(host) = request.headers().get(header::HOST) else { return true };
    let Ok(host) = host.to_str() else { return false };
    let host = routing::host::without_port(host).trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost") || host.parse::<IpAddr>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(headers: &[(&str, &str)]) -> Request<()> {
        let mut request = Request::builder();
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap()
    }

    fn status(verdict: Verdict) -> u16 {
        match verdict {
            Verdict::Allow => 200,
            Verdict::Refuse(status, _) => status.as_u16(),
        }
    }

    #[test]
    fn an_address_for_others_takes_the_token_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("token");
        std::fs::write(&file, "swordfish\n").unwrap();
        let access = Access::new(([0, 0, 0, 0], 1).into(), Some(&file)).unwrap();
        let ask = |value: &str| {
            status(access.judge(&request(&[("host", "gate.example"), ("authorization", value)])))
        };
        assert_eq!(ask("Bearer swordfish"), 200);
        assert_eq!(ask("bearer  swordfish"), 200);
        assert_eq!(ask(&format!("Basic {}", STANDARD.encode("any:swordfish"))), 200);
        for wrong in
            ["Bearer swordfis", "Bearer swordfish2", "Bearer", "swordfish", "Basic !", "Digest swordfish"]
        {
            assert_eq!(ask(wrong), 401, "{wrong}");
        }
        assert_eq!(status(access.judge(&request(&[("host", "localhost")]))), 401);
        assert!(!format!("{access:?}").contains("115"), "the digest is not shown either");
        let closed = Access::new(([0, 0, 0, 0], 1).into(), None).unwrap();
        assert_eq!(status(closed.judge(&request(&[("authorization", "Bearer swordfish")]))), 401);
        std::fs::write(&file, " \n").unwrap();
        assert!(Access::new(([127, 0, 0, 1], 1).into(), Some(&file)).is_err());
        assert_eq!(Access::new(([127, 0, 0, 1], 1).into(), None).unwrap(), Access::Local);
    }

    #[test]
    fn another_sites_page_changes_nothing() {
        let judge = |headers: &[(&str, &str)]| status(judge_origin(&request(headers)));
        assert_eq!(judge(&[("host", "localhost:15000")]), 200, "curl sends no Origin");
        let here = ("host", "localhost:15000");
        assert_eq!(judge(&[here, ("origin", "http://localhost:15000")]), 200);
        for origin in
            ["http://evil.example", "http://localhost:3000", "null", "http://localhost:15000.evil.example"]
        {
            assert_eq!(judge(&[here, ("origin", origin)]), 403, "{origin}");
        }
        assert_eq!(judge(&[here, ("sec-fetch-site", "cross-site")]), 403);
        assert_eq!(judge(&[here, ("sec-fetch-site", "same-origin")]), 200);
    }
}
