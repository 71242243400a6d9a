//! A pipeline without a data plane, for tests of what follows it.

use std::sync::Mutex;

use super::*;
use crate::{settings::Settings, source::fixed::Fixed, telemetry};

/// A Gateway `default/door` that takes every host on port 80.
pub(crate) const GATEWAY: &str = "
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: door}
spec:
  selector: {istio: ingressgateway}
  servers:
  - {port: {number: 80, name: http, protocol: HTTP}, hosts: ['*']}
";

/// A VirtualService at that Gateway, which redirects to `/x`; the first line is a document marker.
pub(crate) fn virtual_service(name: &str, host: &str, redirect_code: u32) -> String {
    format!(
        "---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: {name}}}
spec:
  hosts: ['{host}']
  gateways: [door]
  http:
  - redirect: {{uri: /x, redirectCode: {redirect_code}}}
"
    )
}

/// Keeps what was published.
#[derive(Default, Clone)]
pub(crate) struct Recorder(Arc<Mutex<Vec<Arc<Built>>>>);

impl Recorder {
    /// What was published last.
    pub(crate) fn last(&self) -> Arc<Built> {
        self.0.lock().unwrap().last().cloned().unwrap()
    }

    /// How often something was published.
    pub(crate) fn count(&self) -> usize {
        self.0.lock().unwrap().len()
    }
}

#[async_trait]
impl Publisher for Recorder {
    async fn publish(&mut self, built: &Arc<Built>) -> Diagnostics {
        self.0.lock().unwrap().push(Arc::clone(built));
        Diagnostics::new()
    }
}

/// A pipeline with metrics of its own.
pub(crate) fn pipeline(source: Fixed) -> (Pipeline, Recorder, Arc<Status>) {
    pipeline_with(source, &telemetry::Metrics::new(Default::default(), "test").unwrap())
}

/// A pipeline that counts in these metrics.
pub(crate) fn pipeline_with(
    source: Fixed,
    metrics: &telemetry::Metrics,
) -> (Pipeline, Recorder, Arc<Status>) {
    let (recorder, status) = (Recorder::default(), Arc::new(Status::default()));
    let pipeline = Pipeline::new(
        Box::new(source),
        Builder::new(Settings::default().identity()),
        Box::new(recorder.clone()),
        Arc::clone(&status),
        Metrics::register(metrics).unwrap(),
    );
    (pipeline, recorder, status)
}
