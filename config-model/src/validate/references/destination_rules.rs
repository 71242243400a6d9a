//! DestinationRules for hosts that nobody knows, TLS that verifies nobody by a CA of its own, and credentials that are not there.

use super::{Out, Scene, about, missing, resolve_short_name};
use crate::{
    diagnostic::{Code, Diagnostic, Severity},
    istio::{
        DestinationRule,
        credential::{Credential, Misplaced},
        destination_rule::{ClientTlsMode, ClientTlsSettings},
    },
    meta::Resource,
};

pub(super) fn check(scene: &Scene<'_>, out: Out<'_>) {
    for resource in scene.validated.destination_rules() {
        host(scene, resource, out);
        for place in settings(&resource.spec) {
            out.extend(authority(resource, &place));
            out.extend(credential(scene, resource, &place));
        }
    }
}

fn host(scene: &Scene<'_>, resource: &Resource<DestinationRule>, out: Out<'_>) {
    let (own, spec) = (resource.key.namespace.as_str(), &resource.spec);
    let host = resolve_short_name(&spec.host, own, scene.domain());
    if !scene.registry().knows(&spec.host, &host, own, &spec.export_to) {
        let message = format!(
            "The host {} defined in the DestinationRule does not match any services in the mesh.",
            spec.host.as_str()
        );
        let mut finding = about(resource, Code::UNKNOWN_DESTINATION_RULE_HOST, "spec.host", message);
        finding.hint = scene.registry().hint(&host);
        out.push(finding);
    }
}

/// Where TLS settings of a rule are.
struct Place<'a> {
    /// The path of the settings.
    path: String,
    /// Whether they are a subset's.
    of_subset: bool,
    /// Which ports they are for: ` at port 80`, or empty for all.
    port: String,
    tls: &'a ClientTlsSettings,
}

/// All TLS settings of a rule.
fn settings(spec: &DestinationRule) -> impl Iterator<Item = Place<'_>> {
    let own = ("spec.trafficPolicy".to_owned(), false, &spec.traffic_policy);
    let subsets = spec.subsets.iter().enumerate();
    let of_subsets = subsets.map(|(index, subset)| {
        (format!("spec.subsets[{index}].trafficPolicy"), true, &subset.traffic_policy)
    });
    std::iter::once(own).chain(of_subsets).flat_map(|(path, of_subset, policy)| {
        let all_ports = policy.iter().map({
            let path = format!("{path}.tls");
            move |policy| (path.clone(), String::new(), &policy.tls)
        });
        let levels = policy.iter().flat_map(|policy| &policy.port_level_settings).enumerate();
        let of_ports = levels.map(move |(index, level)| {
            let port = level.port.as_ref().and_then(|port| port.number);
            let port = port.map(|port| format!(" at port {port}")).unwrap_or_default();
            (format!("{path}.portLevelSettings[{index}].tls"), port, &level.tls)
        });
        let places = all_ports.chain(of_ports);
        places.filter_map(move |(path, port, tls)| Some(Place { path, of_subset, port, tls: tls.as_ref()? }))
    })
}

/// Istio: CaCertificateAnalyzer, which looks at no subset. For this gateway a credential is a CA; for sidecars, whom a rule without
/// selector is for too, it is none, which is a note here.
fn authority(resource: &Resource<DestinationRule>, place: &Place<'_>) -> Option<Diagnostic> {
    let Place { path, of_subset: false, port, tls } = place else { return None };
    let mode = match tls.mode {
        ClientTlsMode::Simple => "SIMPLE",
        ClientTlsMode::Mutual => "MUTUAL",
        ClientTlsMode::Disable | ClientTlsMode::IstioMutual => return None,
    };
    let is_for_sidecars = resource.spec.workload_selector.is_none();
    if !tls.ca_certificates.is_empty() || (!tls.credential_name.is_empty() && !is_for_sidecars) {
        return None;
    }
    let (namespace, name) = (&resource.key.namespace, &resource.key.name);
    let message = format!(
        "DestinationRule {namespace}/{name} in namespace {namespace} has TLS mode set to {mode} but no caCertificates are set \
         to validate server identity for host: {}{port}",
        resource.spec.host.as_str()
    );
    let code = if port.is_empty() { Code::NO_CA_HOST } else { Code::NO_CA_PORT };
    let finding = about(resource, code, path.as_str(), message);
    Some(match tls.credential_name.as_str() {
        "" => finding.hint("set caCertificates (\"system\" for the system's own) or credentialName"),
        _ => finding
            .severity(Severity::Info)
            .hint("a gateway takes the CA from the credential, a sidecar only where workloadSelector is set"),
    })
}

/// A credential that this gateway does not find. Istio does not look.
fn credential(
    scene: &Scene<'_>,
    resource: &Resource<DestinationRule>,
    place: &Place<'_>,
) -> Option<Diagnostic> {
    let written = place.tls.credential_name.as_str();
    let found = Credential::of_client(written, &scene.deployment.namespace, &resource.key.namespace);
    let hint = match found? {
        Ok(credential) => {
            let key = credential.key()?;
            if scene.validated.contains(&key) {
                return None;
            }
            format!("for this gateway it is a {} {}/{}", key.kind, key.namespace, key.name)
        }
        Err(Misplaced::Elsewhere { home }) => format!("it must be in namespace {home:?}"),
        // Of what it cannot fetch at all it is said where it is needed.
        Err(Misplaced::OfUnknownKind) => return None,
    };
    Some(missing(resource, format!("{}.credentialName", place.path), "credentialName", written).hint(hint))
}

#[cfg(test)]
mod tests {
    use crate::validate::tests::{DR, run};

    fn rule(spec: &str) -> Vec<String> {
        let service =
            "---\napiVersion: v1\nkind: Service\nmetadata: {name: s}\nspec: {ports: [{port: 80}]}\n";
        let (_, found) = run(&format!("{DR}{spec}{service}"));
        found.into_iter().map(|d| format!("{} {} {}", d.severity, d.code, d.path)).collect()
    }

    #[test]
    fn hosts() {
        for (host, known) in [
            ("s", true),
            ("s.default.svc.cluster.local", true),
            ("'*.local'", true),
            ("'*'", true),
            ("t", false),
            ("'*.com'", false),
        ] {
            assert_eq!(rule(&format!("  host: {host}\n")).is_empty(), known, "{host}");
        }
    }

    #[test]
    fn authorities() {
        let with = |policy: &str| rule(&format!("  host: s\n  trafficPolicy: {policy}\n"));
        assert_eq!(with("{tls: {mode: SIMPLE}}"), ["Warning IST0128 spec.trafficPolicy.tls"]);
        assert_eq!(with("{tls: {mode: SIMPLE, caCertificates: a}}"), Vec::<String>::new());
        assert_eq!(with("{tls: {mode: ISTIO_MUTUAL}}"), Vec::<String>::new());
        let credential = "{tls: {mode: SIMPLE, credentialName: c}}";
        let of_sidecars = "Info IST0128 spec.trafficPolicy.tls";
        let missing = "Error IST0101 spec.trafficPolicy.tls.credentialName";
        assert_eq!(with(credential), [of_sidecars, missing]);
        assert_eq!(with(&format!("{credential}\n  workloadSelector: {{matchLabels: {{a: b}}}}")), [missing]);
        assert_eq!(
            with(
                "{portLevelSettings: [{port: {number: 80}, tls: {mode: MUTUAL, clientCertificate: a, privateKey: b}}]}"
            ),
            ["Warning IST0129 spec.trafficPolicy.portLevelSettings[0].tls"]
        );
    }

    #[test]
    fn credentials() {
        let with = |reference: &str, rest: &str| {
            let policy = format!("{{tls: {{mode: SIMPLE, credentialName: {reference}}}}}");
            let service =
                "---\napiVersion: v1\nkind: Service\nmetadata: {name: s}\nspec: {ports: [{port: 80}]}\n";
            let (_, found) = run(&format!(
                "{DR}  host: s\n  subsets: [{{name: v1, trafficPolicy: {policy}}}]\n{service}{rest}"
            ));
            found.into_iter().filter(|d| d.code.as_str() == "IST0101").map(|d| d.path).collect::<Vec<_>>()
        };
        let object = |kind: &str, namespace: &str| {
            format!("---\napiVersion: v1\nkind: {kind}\nmetadata: {{name: c, namespace: {namespace}}}\n")
        };
        let missing = ["spec.subsets[0].trafficPolicy.tls.credentialName"];
        let none = Vec::<String>::new();
        assert_eq!(with("c", ""), missing);
        assert_eq!(with("c", &object("Secret", "istio-system")), none);
        assert_eq!(with("c", &object("Secret", "default")), missing);
        assert_eq!(with("default/c", &object("Secret", "default")), missing);
        assert_eq!(with("'configmap://default/c'", &object("ConfigMap", "default")), none);
        assert_eq!(with("'configmap://default/c'", &object("ConfigMap", "istio-system")), missing);
    }
}
