//! When endpoints are ejected (Istio: validateOutlierDetection).

use super::Check;
use crate::istio::{DestinationRule, destination_rule::OutlierDetection};

pub(super) fn check(check: &mut Check<'_, DestinationRule>, path: &str, outlier: &OutlierDetection) {
    if outlier.consecutive_errors != 0 {
        check.warn(
            format!("{path}.consecutiveErrors"),
            "outlier detection consecutive errors is deprecated, use consecutiveGatewayErrors or consecutive5xxErrors instead",
        );
    }
    let local = outlier.consecutive_local_origin_failures.is_some_and(|count| count > 0);
    if local && !outlier.split_external_local_origin_errors {
        check.refuse(
            format!("{path}.consecutiveLocalOriginFailures"),
            "outlier detection consecutive local origin failures is specified, but split external local origin errors is set to false",
            "set splitExternalLocalOriginErrors: true",
        );
    }
    check.duration(format_args!("{path}.interval"), outlier.interval);
    check.duration(format_args!("{path}.baseEjectionTime"), outlier.base_ejection_time);
    for (field, value) in [
        ("maxEjectionPercent", outlier.max_ejection_percent),
        ("minHealthPercent", outlier.min_health_percent),
    ] {
        if !(0..=100).contains(&value) {
            check.error(format!("{path}.{field}"), format!("percentage {value} is not in range 0..100"));
        }
    }
    for (index, code) in outlier.outlier_detection_http_error_codes.iter().enumerate() {
        if !(100..=599).contains(code) {
            check.error(
                format!("{path}.outlierDetectionHttpErrorCodes[{index}]"),
                format!("status {code} is not in range 100-599"),
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::validate::destination_rule::tests::policy;

    #[test]
    fn outliers() {
        for (text, finds) in [
            ("{consecutive5xxErrors: 0, interval: 1s, maxEjectionPercent: 100}", vec![]),
            ("{consecutiveErrors: 3}", vec!["IST0133 outlierDetection.consecutiveErrors"]),
            (
                "{consecutiveLocalOriginFailures: 3}",
                vec!["!IST0106 outlierDetection.consecutiveLocalOriginFailures"],
            ),
            ("{consecutiveLocalOriginFailures: 3, splitExternalLocalOriginErrors: true}", vec![]),
            ("{interval: 0s}", vec!["!IST0106 outlierDetection.interval"]),
            ("{baseEjectionTime: 1.0001s}", vec!["!IST0106 outlierDetection.baseEjectionTime"]),
            ("{maxEjectionPercent: 101}", vec!["!IST0106 outlierDetection.maxEjectionPercent"]),
            ("{minHealthPercent: -1}", vec!["!IST0106 outlierDetection.minHealthPercent"]),
            (
                "{outlierDetectionHttpErrorCodes: [500, 600]}",
                vec!["!IST0106 outlierDetection.outlierDetectionHttpErrorCodes[1]"],
            ),
        ] {
            assert_eq!(policy(&format!("{{outlierDetection: {text}}}")), finds, "{text}");
        }
    }
}
