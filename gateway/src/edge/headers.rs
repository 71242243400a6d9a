//! What heads say of the proxy and of who is in front of it (Istio: `proxyHeaders` of the proxies' configuration).
//!
//! Invariant: judged once a configuration, for each way that a connection may go; a request compares nothing but what is asked here. Read
//! as Istio reads it (proxy_headers.go): a gateway is an edge, that believes nobody; a sidecar is a hop within the mesh.

use config_model::mesh::{CurrentClientCertDetails, ForwardClientCertDetails, ProxyConfig};
use http::HeaderValue;
use routing::listener::Direction;

use crate::tls::CertificateParts;

/// The name that Istio's gateways go by, and sidecars towards who calls their workload.
const ISTIO: HeaderValue = HeaderValue::from_static("istio-envoy");
/// The name that sidecars go by towards their workload, which Istio leaves to Envoy.
const ENVOY: HeaderValue = HeaderValue::from_static("envoy");

/// What is said, by the way that a connection goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Headers {
    gateway: HeaderPolicy,
    outbound: HeaderPolicy,
    inbound: HeaderPolicy,
}

/// What is said in the heads of connections that go one way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeaderPolicy {
    /// Who is in front.
    pub hop: Hop,
    /// `server` of every response; `None`: the upstream's stays, and ours have none.
    pub server: Option<HeaderValue>,
    /// Whether requests get an `x-request-id` of ours; otherwise the client's stays.
    pub request_id: bool,
    /// `x-envoy-attempt-count` to upstreams.
    pub attempt_count: bool,
    /// What Envoy's router adds: `x-envoy-upstream-service-time`, `-expected-rq-timeout-ms`, `-original-path`, `-original-host`,
    /// `-overloaded`.
    pub debug: bool,
    /// The host that was asked for, in `x-forwarded-host`, where a rule gives another.
    pub forwarded_host: bool,
    /// The port that was asked on, in `x-forwarded-port`, unless a trusted proxy said one.
    pub forwarded_port: bool,
    /// What becomes of `x-forwarded-client-cert`.
    pub client_certificate: ForwardClientCertDetails,
    /// What it says of the client's certificate.
    pub certificate_parts: CertificateParts,
}

/// Who is in front, and what is believed of what it says about the client (Envoy: `use_remote_address`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hop {
    /// Anybody: nothing, but for what trusted proxies say.
    Edge,
    /// A workload or another proxy of the mesh: what `x-forwarded-for`, `x-forwarded-proto` and `x-request-id` say stays as it is.
    Mesh,
}

impl Headers {
    pub(super) fn new(written: &ProxyConfig) -> Headers {
        Headers {
            gateway: HeaderPolicy::of_gateway(written),
            outbound: HeaderPolicy {
                server: server(written, ENVOY),
                // Istio says nothing of it there, and Envoy's default is this.
                client_certificate: ForwardClientCertDetails::Sanitize,
                ..HeaderPolicy::of_sidecar(written)
            },
            // Istio: httproute.go `buildSidecarInboundHTTPRouteConfig` does not ask for the count.
            inbound: HeaderPolicy { attempt_count: false, ..HeaderPolicy::of_sidecar(written) },
        }
    }

    /// What holds for connections that go this way.
    #[must_use]
    pub fn of(&self, direction: Direction) -> &HeaderPolicy {
        match direction {
            Direction::Gateway => &self.gateway,
            Direction::Outbound => &self.outbound,
            Direction::Inbound => &self.inbound,
        }
    }
}

impl HeaderPolicy {
    fn of_gateway(written: &ProxyConfig) -> HeaderPolicy {
        let headers = &written.proxy_headers;
        let details = written.gateway_topology.forward_client_cert_details;
        HeaderPolicy {
            hop: Hop::Edge,
            server: server(written, ISTIO),
            request_id: headers.request_id.is_on(),
            attempt_count: headers.attempt_count.is_on(),
            debug: headers.envoy_debug_headers.is_on(),
            forwarded_host: headers.x_forwarded_host.is_on(),
            forwarded_port: headers.x_forwarded_port.is_on(),
            client_certificate: or(details, ForwardClientCertDetails::SanitizeSet),
            certificate_parts: CertificateParts::OF_GATEWAY,
        }
    }

    fn of_sidecar(written: &ProxyConfig) -> HeaderPolicy {
        let headers = &written.proxy_headers;
        let asked = headers.set_current_client_cert_details.clone();
        let CurrentClientCertDetails { subject, cert, chain, dns, uri } = asked.unwrap_or_default();
        HeaderPolicy {
            hop: Hop::Mesh,
            // Envoy adds it at an edge alone.
            forwarded_port: false,
            client_certificate: or(headers.forwarded_client_cert, ForwardClientCertDetails::AppendForward),
            certificate_parts: CertificateParts {
                subject: subject != Some(false),
                cert: cert == Some(true),
                chain: chain == Some(true),
                dns: dns != Some(false),
                uri: uri != Some(false),
            },
            ..HeaderPolicy::of_gateway(written)
        }
    }
}

fn or(written: ForwardClientCertDetails, default: ForwardClientCertDetails) -> ForwardClientCertDetails {
    if written == ForwardClientCertDetails::Undefined { default } else { written }
}

fn server(written: &ProxyConfig, default: HeaderValue) -> Option<HeaderValue> {
    let written = &written.proxy_headers.server;
    let named = Some(written.value.as_str()).filter(|name| !name.is_empty());
    // What no header takes is named by a finding.
    let name = named.and_then(|name| HeaderValue::from_str(name).ok()).unwrap_or(default);
    Some(name).filter(|_| written.disabled != Some(true))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sidecar_is_a_hop_within_the_mesh() {
        let all = Headers::new(&ProxyConfig::default());
        let of = |direction| {
            let policy = all.of(direction);
            (policy.hop, policy.server.clone().unwrap(), policy.client_certificate, policy.attempt_count)
        };
        use ForwardClientCertDetails as Details;
        assert_eq!(of(Direction::Gateway), (Hop::Edge, ISTIO, Details::SanitizeSet, true));
        assert_eq!(of(Direction::Outbound), (Hop::Mesh, ENVOY, Details::Sanitize, true));
        assert_eq!(of(Direction::Inbound), (Hop::Mesh, ISTIO, Details::AppendForward, false));
        assert!(!all.of(Direction::Inbound).certificate_parts.cert);
    }

    #[test]
    fn proxy_headers_are_for_sidecars_and_the_topology_is_for_gateways() {
        let written: ProxyConfig = serde_json::from_str(
            r#"{"gatewayTopology":{"forwardClientCertDetails":"FORWARD_ONLY"},"proxyHeaders":{"forwardedClientCert":"SANITIZE_SET",
                "setCurrentClientCertDetails":{"cert":true,"subject":false},"server":{"value":"me"}}}"#,
        )
        .unwrap();
        let all = Headers::new(&written);
        use ForwardClientCertDetails as Details;
        assert_eq!(all.of(Direction::Gateway).client_certificate, Details::ForwardOnly);
        assert_eq!(all.of(Direction::Inbound).client_certificate, Details::SanitizeSet);
        assert_eq!(all.of(Direction::Outbound).client_certificate, Details::Sanitize);
        let parts = CertificateParts { subject: false, cert: true, chain: false, dns: true, uri: true };
        assert_eq!(all.of(Direction::Inbound).certificate_parts, parts);
        for direction in [Direction::Gateway, Direction::Outbound, Direction::Inbound] {
            assert_eq!(all.of(direction).server.as_ref().unwrap(), "me");
        }
    }
}
