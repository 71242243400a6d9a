//! Retries of an HTTP rule (Istio: ValidateHTTPRetry).

use super::{At, Check};
use crate::istio::{VirtualService, virtual_service::HttpRetry};

/// The conditions that Istio knows; numbers are status codes.
const CONDITIONS: [&str; 16] = [
    "5xx",
    "gateway-error",
    "reset",
    "reset-before-request",
    "connect-failure",
    "retriable-4xx",
    "refused-stream",
    "retriable-status-codes",
    "retriable-headers",
    "envoy-ratelimited",
    "http3-post-connect-failure",
    "cancelled",
    "deadline-exceeded",
    "internal",
    "resource-exhausted",
    "unavailable",
];

pub(super) fn check(check: &mut Check<'_, VirtualService>, path: At<'_>, retries: &HttpRetry) {
    if retries.attempts < 0 {
        check.error(format!("{path}.attempts"), "attempts cannot be negative");
    }
    let others = retries.per_try_timeout.is_some()
        || !retries.retry_on.is_empty()
        || retries.retry_remote_localities.is_some();
    if retries.attempts == 0 && others {
        check.refuse(
            path,
            "http retry policy configured when attempts are set to 0 (disabled)",
            "set attempts, or leave attempts: 0 alone to switch retries off",
        );
    }
    check.duration(format_args!("{path}.perTryTimeout"), retries.per_try_timeout);
    check.duration(format_args!("{path}.backoff"), retries.backoff);
    if retries.retry_on.is_empty() {
        return;
    }
    for token in retries.retry_on.split(',') {
        if CONDITIONS.contains(&token) || token.parse().is_ok_and(is_status) {
            continue;
        }
        let message = format!("{token:?} is not a valid retryOn policy");
        let path = format_args!("{path}.retryOn");
        match CONDITIONS.contains(&token.trim()) || token.trim().parse().is_ok_and(is_status) {
            true => check.refuse(path, message, "no blanks around the commas"),
            false => check.error(path, message),
        }
    }
}

/// The status codes that Go's net/http has a text for, which are all that Istio takes.
fn is_status(code: u16) -> bool {
    matches!(code,
        100..=103 | 200..=208 | 226 | 300..=305 | 307 | 308 | 400..=418 | 421..=426 | 428 | 429 | 431 | 451
        | 500..=508 | 510 | 511)
}

#[cfg(test)]
mod tests {
    use crate::validate::virtual_service::http::tests::rule;

    #[test]
    fn retries() {
        for (retries, finds) in [
            ("{attempts: 2, perTryTimeout: 2s, retryOn: '503,reset,unavailable', backoff: 25ms}", vec![]),
            ("{attempts: 0}", vec![]),
            ("{attempts: 0, retryOn: 5xx}", vec!["!IST0106 retries"]),
            ("{attempts: 0, retryRemoteLocalities: true}", vec!["!IST0106 retries"]),
            ("{attempts: -1}", vec!["!IST0106 retries.attempts"]),
            ("{attempts: 2, retryOn: '503, reset'}", vec!["!IST0106 retries.retryOn"]),
            ("{attempts: 2, retryOn: '299'}", vec!["!IST0106 retries.retryOn"]),
            ("{attempts: 2, retryOn: ','}", vec!["!IST0106 retries.retryOn", "!IST0106 retries.retryOn"]),
            ("{attempts: 2, perTryTimeout: 0.1ms}", vec!["!IST0106 retries.perTryTimeout"]),
            ("{attempts: 2, backoff: 1.0005s}", vec!["!IST0106 retries.backoff"]),
        ] {
            assert_eq!(rule(&format!("retries: {retries}")), finds, "{retries}");
        }
    }
}
