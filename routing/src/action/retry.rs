//! `retries`: after which failures another attempt is made, and when.
//!
//! Invariant: the policy knows no method and no clock: whoever asks has seen to it that nothing of a response has gone
//! to the client and that the request can be sent again. Counting attempts is the caller's too.

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use std::time::Duration;

/// When to try again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Attempts after the first; at least 1.
    pub retries: u32,
    /// After what.
    pub on: Conditions,
    /// Response statuses that are retried, by number.
    pub statuses: Box<[u16]>,
    /// Limit on each attempt until its response begins; `None`: the route's alone.
    pub per_try_timeout: Option<Duration>,
    /// Base of the exponential back-off; the most is ten times as much.
    pub base: Duration,
    /// Whether an endpoint that was tried may be tried again.
    pub previous_hosts: PreviousHosts,
    /// Where other endpoints are looked for.
    pub localities: Localities,
}

/// Whether an endpoint that was tried may be tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PreviousHosts {
    /// Not while there is another.
    Avoid,
    /// Yes.
    Allow,
    /// As for [`Self::Avoid`], unless the cluster's balancer is a consistent hash, which they would defeat (Istio's
    /// default).
    AvoidUnlessHashed,
}

/// Where a retry looks for endpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Localities {
    /// Where the first attempt did.
    Same,
    /// Localities of earlier attempts last (`retryRemoteLocalities`).
    Remote,
}

/// What policy says to an attempt that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Verdict {
    /// Make another attempt if there may be one.
    Retry,
    /// This is the result.
    Keep,
}

/// How an attempt ended without a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reset {
    /// No connection: refused, unreachable, timed out, or TLS failed.
    ConnectFailure,
    /// The upstream said that it did not look at the request (HTTP/2 `REFUSED_STREAM`).
    RefusedStream,
    /// Cut before the request's head had gone out.
    BeforeRequest,
    /// Cut, or timed out, after that.
    AfterRequest,
    /// The cluster's own limits: never retried.
    Overflow,
}

/// A set of conditions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Conditions(u16);

/// The conditions of `retryOn`, by name. Those that are read and never hold are those of things that this gateway has
/// not: `http3-post-connect-failure`.
const NAMES: [(&str, Conditions); 16] = [
    ("5xx", Conditions::FIVE_XX),
    ("gateway-error", Conditions::GATEWAY_ERROR),
    ("reset", Conditions::RESET),
    ("reset-before-request", Conditions::RESET_BEFORE_REQUEST),
    ("connect-failure", Conditions::CONNECT_FAILURE),
    ("envoy-ratelimited", Conditions::RATE_LIMITED),
    ("retriable-4xx", Conditions::RETRIABLE_4XX),
    ("refused-stream", Conditions::REFUSED_STREAM),
    ("retriable-status-codes", Conditions::STATUS_CODES),
    // Read, and never true: the API has no field that would name the headers.
    ("retriable-headers", Conditions(0)),
    ("http3-post-connect-failure", Conditions(0)),
    ("cancelled", Conditions::CANCELLED),
    ("deadline-exceeded", Conditions::DEADLINE_EXCEEDED),
    ("internal", Conditions::INTERNAL),
    ("resource-exhausted", Conditions::RESOURCE_EXHAUSTED),
    ("unavailable", Conditions::UNAVAILABLE),
];

impl Conditions {
    /// Any 5xx, or no response.
    pub const FIVE_XX: Self = Self(1);
    /// 502, 503, 504, or no response.
    pub const GATEWAY_ERROR: Self = Self(1 << 1);
    /// No response.
    pub const RESET: Self = Self(1 << 2);
    /// No response, and the request had not been sent.
    pub const RESET_BEFORE_REQUEST: Self = Self(1 << 3);
    /// No connection.
    pub const CONNECT_FAILURE: Self = Self(1 << 4);
    /// `x-envoy-ratelimited` on the response, which is never retried otherwise.
    pub const RATE_LIMITED: Self = Self(1 << 5);
    /// 409.
    pub const RETRIABLE_4XX: Self = Self(1 << 6);
    /// HTTP/2 `REFUSED_STREAM`.
    pub const REFUSED_STREAM: Self = Self(1 << 7);
    /// A status of the policy's list.
    pub const STATUS_CODES: Self = Self(1 << 8);
    /// gRPC status 1 in the response's head.
    pub const CANCELLED: Self = Self(1 << 9);
    /// gRPC status 4.
    pub const DEADLINE_EXCEEDED: Self = Self(1 << 10);
    /// gRPC status 13.
    pub const INTERNAL: Self = Self(1 << 11);
    /// gRPC status 8.
    pub const RESOURCE_EXHAUSTED: Self = Self(1 << 12);
    /// gRPC status 14.
    pub const UNAVAILABLE: Self = Self(1 << 13);

    const GRPC: Self = Self::CANCELLED
        .and(Self::DEADLINE_EXCEEDED)
        .and(Self::INTERNAL)
        .and(Self::RESOURCE_EXHAUSTED)
        .and(Self::UNAVAILABLE);

    /// Both.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    fn has_any(self, of: Self) -> bool {
        self.0 & of.0 != 0
    }

    /// The names of the conditions, as in `retryOn`.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        NAMES.iter().filter(move |(_, condition)| self.has_any(*condition)).map(|(name, _)| *name)
    }
}

impl RetryPolicy {
    /// Back-off where none is given (Istio's, which is Envoy's).
    pub const BASE: Duration = Duration::from_millis(25);

    /// Istio's own where neither the rule nor the mesh says anything (Istio: retry.go `DefaultPolicy`).
    #[must_use]
    pub fn istio_default() -> Self {
        Self {
            retries: 2,
            on: Conditions::CONNECT_FAILURE
                .and(Conditions::REFUSED_STREAM)
                .and(Conditions::UNAVAILABLE)
                .and(Conditions::CANCELLED)
                .and(Conditions::STATUS_CODES),
            statuses: [].into(),
            per_try_timeout: None,
            base: Self::BASE,
            previous_hosts: PreviousHosts::AvoidUnlessHashed,
            localities: Localities::Same,
        }
    }

    /// Conditions and statuses of a `retryOn` list; the default's where it is empty. What is neither a condition nor a
    /// number is passed over, as Istio does (retry.go `parseRetryOn`).
    #[must_use]
    pub fn parse_on(list: &str) -> (Conditions, Box<[u16]>) {
        if list.is_empty() {
            let Self { on, statuses, .. } = Self::istio_default();
            return (on, statuses);
        }
        let mut on = Conditions::default();
        let mut statuses = Vec::new();
        for token in list.split(',').map(str::trim) {
            if let Some((_, condition)) = NAMES.iter().find(|(name, _)| *name == token) {
                on = on.and(*condition);
            } else if let Some(status) = token.parse().ok().filter(|s| StatusCode::from_u16(*s).is_ok()) {
                on = on.and(Conditions::STATUS_CODES);
                statuses.push(status);
            }
        }
        (on, statuses.into())
    }

    /// Judges a response by its head (Envoy: retry_state_impl.cc `wouldRetryFromHeaders`).
    pub fn on_response(&self, status: StatusCode, headers: &HeaderMap) -> Verdict {
        let code = status.as_u16();
        let mut of = Conditions::default();
        if (500..600).contains(&code) {
            of = of.and(Conditions::FIVE_XX);
        }
        if (502..=504).contains(&code) {
            of = of.and(Conditions::GATEWAY_ERROR);
        }
        if code == 409 {
            of = of.and(Conditions::RETRIABLE_4XX);
        }
        if self.statuses.contains(&code) {
            of = of.and(Conditions::STATUS_CODES);
        }
        if self.on.has_any(Conditions::GRPC) {
            of = of.and(grpc_condition(headers));
        }
        if !self.on.has_any(of.and(Conditions::RATE_LIMITED)) {
            return Verdict::Keep;
        }
        // A refusal for load is not made better by more of it.
        if headers.contains_key("x-envoy-overloaded") {
            return Verdict::Keep;
        }
        if headers.contains_key("x-envoy-ratelimited") {
            return self.when(Conditions::RATE_LIMITED);
        }
        self.when(of)
    }

    /// Judges the lack of a response (Envoy: `wouldRetryFromReset`).
    pub fn on_reset(&self, reset: Reset) -> Verdict {
        // Envoy counts every lack of a response as the 503 or 504 that it ends in.
        let any = Conditions::FIVE_XX.and(Conditions::GATEWAY_ERROR).and(Conditions::RESET);
        match reset {
            Reset::Overflow => Verdict::Keep,
            Reset::ConnectFailure => {
                self.when(any.and(Conditions::CONNECT_FAILURE).and(Conditions::RESET_BEFORE_REQUEST))
            }
            Reset::RefusedStream => self.when(any.and(Conditions::REFUSED_STREAM)),
            Reset::BeforeRequest => self.when(any.and(Conditions::RESET_BEFORE_REQUEST)),
            Reset::AfterRequest => self.when(any),
        }
    }

    /// The pause before retry `n`, from 1: full jitter in [0, base·2ⁿ⁻¹), at most ten times the base (Envoy:
    /// `JitteredExponentialBackOffStrategy`). `entropy` is uniform over all of `u64`.
    #[must_use]
    pub fn backoff(&self, n: u32, entropy: u64) -> Duration {
        let most = self
            .base
            .saturating_mul(2_u32.saturating_pow(n.saturating_sub(1)))
            .min(self.base.saturating_mul(10));
        let nanos = (most.as_nanos().min(u128::from(u64::MAX)) * u128::from(entropy)) >> 64;
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    fn when(&self, of: Conditions) -> Verdict {
        if self.on.has_any(of) { Verdict::Retry } else { Verdict::Keep }
    }
}

/// The condition of the gRPC status in a head: a response without messages.
fn grpc_condition(headers: &HeaderMap) -> Conditions {
    const STATUS: HeaderName = HeaderName::from_static("grpc-status");
    match headers.get(STATUS).map(HeaderValue::as_bytes) {
        Some(b"1") => Conditions::CANCELLED,
        Some(b"4") => Conditions::DEADLINE_EXCEEDED,
        Some(b"8") => Conditions::RESOURCE_EXHAUSTED,
        Some(b"13") => Conditions::INTERNAL,
        Some(b"14") => Conditions::UNAVAILABLE,
        _ => Conditions::default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RESETS: [Reset; 4] =
        [Reset::ConnectFailure, Reset::RefusedStream, Reset::BeforeRequest, Reset::AfterRequest];

    fn policy(on: &str) -> RetryPolicy {
        let (on, statuses) = RetryPolicy::parse_on(on);
        RetryPolicy { on, statuses, ..RetryPolicy::istio_default() }
    }

    fn answers(on: &str, status: u16, headers: &[(&'static str, &str)]) -> Verdict {
        let headers = headers.iter().map(|(k, v)| (HeaderName::from_static(k), v.parse().unwrap())).collect();
        policy(on).on_response(StatusCode::from_u16(status).unwrap(), &headers)
    }

    #[test]
    fn each_condition_takes_its_responses() {
        for (on, status, header, want) in [
            ("5xx", 500, None, Verdict::Retry),
            ("5xx", 499, None, Verdict::Keep),
            ("gateway-error", 502, None, Verdict::Retry),
            ("gateway-error", 504, None, Verdict::Retry),
            ("gateway-error", 500, None, Verdict::Keep),
            ("retriable-4xx", 409, None, Verdict::Retry),
            ("retriable-4xx", 404, None, Verdict::Keep),
            ("418", 418, None, Verdict::Retry),
            ("reset,418, 503 ", 503, None, Verdict::Retry),
            ("retriable-status-codes", 503, None, Verdict::Keep),
            ("", 503, None, Verdict::Keep),
            ("", 200, Some(("grpc-status", "14")), Verdict::Retry),
            ("", 200, Some(("grpc-status", "1")), Verdict::Retry),
            ("", 200, Some(("grpc-status", "13")), Verdict::Keep),
            ("internal", 200, Some(("grpc-status", "13")), Verdict::Retry),
            ("resource-exhausted", 200, Some(("grpc-status", "8")), Verdict::Retry),
            ("deadline-exceeded", 200, Some(("grpc-status", "4")), Verdict::Retry),
            ("5xx", 503, Some(("x-envoy-overloaded", "true")), Verdict::Keep),
            ("5xx", 503, Some(("x-envoy-ratelimited", "true")), Verdict::Keep),
            ("envoy-ratelimited", 429, Some(("x-envoy-ratelimited", "true")), Verdict::Retry),
        ] {
            let headers: Vec<_> = header.into_iter().collect();
            assert_eq!(answers(on, status, &headers), want, "{on:?} {status} {headers:?}");
        }
    }

    #[test]
    fn each_condition_takes_its_resets() {
        for (on, taken) in [
            ("5xx", [true; 4]),
            ("gateway-error", [true; 4]),
            ("reset", [true; 4]),
            ("reset-before-request", [true, false, true, false]),
            ("connect-failure", [true, false, false, false]),
            ("refused-stream", [false, true, false, false]),
            ("", [true, true, false, false]),
            ("503", [false; 4]),
        ] {
            let got = RESETS.map(|reset| policy(on).on_reset(reset) == Verdict::Retry);
            assert_eq!(got, taken, "{on:?}");
        }
        assert_eq!(policy("5xx,reset,connect-failure").on_reset(Reset::Overflow), Verdict::Keep);
    }

    #[test]
    fn the_pause_grows_to_ten_times_the_base() {
        let policy = policy("");
        assert_eq!(policy.backoff(1, 0), Duration::ZERO);
        let most = [1, 2, 3, 4, 5, 30].map(|n| policy.backoff(n, u64::MAX).as_micros());
        assert_eq!(most, [24_999, 49_999, 99_999, 199_999, 249_999, 249_999]);
    }

    #[test]
    fn conditions_have_names() {
        let names: Vec<_> = policy("5xx,unavailable,418,what").on.names().collect();
        assert_eq!(names, ["5xx", "retriable-status-codes", "unavailable"]);
    }
}
