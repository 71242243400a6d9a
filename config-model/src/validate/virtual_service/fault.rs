//! Injected faults (Istio: validateHTTPFaultInjection).

use super::{At, Check};
use crate::{
    istio::{
        VirtualService,
        virtual_service::{FaultAbort, FaultDelay, GRPC_STATUS_NAMES, HttpFaultInjection},
    },
    scalar::Percent,
};

pub(super) fn check(check: &mut Check<'_, VirtualService>, path: At<'_>, fault: &HttpFaultInjection) {
    if fault.delay.is_none() && fault.abort.is_none() {
        check.error(path, "HTTP fault injection must have an abort and/or a delay");
    }
    if let Some(abort) = &fault.abort {
        check_abort(check, format_args!("{path}.abort"), abort);
    }
    if let Some(delay) = &fault.delay {
        check_delay(check, format_args!("{path}.delay"), delay);
    }
}

fn check_abort(check: &mut Check<'_, VirtualService>, path: At<'_>, abort: &FaultAbort) {
    percentage(check, format_args!("{path}.percentage"), abort.percentage);
    let arms = [abort.http_status.is_some(), abort.grpc_status.is_some(), abort.http2_error.is_some()];
    match arms.iter().filter(|set| **set).count() {
        0 => check.warn(path, "abort configured, but error type not set"),
        1 => {}
        _ => check.error(path, "at most one of httpStatus, grpcStatus and http2Error may be set"),
    }
    if let Some(status) = abort.http_status
        && !(200..=599).contains(&status)
    {
        check.error(format!("{path}.httpStatus"), format!("HTTP status {status} is not in range 200-599"));
    }
    if abort.http2_error.is_some() {
        check.error(format!("{path}.http2Error"), "HTTP/2 abort fault injection not supported yet");
    }
    if let Some(status) = &abort.grpc_status
        && !GRPC_STATUS_NAMES.contains(&status.as_str())
    {
        check.refuse(
            format!("{path}.grpcStatus"),
            format!("gRPC status {status:?} is not supported"),
            "write the name of a gRPC status, for example NOT_FOUND",
        );
    }
}

fn check_delay(check: &mut Check<'_, VirtualService>, path: At<'_>, delay: &FaultDelay) {
    percentage(check, format_args!("{path}.percentage"), delay.percentage);
    if delay.percent > 0 {
        let message = "HTTPRoute.fault.delay.percent is deprecated; use HTTPRoute.fault.delay.percentage";
        check.deprecated(format!("{path}.percent"), message);
    }
    if delay.exponential_delay.is_some() {
        check.error(format!("{path}.exponentialDelay"), "exponentialDelay not supported yet");
        if delay.fixed_delay.is_some() {
            check.error(path, "at most one of fixedDelay and exponentialDelay may be set");
        }
    } else if delay.fixed_delay.is_none() {
        check.warn(path, "delay configured, but fixedDelay not set");
    }
    check.duration(format_args!("{path}.fixedDelay"), delay.fixed_delay);
}

/// Envoy's granularity is a millionth: less than that but more than nothing would be nothing.
fn percentage(check: &mut Check<'_, VirtualService>, path: At<'_>, percentage: Option<Percent>) {
    if let Some(value) = percentage.map(Percent::value)
        && value > 0.0
        && value < 0.0001
    {
        check.error(path, format!("percentage {value} is neither 0.0, nor in range [0.0001, 100.0]"));
    }
}

#[cfg(test)]
mod tests {
    use crate::validate::virtual_service::http::tests::rule;

    #[test]
    fn faults() {
        for (fault, finds) in [
            ("{delay: {fixedDelay: 1s, percentage: {value: 0.0001}}, abort: {httpStatus: 503}}", vec![]),
            ("{abort: {grpcStatus: UNAVAILABLE, percentage: {value: 0}}}", vec![]),
            ("{}", vec!["!IST0106 fault"]),
            ("{abort: {httpStatus: 199}}", vec!["!IST0106 fault.abort.httpStatus"]),
            ("{abort: {httpStatus: 600}}", vec!["!IST0106 fault.abort.httpStatus"]),
            ("{abort: {httpStatus: 500, grpcStatus: OK}}", vec!["!IST0106 fault.abort"]),
            ("{abort: {http2Error: X}}", vec!["!IST0106 fault.abort.http2Error"]),
            ("{abort: {grpcStatus: NOPE}}", vec!["!IST0106 fault.abort.grpcStatus"]),
            ("{abort: {percentage: {value: 1}}}", vec!["IST0133 fault.abort"]),
            (
                "{abort: {httpStatus: 500, percentage: {value: 0.00001}}}",
                vec!["!IST0106 fault.abort.percentage"],
            ),
            ("{delay: {percentage: {value: 1}}}", vec!["IST0133 fault.delay"]),
            ("{delay: {fixedDelay: 1s, percent: 10}}", vec!["IST0002 fault.delay.percent"]),
            ("{delay: {fixedDelay: 0s}}", vec!["!IST0106 fault.delay.fixedDelay"]),
            ("{delay: {exponentialDelay: 1s}}", vec!["!IST0106 fault.delay.exponentialDelay"]),
        ] {
            assert_eq!(rule(&format!("fault: {fault}")), finds, "{fault}");
        }
    }
}
