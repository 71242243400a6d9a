//! What holds for all kinds, and the means that the tests of each kind share.

use super::*;
use crate::{
    diagnostic::{Diagnostic, Effect},
    parse,
};

pub(super) const VS: &str =
    "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: a}\nspec:\n";
pub(super) const DR: &str =
    "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: a}\nspec:\n";
pub(super) const GW: &str =
    "apiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {name: gw}\nspec:\n";
pub(super) const SE: &str =
    "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {name: a}\nspec:\n";

pub(super) fn run(text: &str) -> (Validated, Vec<Diagnostic>) {
    let parsed = parse::parse("a.yaml", text);
    assert!(parsed.failed.is_empty(), "{:?}", parsed.diagnostics);
    let mut set = ResourceSet::new();
    assert!(set.extend(parsed.resources).is_empty());
    let (validated, diagnostics) = validate(set);
    (validated, diagnostics.into_iter().map(Arc::unwrap_or_clone).collect())
}

/// The paths and codes of what is refused (`!`) or said otherwise.
pub(super) fn findings(text: &str) -> Vec<String> {
    let (_, diagnostics) = run(text);
    let line = |d: &Diagnostic| {
        format!("{}{} {}", if d.effect == Effect::Rejected { "!" } else { "" }, d.code, d.path)
    };
    diagnostics.iter().filter(|d| d.code.as_str() != "IST0174").map(line).collect()
}

#[test]
fn a_rejected_resource_is_left_out_and_the_others_stay() {
    let bad = format!("{VS}  hosts: [a.com]\n");
    let good = bad.replace("name: a", "name: b") + "  http: [{directResponse: {status: 200}}]\n";
    let (validated, diagnostics) = run(&format!("{bad}---\n{good}"));
    assert_eq!(validated.virtual_services().iter().map(|vs| vs.key.name.as_str()).collect::<Vec<_>>(), ["b"]);
    assert_eq!(
        validated.rejected().map(ToString::to_string).collect::<Vec<_>>(),
        ["VirtualService default/a"]
    );
    assert_eq!(diagnostics[0].origin.as_ref().unwrap().line, 4);
}

#[test]
fn the_oldest_comes_first() {
    let vs = |name: &str, time: &str| {
        format!(
            "---\napiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: {name}, creationTimestamp: '{time}'}}\nspec: {{hosts: [{name}.com], http: [{{directResponse: {{status: 200}}}}]}}\n"
        )
    };
    let (validated, _) = run(&(vs("a", "2024-02-01T00:00:00Z")
        + &vs("c", "2024-01-01T00:00:00Z")
        + &vs("b", "2024-01-01T00:00:00Z")));
    assert_eq!(
        validated.virtual_services().iter().map(|vs| vs.key.name.as_str()).collect::<Vec<_>>(),
        ["b", "c", "a"]
    );
}

#[test]
fn telemetries_hold_from_the_widest_to_the_narrowest() {
    let telemetry = |namespace: &str, name: &str, spec: &str| {
        format!(
            "---\napiVersion: telemetry.istio.io/v1\nkind: Telemetry\nmetadata: {{name: {name}, namespace: {namespace}}}\nspec: {spec}\n"
        )
    };
    let selecting = "{selector: {matchLabels: {app: a}}}";
    let (validated, _) = run(&(telemetry("shop", "selects", selecting)
        + &telemetry("shop", "other", "{selector: {matchLabels: {app: b}}}")
        + &telemetry("shop", "attached", "{targetRefs: [{kind: Service, name: a}]}")
        + &telemetry("shop", "wide", "{}")
        + &telemetry("shop", "z-second", "{}")
        + &telemetry("istio-system", "mesh", "{}")
        + &telemetry("istio-system", "selects-too", selecting)));
    let labels: BTreeMap<String, String> = [("app".to_owned(), "a".to_owned())].into();
    let names = |namespace: &str| -> Vec<String> {
        let held = validated.telemetries_for(namespace, &labels);
        held.into_iter().map(|resource| resource.key.name.clone()).collect()
    };
    assert_eq!(names("shop"), ["mesh", "wide", "selects"]);
    assert_eq!(names("istio-system"), ["mesh", "selects-too"]);
    assert_eq!(names("other"), ["mesh"]);
}
