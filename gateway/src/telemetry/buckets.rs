//! Bounds of the buckets of Istio's histograms, as the annotation of the gateway's pod has them.
//!
//! Invariant: what cannot be read leaves Envoy's own bounds (Istio: bootstrap/config.go `getStatsOptions`).

use super::names;
use std::collections::BTreeMap;

/// The annotation.
const ANNOTATION: &str = "sidecar.istio.io/statsHistogramBuckets";
/// What stands before the names of Istio's metrics inside of Envoy.
const NAMESPACE: &str = "istiocustom.";

/// Bounds by the beginning of a metric's name.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Buckets(BTreeMap<String, Vec<f64>>);

impl Buckets {
    /// As a file of the pod's annotations says, which the kubelet writes (one `key="value"` a line).
    ///
    /// # Errors
    /// When the annotation is there and is not an object of lists of numbers.
    pub fn of_annotations(text: &str) -> Result<Self, String> {
        let lines = text.lines().filter_map(|line| line.split_once('='));
        let Some((_, quoted)) = lines.into_iter().find(|(key, _)| *key == ANNOTATION) else {
            return Ok(Self::default());
        };
        let unquoted: String =
            serde_json::from_str(quoted).map_err(|error| format!("{ANNOTATION}: {error}"))?;
        serde_json::from_str(&unquoted).map(Self).map_err(|error| format!("{ANNOTATION}: {error}"))
    }

    /// The bounds for a metric: of the first beginning of its name, in the order of their texts, that has any.
    #[must_use]
    pub fn of(&self, metric: &str) -> Vec<f64> {
        let name = format!("{NAMESPACE}{metric}");
        let own = self.0.iter().find(|(prefix, _)| name.starts_with(prefix.as_str()));
        own.map_or_else(|| names::BUCKETS.to_vec(), |(_, bounds)| bounds.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<Buckets, String> {
        Buckets::of_annotations(&format!("a=\"b\"\n{ANNOTATION}={}\nc=\"d\"\n", serde_json::json!(json)))
    }

    #[test]
    fn a_metric_has_the_bounds_of_the_first_beginning_of_its_name() {
        let all = read(r#"{"istiocustom":[1,5.5,10]}"#).unwrap();
        assert_eq!(all.of(names::REQUEST_DURATION), [1.0, 5.5, 10.0]);
        let one = read(r#"{"istiocustom.istio_request_bytes":[1],"cluster":[2]}"#).unwrap();
        assert_eq!(one.of(names::REQUEST_BYTES), [1.0]);
        assert_eq!(one.of(names::RESPONSE_BYTES), names::BUCKETS);
    }

    #[test]
    fn what_is_not_there_or_cannot_be_read_leaves_envoys() {
        assert_eq!(Buckets::of_annotations("a=\"b\"").unwrap(), Buckets::default());
        for bad in ["[1]", "{\"a\":1}", "no"] {
            assert!(read(bad).unwrap_err().starts_with(ANNOTATION), "{bad}");
        }
        assert!(Buckets::of_annotations(&format!("{ANNOTATION}=unquoted")).is_err());
    }

    #[test]
    fn metrics_are_told_with_them() {
        use crate::telemetry::{
            Flags, Identity, Metrics,
            istio::{RequestProtocol, Sample},
        };
        let buckets = read(r#"{"istiocustom":[7]}"#).unwrap();
        let metrics = Metrics::with_buckets(Identity::default(), "test", &buckets).unwrap();
        let sample = Sample {
            protocol: RequestProtocol::Http,
            code: 200,
            grpc_status: None,
            flags: Flags::default(),
            duration: std::time::Duration::from_millis(8),
            request_bytes: 7,
            response_bytes: 0,
        };
        metrics.istio.record(metrics.istio.nowhere(), &sample);
        let text = String::from_utf8(metrics.encode()).unwrap();
        let bucket = |name: &str, le: &str| {
            text.lines()
                .filter(|line| line.starts_with(name) && line.contains(&format!("le=\"{le}\"")))
                .map(|line| line.rsplit(' ').next().unwrap().to_owned())
                .collect::<Vec<_>>()
        };
        assert_eq!(bucket("istio_request_bytes_bucket", "7"), ["1"]);
        assert_eq!(bucket("istio_request_duration_milliseconds_bucket", "7"), ["0"]);
        assert!(bucket("istio_request_bytes_bucket", "10").is_empty());
    }
}
