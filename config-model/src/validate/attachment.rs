//! Whom a policy is for: a selector, or resources that it names (Istio: validateOneOfSelectorType,
//! validatePolicyTargetReference, and the schema).

use super::{check::Check, names};
use crate::istio::{PolicyTargetReference, WorkloadSelector};

/// The kinds that a policy may name, with their groups.
const TARGETS: [(&str, &str); 4] = [
    ("core", "Service"),
    ("networking.istio.io", "ServiceEntry"),
    ("gateway.networking.k8s.io", "Gateway"),
    ("gateway.networking.k8s.io", "GatewayClass"),
];

/// Checks the three fields that say whom a policy is for.
pub(super) fn check<T>(
    check: &mut Check<'_, T>,
    selected: Option<&WorkloadSelector>,
    target: Option<&PolicyTargetReference>,
    targets: &[PolicyTargetReference],
) {
    let used = [selected.is_some(), target.is_some(), !targets.is_empty()];
    if used.iter().filter(|used| **used).count() > 1 {
        check.error("spec", "only one of targetRefs or selector can be set");
    }
    selector(check, selected);
    if let Some(target) = target {
        reference(check, "spec.targetRef", target);
    }
    check.at_most("spec.targetRefs", targets.len(), 16);
    for (index, target) in targets.iter().enumerate() {
        reference(check, &format!("spec.targetRefs[{index}]"), target);
    }
}

/// Checks a selector of workloads.
pub(super) fn selector<T>(check: &mut Check<'_, T>, selector: Option<&WorkloadSelector>) {
    let Some(selector) = selector else { return };
    check.selector("spec.selector.matchLabels", &selector.labels, 4096);
    if selector.labels.is_empty() {
        check.warn("spec.selector", "workload selector specified without labels");
    }
}

fn reference<T>(check: &mut Check<'_, T>, path: &str, target: &PolicyTargetReference) {
    if target.name.is_empty() {
        check.error(format!("{path}.name"), "targetRef name must be set");
    }
    check.at_most_long(format_args!("{path}.name"), &target.name, 253);
    if !target.namespace.is_empty() {
        let path = format!("{path}.namespace");
        check
            .error(path, "targetRef namespace must not be set; cross namespace referencing is not supported");
    }
    if !target.group.is_empty() && !names::is_dns_name(&target.group) {
        check.error(format!("{path}.group"), format!("{:?} is not the name of an API group", target.group));
    } else if !TARGETS.iter().any(|(group, kind)| target.is(group, kind)) {
        let known: Vec<_> = TARGETS.iter().map(|(group, kind)| format!("{group}/{kind}")).collect();
        let known = known.join(", ");
        check.error(
            path,
            format!("targetRef must be to one of {known} but was {}/{}", target.group, target.kind),
        );
    }
}
