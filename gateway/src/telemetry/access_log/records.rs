//! Lines as records of OTLP's logs (Envoy: `envoy.access_loggers.open_telemetry`).
//!
//! Invariant: a record's body and attributes are made by formats, as lines are; what its collector does not take is dropped and counted.

use super::{Entry, Format};
use crate::telemetry::{
    export::{self, Address, Courier, Encode, Exported, Queue},
    trace::{attribute, nanos, text},
};
use bytes::Bytes;
use opentelemetry_proto::tonic::{
    collector::logs::v1::{ExportLogsServiceRequest, ExportLogsServiceResponse},
    logs::v1::{LogRecord, ResourceLogs, ScopeLogs},
    resource::v1::Resource,
};
use prost::Message;
use std::sync::Arc;
use tokio::task::JoinHandle;

/// Path of the service in gRPC.
pub(crate) const GRPC_PATH: &str = "/opentelemetry.proto.collector.logs.v1.LogsService/Export";

/// What records say.
#[derive(Clone, Debug)]
pub struct RecordFormat {
    /// The body.
    pub body: Format,
    /// Attributes by name.
    pub attributes: Vec<(String, Format)>,
}

/// Makes records and hands them to one collector.
pub struct Records {
    format: RecordFormat,
    queue: Queue<LogRecord>,
}

impl std::fmt::Debug for Records {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Records").finish_non_exhaustive()
    }
}

impl Records {
    /// Starts the task that sends records; it ends when this is dropped.
    pub fn start(
        format: RecordFormat,
        resource: Vec<(String, String)>,
        address: Address,
        courier: Arc<dyn Courier>,
        exported: &Exported,
        runtime: &tokio::runtime::Handle,
    ) -> (Self, JoinHandle<()>) {
        let (queue, task) = export::start("logs", Encoder(resource), address, courier, exported, runtime);
        (Self { format, queue }, task)
    }

    /// Adds the record of one request.
    pub fn log(&self, entry: &Entry<'_>) {
        let written = |format: &Format| {
            let mut line = Vec::new();
            format.write(entry, &mut line);
            String::from_utf8_lossy(&line).trim_end_matches('\n').to_owned()
        };
        let time = nanos(entry.start);
        let attributes = &self.format.attributes;
        self.queue.offer(LogRecord {
            time_unix_nano: time,
            observed_time_unix_nano: nanos(entry.start + entry.duration),
            body: Some(text(written(&self.format.body))),
            attributes: attributes.iter().map(|(key, value)| attribute(key, text(written(value)))).collect(),
            ..LogRecord::default()
        });
    }
}

struct Encoder(Vec<(String, String)>);

impl Encode for Encoder {
    type Item = LogRecord;

    fn encode(&self, batch: Vec<LogRecord>) -> Bytes {
        let attributes = self.0.iter().map(|(key, value)| attribute(key, text(value.clone()))).collect();
        let resource = Resource { attributes, ..Resource::default() };
        let scope_logs = vec![ScopeLogs { log_records: batch, ..ScopeLogs::default() }];
        let logs = ResourceLogs { resource: Some(resource), scope_logs, ..ResourceLogs::default() };
        ExportLogsServiceRequest { resource_logs: vec![logs] }.encode_to_vec().into()
    }

    fn count(&self, batch: &[LogRecord]) -> u64 {
        batch.len() as u64
    }

    fn rejected(&self, answer: &[u8]) -> u64 {
        let said = ExportLogsServiceResponse::decode(answer).ok().and_then(|said| said.partial_success);
        said.and_then(|partial| u64::try_from(partial.rejected_log_records).ok()).unwrap_or(0)
    }
}
