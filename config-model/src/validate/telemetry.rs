//! What admission demands of a Telemetry (Istio: ValidateTelemetry, and the schema).
//!
//! Of expressions in CEL those of access logs are judged here; those of metrics by whoever evaluates them.

use super::{attachment, check::Check, names};
use crate::{
    cel::Expr,
    diagnostic::{Code, Diagnostic, Diagnostics, Severity},
    istio::{
        Telemetry,
        telemetry::{CustomTag, Metrics, MetricsOverrides, ProviderRef, TagOperation, Tracing},
    },
    meta::Resource,
};

type Checks<'c, 'a> = &'c mut Check<'a, Telemetry>;

pub(super) fn check(resource: &Resource<Telemetry>, out: &mut Diagnostics) {
    let check = &mut Check::new(resource, out);
    let spec = &resource.spec;
    attachment::check(check, spec.selector.as_ref(), spec.target_ref.as_ref(), &spec.target_refs);
    if spec.tracing.len() > 1 {
        check.warn("spec.tracing", "multiple tracing is not currently supported");
    }
    for (index, entry) in spec.tracing.iter().enumerate() {
        tracing(check, &format!("spec.tracing[{index}]"), entry);
    }
    for (index, entry) in spec.metrics.iter().enumerate() {
        metrics(check, &format!("spec.metrics[{index}]"), entry);
    }
    for (index, entry) in spec.access_logging.iter().enumerate() {
        providers(check, &format!("spec.accessLogging[{index}]"), &entry.providers);
        if let Some(filter) = entry.filter.as_ref().filter(|filter| !filter.expression.is_empty())
            && let Err(why) = Expr::condition(&filter.expression)
        {
            // The rest of the resource holds; what the entry is about is not logged, rather than logged without the condition.
            let path = format!("spec.accessLogging[{index}].filter.expression");
            let message = format!("the condition cannot be evaluated, {why}");
            let hint = "nothing is logged by this entry until it is corrected";
            let finding = Diagnostic::new(Code::NOT_YET_HONOURED, message).severity(Severity::Error);
            check.push(finding.at(path).hint(hint));
        }
    }
}

fn providers(check: Checks<'_, '_>, path: &str, providers: &[ProviderRef]) {
    for (index, provider) in providers.iter().enumerate() {
        if provider.name.is_empty() {
            check.error(format!("{path}.providers[{index}].name"), "providers.name may not be empty");
        }
    }
}

fn tracing(check: Checks<'_, '_>, path: &str, tracing: &Tracing) {
    if tracing.providers.len() > 1 {
        check.warn(format!("{path}.providers"), "multiple providers is not currently supported");
    }
    providers(check, path, &tracing.providers);
    for (name, tag) in tracing.custom_tags.iter().flatten() {
        let path = format!("{path}.customTags.{name}");
        if name.is_empty() {
            check.error(path.as_str(), "tag name may not be empty");
        }
        let missing = match tag {
            CustomTag::Literal(value) if value.is_empty() => "literal tag value may not be empty",
            CustomTag::Header { name, .. } if name.is_empty() => "header tag name may not be empty",
            CustomTag::Environment { name, .. } if name.is_empty() => "environment tag name may not be empty",
            CustomTag::Formatter(value) if value.is_empty() => "formatter tag value may not be empty",
            CustomTag::Header { name, .. } if name.parse::<http::HeaderName>().is_err() => {
                "header tag name is not the name of a header"
            }
            _ => continue,
        };
        check.error(path, missing);
    }
}

fn metrics(check: Checks<'_, '_>, path: &str, metrics: &Metrics) {
    providers(check, path, &metrics.providers);
    check.duration(format_args!("{path}.reportingInterval"), metrics.reporting_interval);
    for (index, entry) in metrics.overrides.iter().enumerate() {
        overrides(check, &format!("{path}.overrides[{index}]"), entry);
    }
}

fn overrides(check: Checks<'_, '_>, path: &str, entry: &MetricsOverrides) {
    if let Some(selector) = &entry.matches {
        if selector.metric.is_some() && selector.custom_metric.is_some() {
            check.error(format!("{path}.match"), "only one of metric and customMetric may be set");
        }
        if selector.custom_metric.as_deref() == Some("") {
            check.error(format!("{path}.match.customMetric"), "customMetric may not be empty");
        }
    }
    for (name, tag) in &entry.tag_overrides {
        let path = format!("{path}.tagOverrides.{name}");
        match tag.operation {
            TagOperation::Upsert if tag.value.is_empty() => {
                check.error(path.as_str(), "tagOverrides.value must be set when operation is UPSERT");
            }
            TagOperation::Remove if !tag.value.is_empty() => {
                check.error(path.as_str(), "tagOverrides.value may only be set when operation is UPSERT");
            }
            TagOperation::Upsert | TagOperation::Remove => {}
        }
        if name.is_empty() {
            check.warn(path, "tagOverrides.name may not be empty");
        } else if !names::is_metric_label(name) {
            // Istio takes any text, and Envoy writes what Prometheus cannot read.
            check.warn(path, format!("{name:?} is not the name of a label in Prometheus; it has no effect"));
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::validate::tests::findings;

    fn found(spec: &str) -> Vec<String> {
        let mut found = findings(&format!(
            "apiVersion: telemetry.istio.io/v1\nkind: Telemetry\nmetadata: {{name: a, namespace: istio-system}}\nspec: {spec}\n"
        ));
        found.retain(|line| !line.starts_with("LIM") && !line.starts_with("IST0101"));
        found
    }

    #[test]
    fn whom_it_is_for() {
        for (spec, finds) in [
            ("{}", vec![]),
            ("{selector: {matchLabels: {a: b}}}", vec![]),
            ("{selector: {}}", vec!["IST0133 spec.selector"]),
            ("{selector: {matchLabels: {a: '*'}}}", vec!["!IST0106 spec.selector.matchLabels"]),
            ("{targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: g}]}", vec![]),
            ("{targetRefs: [{kind: Service, name: g}]}", vec![]),
            ("{targetRef: {kind: Service}}", vec!["!IST0106 spec.targetRef.name"]),
            ("{targetRef: {kind: Gateway, name: g}}", vec!["!IST0106 spec.targetRef"]),
            (
                "{targetRefs: [{kind: Service, name: g, namespace: b}]}",
                vec!["!IST0106 spec.targetRefs[0].namespace"],
            ),
            ("{selector: {matchLabels: {a: b}}, targetRef: {kind: Service, name: s}}", vec!["!IST0106 spec"]),
        ] {
            assert_eq!(found(spec), finds, "{spec}");
        }
    }

    #[test]
    fn metrics() {
        for (spec, finds) in [
            ("{metrics: [{providers: [{name: prometheus}]}]}", vec![]),
            ("{metrics: [{providers: [{}]}]}", vec!["!IST0106 spec.metrics[0].providers[0].name"]),
            ("{metrics: [{reportingInterval: 0s}]}", vec!["!IST0106 spec.metrics[0].reportingInterval"]),
            (
                "{metrics: [{overrides: [{match: {customMetric: ''}}]}]}",
                vec!["!IST0106 spec.metrics[0].overrides[0].match.customMetric"],
            ),
            (
                "{metrics: [{overrides: [{match: {customMetric: a, metric: ALL_METRICS}}]}]}",
                vec!["!IST0106 spec.metrics[0].overrides[0].match"],
            ),
            (
                "{metrics: [{overrides: [{tagOverrides: {a: {operation: UPSERT}}}]}]}",
                vec!["!IST0106 spec.metrics[0].overrides[0].tagOverrides.a"],
            ),
            (
                "{metrics: [{overrides: [{tagOverrides: {a: {operation: REMOVE, value: b}}}]}]}",
                vec!["!IST0106 spec.metrics[0].overrides[0].tagOverrides.a"],
            ),
            (
                "{metrics: [{overrides: [{tagOverrides: {a-b: {operation: REMOVE}}}]}]}",
                vec!["IST0133 spec.metrics[0].overrides[0].tagOverrides.a-b"],
            ),
        ] {
            assert_eq!(found(spec), finds, "{spec}");
        }
    }

    #[test]
    fn traces_and_logs() {
        for (spec, finds) in [
            ("{tracing: [{customTags: {a: {literal: {value: b}}}}]}", vec![]),
            ("{tracing: [{}, {}]}", vec!["IST0133 spec.tracing"]),
            ("{tracing: [{providers: [{name: a}, {name: b}]}]}", vec!["IST0133 spec.tracing[0].providers"]),
            ("{tracing: [{customTags: {a: {literal: {}}}}]}", vec!["!IST0106 spec.tracing[0].customTags.a"]),
            (
                "{tracing: [{customTags: {a: {header: {name: 'a b'}}}}]}",
                vec!["!IST0106 spec.tracing[0].customTags.a"],
            ),
            (
                "{tracing: [{customTags: {a: {environment: {defaultValue: c}}}}]}",
                vec!["!IST0106 spec.tracing[0].customTags.a"],
            ),
            ("{accessLogging: [{providers: [{name: envoy}]}]}", vec![]),
            (
                "{accessLogging: [{providers: [{name: ''}]}]}",
                vec!["!IST0106 spec.accessLogging[0].providers[0].name"],
            ),
        ] {
            assert_eq!(found(spec), finds, "{spec}");
        }
    }

    #[test]
    fn conditions_that_cannot_be_evaluated_are_said() {
        let found = |expression: &str| {
            findings(&format!(
                "apiVersion: telemetry.istio.io/v1\nkind: Telemetry\nmetadata: {{name: a, namespace: istio-system}}\nspec: \
                 {{accessLogging: [{{filter: {{expression: \"{expression}\"}}}}]}}\n"
            ))
        };
        assert_eq!(found("response.code >= 400"), Vec::<String>::new());
        assert_eq!(found("metadata.a == 1"), ["LIM0010 spec.accessLogging[0].filter.expression"]);
    }
}
