//! How long an exchange may take.
//!
//! Invariant: only a gRPC client may shorten a route's limit; none may lengthen it. The clock, which is the caller's,
//! starts when the whole request has arrived (Envoy: the route's timeout).

use http::HeaderMap;
use std::time::Duration;

/// The limit from the end of the request to the end of the response; `None`: none (Istio's default). `grpc-timeout` of
/// a gRPC request counts, capped by the route's.
#[must_use]
pub fn limit(route: Option<Duration>, request: &HeaderMap, grpc: Protocol) -> Option<Duration> {
    let client = match grpc {
        Protocol::Grpc => request.get("grpc-timeout").and_then(|v| parse(v.to_str().ok()?)),
        Protocol::Other => None,
    };
    match (route, client.filter(|t| !t.is_zero())) {
        (Some(r), Some(c)) => Some(r.min(c)),
        (r, c) => r.or(c),
    }
}

/// What a client speaks over HTTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// gRPC, told by its content type.
    Grpc,
    /// Anything else.
    Other,
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

    fn request(grpc_timeout: &str) -> HeaderMap {
        HeaderMap::from_iter([("grpc-timeout".parse().unwrap(), grpc_timeout.parse().unwrap())])
    }

    #[test]
    fn a_grpc_client_may_shorten_but_not_lengthen() {
        let second = Some(Duration::from_secs(1));
        assert_eq!(limit(second, &request("100m"), Protocol::Grpc), Some(Duration::from_millis(100)));
        assert_eq!(limit(second, &request("5S"), Protocol::Grpc), second);
        assert_eq!(limit(None, &request("5S"), Protocol::Grpc), Some(Duration::from_secs(5)));
        assert_eq!(limit(None, &request("5S"), Protocol::Other), None);
        assert_eq!(limit(None, &request("x"), Protocol::Grpc), None);
    }

    #[test]
    fn only_what_grpc_defines_is_read() {
        for bad in ["", "S", "5", "5x", "123456789S", "-1S", "+1S", "\u{e9}"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
