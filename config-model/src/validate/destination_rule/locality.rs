//! Locality and zone-aware balancing (Istio: ValidateLocalityLbSetting, ValidateZoneAwareLbSetting).

use std::collections::BTreeSet;

use super::Check;
use crate::istio::{
    DestinationRule,
    destination_rule::{LocalityFailover, LocalityLbSetting, ZoneAwareLbSetting},
};

/// Labels that locality balancing judges by itself.
const TOPOLOGY: [&str; 3] =
    ["topology.kubernetes.io/region", "topology.kubernetes.io/zone", "topology.istio.io/subzone"];

pub(super) fn check(
    check: &mut Check<'_, DestinationRule>,
    path: &str,
    locality: &LocalityLbSetting,
    ejects: bool,
) {
    if !locality.distribute.is_empty() && !locality.failover.is_empty() {
        check.error(path, "can not simultaneously specify 'distribute' and 'failover'");
    }
    let topology = locality.failover_priority.iter().find(|label| TOPOLOGY.contains(&label.as_str()));
    if let (false, Some(label)) = (locality.failover.is_empty(), topology) {
        check.error(
            format!("{path}.failoverPriority"),
            format!(
                "can not simultaneously set 'failover' and topology label '{label}' in 'failover_priority'"
            ),
        );
    }
    for (index, distribute) in locality.distribute.iter().enumerate() {
        let path = format!("{path}.distribute[{index}].to");
        let sum: u64 = distribute.to.values().map(|share| u64::from(*share)).sum();
        if distribute.to.values().any(|share| *share == 0 || *share > 100) {
            check.error(path.as_str(), "locality weight must be in range [1, 100]");
        } else if sum != 100 {
            check.error(path.as_str(), format!("total locality weight {sum} != 100"));
        }
        localities(check, &path, distribute.to.keys().map(String::as_str));
    }
    let origins = locality.distribute.iter().map(|distribute| distribute.from.as_str());
    localities(check, &format!("{path}.distribute"), origins);
    failover(check, path, &locality.failover, !locality.failover_priority.is_empty(), ejects);
}

pub(super) fn check_zones(
    check: &mut Check<'_, DestinationRule>,
    path: &str,
    zones: &ZoneAwareLbSetting,
    ejects: bool,
) {
    for (index, label) in zones.failover_priority.iter().enumerate() {
        if TOPOLOGY.contains(&label.as_str()) {
            check.error(
                format!("{path}.failoverPriority[{index}]"),
                format!(
                    "'failover_priority' for zone aware lb must not use topology label '{label}'; region- and \
                     zone-level routing are handled automatically"
                ),
            );
        }
    }
    if zones.min_cluster_size == Some(0) {
        check.error(format!("{path}.minClusterSize"), "must be at least 1");
    }
    failover(check, path, &zones.failover, !zones.failover_priority.is_empty(), ejects);
}

fn failover(
    check: &mut Check<'_, DestinationRule>,
    path: &str,
    regions: &[LocalityFailover],
    by_priority: bool,
    ejects: bool,
) {
    if (!regions.is_empty() || by_priority) && !ejects {
        check.warn(path, "outlier detection policy must be provided for failover");
    }
    for (index, failover) in regions.iter().enumerate() {
        let path = format!("{path}.failover[{index}]");
        let both = [&failover.from, &failover.to];
        if failover.from == failover.to {
            check.error(path.as_str(), "locality lb failover settings must specify different regions");
        }
        if both.iter().any(|region| region.contains('/')) {
            check.error(path.as_str(), "locality lb failover only specify region");
        }
        if both.iter().any(|region| region.contains('*')) {
            check.error(path.as_str(), "locality lb failover region should not contain '*' wildcard");
        }
    }
}

/// Localities of one list: `region/zone/subzone`, a star only at the end, none within another (Istio: validateLocalities).
fn localities<'l>(check: &mut Check<'_, DestinationRule>, path: &str, list: impl Iterator<Item = &'l str>) {
    // A locality stands for all below it, so it overlaps with each one that is a prefix of it by whole parts, or the other way.
    let mut whole: BTreeSet<Vec<&str>> = BTreeSet::new();
    let mut branches: BTreeSet<Vec<&str>> = BTreeSet::new();
    for locality in list {
        if locality.bytes().filter(|b| *b == b'*').count() > usize::from(locality.ends_with('*')) {
            let message =
                format!("locality {locality} wildcard '*' number can not exceed 1 and must be in the end");
            check.error(path, message);
            continue;
        }
        let mut parts: Vec<&str> = locality.splitn(3, '/').collect();
        if parts.iter().any(|part| part.is_empty()) {
            let message = format!("locality {locality} must not contain empty region/zone/subzone info");
            check.error(path, message);
            continue;
        }
        // A star at the end takes what the entries before it left, so it may follow them.
        let takes_the_rest = parts.pop_if(|part| *part == "*").is_some();
        let above = (0..=parts.len()).filter_map(|depth| parts.get(..depth));
        if (!takes_the_rest && branches.contains(&parts)) || above.clone().any(|above| whole.contains(above))
        {
            check.error(path, format!("locality {locality} overlap with previous specified ones"));
            continue;
        }
        branches.extend(above.map(<[&str]>::to_vec));
        whole.insert(parts);
    }
}

#[cfg(test)]
mod tests {
    use crate::validate::destination_rule::tests::policy;

    fn setting(kind: &str, text: &str) -> Vec<String> {
        let found = policy(&format!(
            "{{loadBalancer: {{{kind}: {text}}}, outlierDetection: {{consecutive5xxErrors: 1}}}}"
        ));
        found.into_iter().map(|line| line.replace(&format!("loadBalancer.{kind}"), "")).collect()
    }

    #[test]
    fn localities() {
        for (text, finds) in [
            ("{distribute: [{from: a/b/*, to: {a/b/*: 80, a/c/*: 20}}]}", vec![]),
            ("{distribute: [{from: a, to: {b: 80, c: 10}}]}", vec!["!IST0106 .distribute[0].to"]),
            ("{distribute: [{from: a, to: {b: 0, c: 100}}]}", vec!["!IST0106 .distribute[0].to"]),
            ("{distribute: [{from: a, to: {b: 50, b/c: 50}}]}", vec!["!IST0106 .distribute[0].to"]),
            ("{distribute: [{from: a/*/c, to: {b: 100}}]}", vec!["!IST0106 .distribute"]),
            ("{distribute: [{from: a//c, to: {b: 100}}]}", vec!["!IST0106 .distribute"]),
            ("{distribute: [{from: a/b, to: {b: 100}}, {from: a/*, to: {b: 100}}]}", vec![]),
            (
                "{distribute: [{from: a/*, to: {b: 100}}, {from: a/b, to: {b: 100}}]}",
                vec!["!IST0106 .distribute"],
            ),
            (
                "{distribute: [{from: a/b, to: {b: 100}}, {from: a, to: {b: 100}}]}",
                vec!["!IST0106 .distribute"],
            ),
            ("{distribute: [{from: a/b, to: {b: 100}}, {from: a/c, to: {b: 100}}]}", vec![]),
            (
                "{distribute: [{from: '*', to: {b: 100}}, {from: a, to: {b: 100}}]}",
                vec!["!IST0106 .distribute"],
            ),
            ("{failover: [{from: a, to: b}]}", vec![]),
            ("{failover: [{from: a, to: a}]}", vec!["!IST0106 .failover[0]"]),
            ("{failover: [{from: a/x, to: b}]}", vec!["!IST0106 .failover[0]"]),
            ("{failover: [{from: a, to: '*'}]}", vec!["!IST0106 .failover[0]"]),
            ("{failover: [{from: a, to: b}], distribute: [{from: a, to: {b: 100}}]}", vec!["!IST0106 "]),
            (
                "{failover: [{from: a, to: b}], failoverPriority: [topology.kubernetes.io/region]}",
                vec!["!IST0106 .failoverPriority"],
            ),
            ("{failoverPriority: [topology.kubernetes.io/region, rack=1]}", vec![]),
        ] {
            assert_eq!(setting("localityLbSetting", text), finds, "{text}");
        }
    }

    #[test]
    fn zones() {
        for (text, finds) in [
            ("{minClusterSize: 1, failover: [{from: a, to: b}]}", vec![]),
            ("{minClusterSize: 0}", vec!["!IST0106 .minClusterSize"]),
            ("{failoverPriority: [topology.istio.io/subzone]}", vec!["!IST0106 .failoverPriority[0]"]),
            ("{failover: [{from: a, to: a}]}", vec!["!IST0106 .failover[0]"]),
        ] {
            assert_eq!(setting("zoneAwareLbSetting", text), finds, "{text}");
        }
    }

    #[test]
    fn failover_needs_ejection() {
        for setting in ["localityLbSetting", "zoneAwareLbSetting"] {
            let text = format!("{{loadBalancer: {{{setting}: {{failover: [{{from: a, to: b}}]}}}}}}");
            assert_eq!(policy(&text), [format!("IST0133 loadBalancer.{setting}")]);
        }
    }
}
