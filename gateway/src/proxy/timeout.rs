//! How long an exchange may take.
//!
//! Invariant: only a gRPC client may shorten a route's timeout; none may lengthen it.

use pingora_http::RequestHeader;
use std::time::Duration;

/// The limit on a request; `None`: none (Istio's default). `grpc-timeout` counts for gRPC, capped by the route's.
pub(super) fn effective(route: Option<Duration>, request: &RequestHeader, grpc: bool) -> Option<Duration> {
    let route = route.filter(|t| !t.is_zero());
    let client = grpc
        .then(|| request.headers.get("grpc-timeout")?.to_str().ok().and_then(parse))
        .flatten()
        .filter(|t| !t.is_zero());
    match (route, client) {
        (Some(r), Some(c)) => Some(r.min(c)),
        (r, c) => r.or(c),
    }
}

/// At most eight digits and a unit (gRPC over HTTP/2: `TimeoutValue TimeoutUnit`).
fn parse(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let n: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(n * 3600),
        "M" => Duration::from_secs(n * 60),
        "S" => Duration::from_secs(n),
        "m" => Duration::from_millis(n),
        "u" => Duration::from_micros(n),
        "n" => Duration::from_nanos(n),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(grpc_timeout: &str) -> RequestHeader {
        let mut r = RequestHeader::build("POST", b"/", None).unwrap();
        r.insert_header("grpc-timeout", grpc_timeout).unwrap();
        r
    }

    #[test]
    fn a_grpc_client_may_shorten_but_not_lengthen() {
        let second = Some(Duration::from_secs(1));
        assert_eq!(effective(second, &request("100m"), true), Some(Duration::from_millis(100)));
        assert_eq!(effective(second, &request("5S"), true), second);
        assert_eq!(effective(None, &request("5S"), true), Some(Duration::from_secs(5)));
        assert_eq!(effective(None, &request("5S"), false), None);
        assert_eq!(effective(Some(Duration::ZERO), &request("x"), true), None);
    }

    #[test]
    fn only_what_grpc_defines_is_read() {
        for bad in ["", "S", "5", "5x", "123456789S", "-1S", "+1S", "\u{e9}"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
