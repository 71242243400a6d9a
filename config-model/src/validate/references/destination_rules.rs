//! DestinationRules for hosts that nobody knows, and TLS that verifies nobody by a CA of its own.

use super::{Out, Scene, about, resolve_short_name};
use crate::{
    diagnostic::{Code, Diagnostic},
    istio::{
        DestinationRule,
        destination_rule::{ClientTlsMode, ClientTlsSettings},
    },
    meta::Resource,
};

pub(super) fn check(scene: &Scene<'_>, out: Out<'_>) {
    for resource in scene.validated.destination_rules() {
        host(scene, resource, out);
        authorities(resource, out);
    }
}

fn host(scene: &Scene<'_>, resource: &Resource<DestinationRule>, out: Out<'_>) {
    let (own, spec) = (resource.key.namespace.as_str(), &resource.spec);
    let host = resolve_short_name(&spec.host, own, scene.registry.domain);
    if !scene.registry.knows(&spec.host, &host, own, &spec.export_to) {
        let message = format!(
            "The host {} defined in the DestinationRule does not match any services in the mesh.",
            spec.host.as_str()
        );
        let mut finding = about(resource, Code::UNKNOWN_DESTINATION_RULE_HOST, "spec.host", message);
        finding.hint = scene.registry.hint(&host);
        out.push(finding);
    }
}

/// Istio: CaCertificateAnalyzer. A Secret counts as a CA here, because gateways take it from there.
fn authorities(resource: &Resource<DestinationRule>, out: Out<'_>) {
    let Some(policy) = &resource.spec.traffic_policy else { return };
    let (namespace, name, host) = (&resource.key.namespace, &resource.key.name, resource.spec.host.as_str());
    let finding = |tls: &ClientTlsSettings, code: Code, path: String, port: &str| -> Option<Diagnostic> {
        let mode = match tls.mode {
            ClientTlsMode::Simple => "SIMPLE",
            ClientTlsMode::Mutual => "MUTUAL",
            ClientTlsMode::Disable | ClientTlsMode::IstioMutual => return None,
        };
        let message = format!(
            "DestinationRule {namespace}/{name} in namespace {namespace} has TLS mode set to {mode} but no caCertificates are set \
             to validate server identity for host: {host}{port}"
        );
        let hint = "set caCertificates (\"system\" for the system's own) or credentialName";
        (tls.ca_certificates.is_empty() && tls.credential_name.is_empty())
            .then(|| about(resource, code, path, message).hint(hint))
    };
    if let Some(tls) = &policy.tls {
        out.extend(finding(tls, Code::NO_CA_HOST, "spec.trafficPolicy.tls".to_owned(), ""));
    }
    for (index, settings) in policy.port_level_settings.iter().enumerate() {
        let Some(tls) = &settings.tls else { continue };
        let port = settings.port.as_ref().and_then(|port| port.number);
        let port = port.map(|port| format!(" at port {port}")).unwrap_or_default();
        let path = format!("spec.trafficPolicy.portLevelSettings[{index}].tls");
        out.extend(finding(tls, Code::NO_CA_PORT, path, &port));
    }
}

#[cfg(test)]
mod tests {
    use crate::validate::tests::{DR, run};

    fn rule(spec: &str) -> Vec<String> {
        let service =
            "---\napiVersion: v1\nkind: Service\nmetadata: {name: s}\nspec: {ports: [{port: 80}]}\n";
        let (_, found) = run(&format!("{DR}{spec}{service}"));
        found.into_iter().map(|d| format!("{} {}", d.code, d.path)).collect()
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
        assert_eq!(with("{tls: {mode: SIMPLE}}"), ["IST0128 spec.trafficPolicy.tls"]);
        assert_eq!(with("{tls: {mode: SIMPLE, caCertificates: a}}"), Vec::<String>::new());
        assert_eq!(with("{tls: {mode: ISTIO_MUTUAL}}"), Vec::<String>::new());
        assert_eq!(
            with(
                "{portLevelSettings: [{port: {number: 80}, tls: {mode: MUTUAL, clientCertificate: a, privateKey: b}}]}"
            ),
            ["IST0129 spec.trafficPolicy.portLevelSettings[0].tls"]
        );
    }
}
