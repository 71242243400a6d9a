//! `WorkloadGroup`: a template for WorkloadEntries that register themselves. It has no effect on a gateway.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::WorkloadEntry;
use crate::scalar::{PortNumber, lenient};

/// A WorkloadGroup's spec.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct WorkloadGroup {
    /// Labels and annotations of the entries.
    pub metadata: Option<ObjectMeta>,
    /// What the entries say; required by validation.
    pub template: Option<WorkloadEntry>,
    /// How their health is asked for.
    pub probe: Option<ReadinessProbe>,
}

/// Labels and annotations.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ObjectMeta {
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Annotations.
    pub annotations: BTreeMap<String, String>,
}

/// How health is asked for: one of the methods.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ReadinessProbe {
    /// Seconds before the first question.
    #[serde(deserialize_with = "lenient::int")]
    pub initial_delay_seconds: i32,
    /// Seconds to answer one.
    #[serde(deserialize_with = "lenient::int")]
    pub timeout_seconds: i32,
    /// Seconds between questions.
    #[serde(deserialize_with = "lenient::int")]
    pub period_seconds: i32,
    /// Good answers that make it healthy.
    #[serde(deserialize_with = "lenient::int")]
    pub success_threshold: i32,
    /// Bad answers that make it unhealthy.
    #[serde(deserialize_with = "lenient::int")]
    pub failure_threshold: i32,
    /// By an HTTP request.
    pub http_get: Option<HttpHealthCheck>,
    /// By a connection.
    pub tcp_socket: Option<PortHealthCheck>,
    /// By a command.
    pub exec: Option<ExecHealthCheck>,
    /// By gRPC's health protocol.
    pub grpc: Option<PortHealthCheck>,
}

/// A request that asks for health.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct HttpHealthCheck {
    /// Path of the request.
    pub path: String,
    /// The port; required by validation.
    #[serde(deserialize_with = "PortNumber::or_zero")]
    pub port: Option<PortNumber>,
    /// Host to connect to.
    pub host: String,
    /// `HTTP` (empty too) or `HTTPS`.
    pub scheme: String,
    /// Headers of the request.
    pub http_headers: Vec<HttpHeader>,
}

/// A header of a request that asks for health.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct HttpHeader {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: String,
}

/// A port that is asked for health.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct PortHealthCheck {
    /// Host to connect to.
    pub host: String,
    /// The port; required by validation.
    #[serde(deserialize_with = "PortNumber::or_zero")]
    pub port: Option<PortNumber>,
    /// Service that gRPC is asked about.
    pub service: String,
}

/// A command that tells health by its exit status.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ExecHealthCheck {
    /// The command and its arguments.
    pub command: Vec<String>,
}
