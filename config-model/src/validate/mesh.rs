//! MeshConfig's providers by themselves (Istio: validation/agent `validateExtensionProvider`).
//!
//! Invariant: a provider that is wrong hurts whoever names it; the rest of MeshConfig holds.

use super::names;
use crate::{
    diagnostic::{Code, Diagnostic, Diagnostics},
    kubernetes::ConfigMap,
    mesh::{ExtensionProvider, MeshConfig},
    meta::Resource,
};

/// Says what is wrong with the providers.
pub(super) fn check(mesh: &MeshConfig, config_map: &Resource<ConfigMap>, diagnostics: &mut Diagnostics) {
    for entry in &mesh.extension_providers {
        for problem in problems(entry) {
            let message = format!("invalid extension provider {:?}: {problem}", entry.name);
            diagnostics.push(
                Diagnostic::new(Code::SCHEMA, message)
                    .about(&config_map.key, &config_map.origin)
                    .at(format!("data.{}", MeshConfig::KEY))
                    .hint(
                        "the rest of the mesh configuration holds; what names this provider goes without it",
                    ),
            );
        }
    }
}

fn problems(entry: &ExtensionProvider) -> Vec<String> {
    let mut found = Vec::new();
    if entry.name.is_empty() {
        found.push("empty extension provider name".to_owned());
    }
    found.extend(entry.unreadable.clone());
    if let Some((service, port)) = entry.service() {
        found.extend(service_problem(service));
        if port.is_none() {
            found.push("port number 0 must be in the range 1..65535".to_owned());
        }
    }
    if entry.opentelemetry.as_ref().is_some_and(|provider| provider.http.is_some() && provider.grpc.is_some())
    {
        found.push("OpenTelemetryTracingProvider cannot specify both grpc and http".to_owned());
    }
    found
}

/// `host`, or `namespace/host`.
fn service_problem(service: &str) -> Option<String> {
    if service.is_empty() {
        return Some("service must not be empty".to_owned());
    }
    let host = match service.split_once('/') {
        Some((namespace, host)) if names::is_label(namespace) => host,
        Some((namespace, _)) => return Some(format!("{namespace:?} is not the name of a namespace")),
        None => service,
    };
    (!names::is_dns_name(host) && !names::is_ip(host)).then(|| format!("invalid service fmt {service:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_with_a_provider_is_said() {
        for (json, want) in [
            (r#"{"name":"a","zipkin":{"service":"zipkin.obs.svc.cluster.local","port":9411}}"#, None),
            (r#"{"name":"a","zipkin":{"service":"obs/zipkin.example","port":9411}}"#, None),
            (r#"{"name":"a","prometheus":{}}"#, None),
            (r#"{"zipkin":{"service":"z.example","port":1}}"#, Some("empty extension provider name")),
            (r#"{"name":"a","zipkin":{"port":1}}"#, Some("service must not be empty")),
            (r#"{"name":"a","opentelemetry":{"service":"c.example"}}"#, Some("port number 0")),
            (r#"{"name":"a","envoyOtelAls":{"service":"c d","port":1}}"#, Some("invalid service")),
            (
                r#"{"name":"a","opentelemetry":{"service":"c.example","port":1,"http":{},"grpc":{}}}"#,
                Some("both grpc and http"),
            ),
        ] {
            let entry: ExtensionProvider = serde_json::from_str(json).unwrap();
            let found = problems(&entry);
            match want {
                None => assert_eq!(found, Vec::<String>::new(), "{json}"),
                Some(want) => {
                    assert!(found.iter().any(|problem| problem.contains(want)), "{json}: {found:?}")
                }
            }
        }
    }
}
