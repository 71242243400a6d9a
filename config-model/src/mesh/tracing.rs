//! `defaultConfig.tracing`: how requests are traced where no Telemetry says otherwise.
//!
//! Invariant: what is not written is absent here; Istio's defaults (1 %, 256 characters, its own tags) are whose who reads it.

use std::collections::BTreeMap;

use serde::{Deserialize, de::IgnoredAny};

use crate::{istio::telemetry::CustomTag, scalar::lenient};

/// Tracing of all proxies.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct MeshTracing {
    /// A collector by its address alone.
    pub zipkin: Option<ZipkinAddress>,
    /// Datadog's agent.
    pub datadog: Option<IgnoredAny>,
    /// Lightstep, deprecated by Istio.
    pub lightstep: Option<IgnoredAny>,
    /// Google Cloud.
    pub stackdriver: Option<IgnoredAny>,
    /// OpenCensus, deprecated by Istio.
    pub open_census_agent: Option<IgnoredAny>,
    /// Further tags, by name.
    pub custom_tags: BTreeMap<String, CustomTag>,
    /// Longest path in a tag; 0 is 256.
    #[serde(deserialize_with = "lenient::int")]
    pub max_path_tag_length: u32,
    /// Percent of requests that are traced when nobody asked for it; 0 is the default.
    pub sampling: f64,
    /// TLS to the collector.
    pub tls_settings: Option<IgnoredAny>,
    /// Whether spans have Istio's own tags; absent is yes.
    pub enable_istio_tags: Option<bool>,
}

/// A collector that speaks Zipkin's JSON.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ZipkinAddress {
    /// `host:port`.
    pub address: String,
}
