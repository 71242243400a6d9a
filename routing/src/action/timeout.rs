//! How long an exchange may take.
//!
//! Invariant: only a gRPC client may shorten a route's limit; none may lengthen it. The clock, which is the caller's,
//! starts when the whole request has arrived (Envoy: the route's timeout).

use http::{HeaderMap, HeaderName, HeaderValue};
use std::time::Duration;

/// Where a gRPC client says how long it waits, and an upstream reads how long it may take.
pub const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

/// The limit from the end of the request to the end of the response; `None`: none (Istio's default). `grpc-timeout` of
/// a gRPC request counts, capped by the route's.
#[must_use]
pub fn limit(route: Option<Duration>, request: &HeaderMap, grpc: Protocol) -> Option<Duration> {
    let client = match grpc {
        Protocol::Grpc => request.get(GRPC_TIMEOUT).and_then(|v| parse(v.to_str().ok()?)),
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

/// A duration as `grpc-timeout` writes it: in milliseconds, or where those have too many digits in the next unit that
/// fits.
#[must_use]
pub fn to_grpc(time: Duration) -> HeaderValue {
    const MOST: u128 = 99_999_999;
    let units = [("m", 1), ("S", 1000), ("M", 60_000), ("H", 3_600_000)];
    let fits = units.iter().map(|(unit, millis)| (time.as_millis() / millis, unit)).find(|(n, _)| *n <= MOST);
    let text = fits.map_or_else(|| format!("{MOST}H"), |(n, unit)| format!("{n}{unit}"));
    // Digits and a letter always are a value.
    HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static("99999999H"))
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
    fn what_is_written_is_read() {
        for (time, text) in [
            (Duration::from_millis(1), "1m"),
            (Duration::from_secs(99_999), "99999000m"),
            (Duration::from_secs(100_000), "100000S"),
            (Duration::from_secs(100_000_000), "1666666M"),
            (Duration::MAX, "99999999H"),
        ] {
            assert_eq!(to_grpc(time), text);
            assert!(parse(text).unwrap() <= time);
        }
    }

    #[test]
    fn only_what_grpc_defines_is_read() {
        for bad in ["", "S", "5", "5x", "123456789S", "-1S", "+1S", "\u{e9}"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
