//! `ProxyConfig.proxyHeaders`: what a proxy says of itself in heads.
//!
//! Invariant: what is not written is Istio's default, which says all of it but `X-Forwarded-Host` and `X-Forwarded-Port`.

use serde::Deserialize;

use super::ForwardClientCertDetails;

/// What a proxy says of itself in heads.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ProxyHeaders {
    /// Of sidecars; gateways have `gatewayTopology` for it.
    pub forwarded_client_cert: ForwardClientCertDetails,
    /// Of sidecars.
    pub set_current_client_cert_details: Option<CurrentClientCertDetails>,
    /// `x-request-id`.
    pub request_id: Disabled,
    /// `server`.
    pub server: ServerHeader,
    /// `x-envoy-attempt-count`.
    pub attempt_count: Disabled,
    /// `x-envoy-upstream-service-time` and others of Envoy's router.
    pub envoy_debug_headers: Disabled,
    /// Headers that sidecars without TLS know each other by.
    pub metadata_exchange_headers: Option<MetadataExchange>,
    /// Names of HTTP/1 fields go on as they were written.
    pub preserve_http1_header_case: Option<bool>,
    /// `x-forwarded-host`.
    pub x_forwarded_host: Enabled,
    /// `x-forwarded-port`.
    pub x_forwarded_port: Enabled,
}

impl ProxyHeaders {
    /// The fields that are for sidecars alone.
    pub const OF_SIDECARS: [&'static str; 2] = ["forwardedClientCert", "setCurrentClientCertDetails"];
}

/// A header that is on unless it is turned off.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Disabled {
    /// Whether it is turned off.
    pub disabled: Option<bool>,
}

impl Disabled {
    /// Whether it is on.
    pub fn is_on(self) -> bool {
        self.disabled != Some(true)
    }
}

/// A header that is off unless it is turned on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Enabled {
    /// Whether it is turned on.
    pub enabled: Option<bool>,
}

impl Enabled {
    /// Whether it is on.
    pub fn is_on(self) -> bool {
        self.enabled == Some(true)
    }
}

/// The name that responses bear.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct ServerHeader {
    /// Whether the upstream's stays.
    pub disabled: Option<bool>,
    /// The name; empty is Istio's.
    pub value: String,
}

/// What a sidecar says of its client's certificate.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
#[allow(missing_docs, reason = "each field is the API's own")]
pub struct CurrentClientCertDetails {
    pub subject: Option<bool>,
    pub cert: Option<bool>,
    pub chain: Option<bool>,
    pub dns: Option<bool>,
    pub uri: Option<bool>,
}

/// When those headers are sent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct MetadataExchange {
    /// To whom.
    pub mode: MetadataExchangeMode,
}

/// To whom those headers are sent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[allow(missing_docs, reason = "each arm is the API's own value")]
pub enum MetadataExchangeMode {
    #[default]
    Undefined,
    InMesh,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_is_read() {
        let read: ProxyHeaders = serde_json::from_str(
            r#"{"forwardedClientCert":"SANITIZE","setCurrentClientCertDetails":{"uri":true},"requestId":{"disabled":true},
                "server":{"value":"edge"},"attemptCount":{"disabled":false},"envoyDebugHeaders":{"disabled":true},
                "metadataExchangeHeaders":{"mode":"IN_MESH"},"preserveHttp1HeaderCase":true,
                "xForwardedHost":{"enabled":true},"xForwardedPort":{"enabled":false}}"#,
        )
        .unwrap();
        assert_eq!(read.forwarded_client_cert, ForwardClientCertDetails::Sanitize);
        assert_eq!(read.set_current_client_cert_details.and_then(|details| details.uri), Some(true));
        assert_eq!((read.request_id.is_on(), read.attempt_count.is_on()), (false, true));
        assert_eq!((read.envoy_debug_headers.is_on(), read.server.value.as_str()), (false, "edge"));
        assert_eq!(read.metadata_exchange_headers.map(|it| it.mode), Some(MetadataExchangeMode::InMesh));
        assert_eq!(read.preserve_http1_header_case, Some(true));
        assert_eq!((read.x_forwarded_host.is_on(), read.x_forwarded_port.is_on()), (true, false));
        assert!(
            ProxyHeaders::default().request_id.is_on() && !ProxyHeaders::default().x_forwarded_port.is_on()
        );
    }
}
