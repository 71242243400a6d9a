//! One HTTP rule of a VirtualService: which parts it may combine, and each part.

use super::{super::check::Check, action, destination, matching, weights};
use crate::{
    istio::{
        VirtualService,
        virtual_service::{
            CorsPolicy, FaultAbort, FaultDelay, HeaderOperations, Headers, HttpRetry, HttpRoute,
        },
    },
    scalar::{Duration, HeaderName, Percent, StringMatch},
};

type Checks<'a, 'b> = &'a mut Check<'b, VirtualService>;

pub(super) fn check(check: Checks<'_, '_>, path: &str, route: &HttpRoute, is_delegate: bool, on_mesh: bool) {
    action::check(check, path, route, is_delegate);
    for (index, entry) in route.matches.iter().enumerate() {
        matching::check(check, &format!("{path}.match[{index}]"), entry, on_mesh);
    }
    for (index, to) in route.route.iter().enumerate() {
        let path = format!("{path}.route[{index}]");
        destination(check, &format!("{path}.destination"), &to.destination);
        headers(check, &format!("{path}.headers"), to.headers.as_ref());
    }
    weights(check, &format!("{path}.route"), route.route.iter().map(|to| to.weight));
    headers(check, &format!("{path}.headers"), route.headers.as_ref());
    authority_once(check, path, route);
    check.duration(&format!("{path}.timeout"), route.timeout);
    if let Some(retries) = &route.retries {
        retry(check, &format!("{path}.retries"), retries);
    }
    if let Some(cors) = &route.cors_policy {
        cors_policy(check, &format!("{path}.corsPolicy"), cors);
    }
    if let Some(fault) = &route.fault {
        if fault.delay.is_none() && fault.abort.is_none() {
            check.error(format!("{path}.fault"), "a fault needs delay or abort");
        }
        if let Some(delay) = &fault.delay {
            fault_delay(check, &format!("{path}.fault.delay"), delay);
        }
        if let Some(abort) = &fault.abort {
            fault_abort(check, &format!("{path}.fault.abort"), abort);
        }
    }
    mirrors(check, path, route);
}

fn mirrors(check: Checks<'_, '_>, path: &str, route: &HttpRoute) {
    if route.mirror.is_some() && !route.mirrors.is_empty() {
        check.error(format!("{path}.mirrors"), "mirror and mirrors cannot be used together");
    }
    if let Some(mirror) = &route.mirror {
        destination(check, &format!("{path}.mirror"), mirror);
    }
    for (index, mirror) in route.mirrors.iter().enumerate() {
        destination(check, &format!("{path}.mirrors[{index}].destination"), &mirror.destination);
    }
    if let Some(percent) = route.mirror_percent {
        check.deprecated(format!("{path}.mirrorPercent"), "use mirrorPercentage");
        if percent > 100 {
            check.error(format!("{path}.mirrorPercent"), "the percentage is above 100");
        }
    }
}

fn headers(check: Checks<'_, '_>, path: &str, headers: Option<&Headers>) {
    let Some(headers) = headers else { return };
    if let Some(request) = &headers.request {
        operations(check, &format!("{path}.request"), request, true);
    }
    if let Some(response) = &headers.response {
        operations(check, &format!("{path}.response"), response, false);
    }
}

/// The request's authority may be set or added; nothing else that begins with a colon, nor `host`, may be touched.
fn operations(check: Checks<'_, '_>, path: &str, operations: &HeaderOperations, is_request: bool) {
    for (field, map) in [("set", &operations.set), ("add", &operations.add)] {
        for (name, value) in map {
            let path = format!("{path}.{field}.{name}");
            if is_internal(name) && !(is_request && is_authority(name)) {
                check.error(&path, format!("header {name:?} cannot be changed", name = name.as_str()));
            }
            if value.matches('%').count() % 2 != 0 {
                check.error(&path, "a single % is not allowed; write %% or a %COMMAND%");
            }
            if value.bytes().any(|b| (b < 0x20 && b != b'\t') || b == 0x7f) {
                check.error(&path, "the value holds a control character");
            }
        }
    }
    for (index, name) in operations.remove.iter().enumerate() {
        if is_internal(name) {
            check.error(
                format!("{path}.remove[{index}]"),
                format!("header {:?} cannot be removed", name.as_str()),
            );
        }
    }
}

fn is_internal(name: &HeaderName) -> bool {
    name.is_pseudo() || name.as_str() == "host"
}

fn is_authority(name: &HeaderName) -> bool {
    matches!(name.as_str(), ":authority" | "host")
}

fn authority_once(check: Checks<'_, '_>, path: &str, route: &HttpRoute) {
    let request = route.headers.as_ref().and_then(|headers| headers.request.as_ref());
    let by_headers = request.map_or(0, |request| {
        request
            .set
            .iter()
            .chain(&request.add)
            .filter(|(name, value)| is_authority(name) && !value.is_empty())
            .count()
    });
    let by_rewrite = usize::from(route.rewrite.as_ref().is_some_and(|rewrite| !rewrite.authority.is_empty()));
    if by_headers + by_rewrite > 1 {
        check.error(format!("{path}.headers.request"), "the authority is set in more than one place");
    }
}

/// The conditions that Istio knows; numbers are status codes.
const RETRY_ON: [&str; 15] = [
    "5xx",
    "gateway-error",
    "reset",
    "reset-before-request",
    "connect-failure",
    "envoy-ratelimited",
    "retriable-4xx",
    "refused-stream",
    "retriable-status-codes",
    "retriable-headers",
    "http3-post-connect-failure",
    "cancelled",
    "deadline-exceeded",
    "internal",
    "resource-exhausted",
];

fn retry(check: Checks<'_, '_>, path: &str, retries: &HttpRetry) {
    if retries.attempts < 0 {
        check.error(format!("{path}.attempts"), "attempts cannot be negative");
    }
    let others = retries.per_try_timeout.is_some()
        || !retries.retry_on.is_empty()
        || retries.retry_remote_localities.is_some();
    if retries.attempts == 0 && others {
        check.error(path, "attempts 0 switches retries off; perTryTimeout, retryOn and retryRemoteLocalities cannot be used with it");
    }
    check.duration(&format!("{path}.perTryTimeout"), retries.per_try_timeout);
    check.duration(&format!("{path}.backoff"), retries.backoff);
    if !retries.retry_on.is_empty() {
        for token in retries.retry_on.split(',') {
            let status = token.parse::<u16>().is_ok_and(|status| (100..=599).contains(&status));
            if !status && token != "unavailable" && !RETRY_ON.contains(&token) {
                let message =
                    format!("{token:?} is not a retry condition; blanks are not allowed around the commas");
                check.error(format!("{path}.retryOn"), message);
            }
        }
    }
}

const METHODS: [&str; 10] =
    ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "CONNECT", "OPTIONS", "TRACE", "*"];

fn cors_policy(check: Checks<'_, '_>, path: &str, cors: &CorsPolicy) {
    if !cors.allow_origin.is_empty() {
        check.deprecated(format!("{path}.allowOrigin"), "use allowOrigins");
    }
    for (index, origin) in cors.allow_origins.iter().enumerate() {
        let path = format!("{path}.allowOrigins[{index}]");
        if matches!(origin, StringMatch::Exact(text) if text.is_empty()) {
            check.error(path, "an allowed origin cannot be empty");
        } else {
            matching::string_match(check, &path, origin, matching::Star::IsARegex);
        }
    }
    for (index, method) in cors.allow_methods.iter().enumerate() {
        if !METHODS.contains(&method.as_str()) {
            check.error(format!("{path}.allowMethods[{index}]"), format!("{method:?} is not an HTTP method"));
        }
    }
    for (field, names) in [("allowHeaders", &cors.allow_headers), ("exposeHeaders", &cors.expose_headers)] {
        for (index, name) in names.iter().enumerate() {
            if !name.parse::<HeaderName>().is_ok_and(|name| !name.is_pseudo()) {
                check.error(format!("{path}.{field}[{index}]"), format!("{name:?} is not a header name"));
            }
        }
    }
    if let Some(age) = cors.max_age
        && (age < Duration::from_secs(1) || age.as_std().subsec_nanos() != 0)
    {
        check.error(format!("{path}.maxAge"), "maxAge must be in whole seconds, at least one");
    }
}

/// Envoy's granularity is a millionth: less than that but more than nothing would be nothing.
fn percentage(check: Checks<'_, '_>, path: &str, percentage: Option<Percent>) {
    if percentage.is_some_and(|percentage| percentage.value() > 0.0 && percentage.value() < 0.0001) {
        check.error(path, "the percentage must be 0, or from 0.0001 to 100");
    }
}

fn fault_delay(check: Checks<'_, '_>, path: &str, delay: &FaultDelay) {
    if !(0..=100).contains(&delay.percent) {
        check.error(format!("{path}.percent"), "the percentage must be from 0 to 100");
    }
    percentage(check, &format!("{path}.percentage"), delay.percentage);
    if delay.exponential_delay.is_some() {
        check.error(format!("{path}.exponentialDelay"), "exponentialDelay is not supported");
    } else if delay.fixed_delay.is_none() {
        check.error(path, "fixedDelay is required");
    }
    check.duration(&format!("{path}.fixedDelay"), delay.fixed_delay);
}

const GRPC_STATUS: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];

fn fault_abort(check: Checks<'_, '_>, path: &str, abort: &FaultAbort) {
    percentage(check, &format!("{path}.percentage"), abort.percentage);
    let arms = [abort.http_status.is_some(), abort.grpc_status.is_some(), abort.http2_error.is_some()];
    match arms.iter().filter(|set| **set).count() {
        0 => check.warn(path, "an abort without httpStatus or grpcStatus has no effect"),
        1 => {}
        _ => check.error(path, "at most one of httpStatus, grpcStatus and http2Error may be set"),
    }
    if abort.http_status.is_some_and(|status| !(200..=599).contains(&status)) {
        check.error(format!("{path}.httpStatus"), "the status must be from 200 to 599");
    }
    if abort.http2_error.is_some() {
        check.error(format!("{path}.http2Error"), "http2Error is not supported");
    }
    if let Some(status) = &abort.grpc_status
        && !GRPC_STATUS.contains(&status.as_str())
    {
        check.error(format!("{path}.grpcStatus"), format!("{status:?} is not the name of a gRPC status"));
    }
}
