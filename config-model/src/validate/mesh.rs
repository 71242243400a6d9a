//! MeshConfig's providers by themselves (Istio: validation/agent `validateExtensionProvider`), and what of `proxyHeaders` a gateway
//! does not do.
//!
//! Invariant: a provider that is wrong hurts whoever names it; the rest of MeshConfig holds.

use super::names;
use crate::{
    diagnostic::{Code, Diagnostic, Diagnostics},
    kubernetes::ConfigMap,
    mesh::{ExtensionProvider, ForwardClientCertDetails, MeshConfig, MetadataExchangeMode, ProxyHeaders},
    meta::Resource,
};

/// Says what is wrong with the providers, and which of the headers that proxies say are not said.
pub(super) fn check(mesh: &MeshConfig, config_map: &Resource<ConfigMap>, diagnostics: &mut Diagnostics) {
    for (code, field, message, hint) in headers(&mesh.default_config.proxy_headers) {
        let finding = Diagnostic::new(code, message)
            .about(&config_map.key, &config_map.origin)
            .at(format!("data.{}: defaultConfig.proxyHeaders.{field}", MeshConfig::KEY))
            .hint(hint);
        diagnostics.push(finding);
    }
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

/// Code, field, message and hint (Istio: gateway.go `buildGatewayConnectionManager` takes the rest).
fn headers(written: &ProxyHeaders) -> Vec<(Code, &'static str, &'static str, &'static str)> {
    let topology = "write gatewayTopology.forwardClientCertDetails for gateways";
    let of_sidecars = "Istio's gateways do not take it from proxyHeaders";
    let [first, second] = ProxyHeaders::OF_SIDECARS;
    let mut found = Vec::new();
    if written.forwarded_client_cert != ForwardClientCertDetails::Undefined {
        found.push((Code::NO_EFFECT, first, of_sidecars, topology));
    }
    if written.set_current_client_cert_details.is_some() {
        found.push((Code::NO_EFFECT, second, of_sidecars, topology));
    }
    if written
        .metadata_exchange_headers
        .is_some_and(|exchange| exchange.mode != MetadataExchangeMode::Undefined)
    {
        let message = "no metadata is exchanged with anybody: no such header is ever sent";
        found.push((
            Code::NO_EFFECT,
            "metadataExchangeHeaders",
            message,
            "nothing, where it also serves others",
        ));
    }
    if written.preserve_http1_header_case == Some(true) {
        let message =
            "names of header fields go on in lower case (but for eight that the engine writes, such as Host)";
        found.push((
            Code::NOT_YET_HONOURED,
            "preserveHttp1HeaderCase",
            message,
            "names are compared without case by RFC 9110",
        ));
    }
    // What http::HeaderValue takes.
    if written.server.value.bytes().any(|byte| byte != b'\t' && (byte < b' ' || byte == 0x7f)) {
        let message = "not the value of a header; istio-envoy is used";
        found.push((Code::SCHEMA, "server.value", message, "write visible characters"));
    }
    found
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
    fn headers_that_are_not_said_are_named() {
        for (json, want) in [
            (
                r#"{"server":{"value":"edge"},"attemptCount":{"disabled":true},"preserveHttp1HeaderCase":false}"#,
                &[][..],
            ),
            (r#"{"forwardedClientCert":"SANITIZE"}"#, &["LIM0011 forwardedClientCert"]),
            (r#"{"setCurrentClientCertDetails":{}}"#, &["LIM0011 setCurrentClientCertDetails"]),
            (r#"{"metadataExchangeHeaders":{"mode":"IN_MESH"}}"#, &["LIM0011 metadataExchangeHeaders"]),
            (r#"{"preserveHttp1HeaderCase":true}"#, &["LIM0010 preserveHttp1HeaderCase"]),
            (r#"{"server":{"value":"a\nb"}}"#, &["IST0106 server.value"]),
        ] {
            let written: ProxyHeaders = serde_json::from_str(json).unwrap();
            let found: Vec<String> =
                headers(&written).iter().map(|(code, field, ..)| format!("{code} {field}")).collect();
            assert_eq!(found, want, "{json}");
        }
    }

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
