//! The collectors and files that are written to now: made anew where the configuration changed, kept where it did not.
//!
//! Invariant: what was handed to one that is no longer named is still written. Requests of an older configuration go on handing
//! over until they end.

use super::{
    access_log::{
        AccessLog,
        records::{RecordFormat, Records},
    },
    export::{Courier, Exported},
    log_plan::{LogRule, Output, Written},
    logs::{Rule, Sink},
    plan::TracePlan,
    trace::{Recipe, Tracer, Tracing},
};
use config_model::mesh::provider::LogValue;
use prometheus::IntCounter;
use std::{
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};
use tokio::{runtime::Handle, task::JoinHandle};

/// Tasks that send.
#[derive(Clone, Default)]
pub struct Tasks(Arc<Mutex<Vec<JoinHandle<()>>>>);

impl Tasks {
    pub(super) fn add(&self, task: JoinHandle<()>) {
        let mut tasks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        tasks.retain(|task| !task.is_finished());
        tasks.push(task);
    }

    /// Waits until all have sent what they have, or so long. Whoever hands over must be gone by then.
    pub fn finish(&self, runtime: &Handle, most: Duration) {
        let tasks = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        let all = futures::future::join_all(tasks);
        if runtime.block_on(async { tokio::time::timeout(most, all).await }).is_err() {
            tracing::warn!("collectors do not take the last spans and log records in {most:?}");
        }
    }
}

/// Files that are written.
#[derive(Clone, Default)]
pub struct Files(Arc<Mutex<Vec<Weak<AccessLog>>>>);

impl Files {
    fn add(&self, log: &Arc<AccessLog>) {
        let mut files = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        files.retain(|file| file.strong_count() > 0);
        files.push(Arc::downgrade(log));
    }

    /// Has all of them opened anew.
    pub fn reopen(&self) {
        let files = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        files.iter().filter_map(Weak::upgrade).for_each(|log| log.reopen());
    }
}

/// The collectors and files that are written to now.
pub struct Collectors {
    courier: Arc<dyn Courier>,
    exported: Exported,
    lines_dropped: IntCounter,
    runtime: Handle,
    tasks: Tasks,
    files: Files,
    tracers: Vec<(Recipe, Arc<Tracer>)>,
    logs: Vec<(Output, Sink)>,
}

impl Collectors {
    /// None yet. Their tasks run on `runtime`, which must not be the data plane's; `lines_dropped` counts lines that did not fit.
    #[must_use]
    pub fn new(
        courier: Arc<dyn Courier>,
        exported: Exported,
        lines_dropped: IntCounter,
        runtime: Handle,
    ) -> Self {
        Self {
            courier,
            exported,
            lines_dropped,
            runtime,
            tasks: Tasks::default(),
            files: Files::default(),
            tracers: Vec::new(),
            logs: Vec::new(),
        }
    }

    /// The files.
    #[must_use]
    pub fn files(&self) -> Files {
        self.files.clone()
    }

    /// Opens what rules name, and keeps what is open; what cannot be opened is said, and its rule left out.
    pub fn logs(&mut self, rules: Vec<LogRule>) -> (Vec<Rule>, Vec<String>) {
        let before = std::mem::take(&mut self.logs);
        let (mut made, mut problems) = (Vec::with_capacity(rules.len()), Vec::new());
        for LogRule { output, condition, side } in rules {
            let open = self.logs.iter().chain(&before).find(|(known, _)| *known == output);
            let sink = match open {
                Some((_, sink)) => Ok(sink.clone()),
                None => self.open(&output),
            };
            match sink {
                Ok(sink) => {
                    self.logs.push((output, sink.clone()));
                    made.push(Rule { sink, condition, side });
                }
                Err(problem) => problems.push(problem),
            }
        }
        (made, problems)
    }

    fn open(&self, output: &Output) -> Result<Sink, String> {
        let compiled =
            |written: &Written| written.compile().map_err(|error| format!("access log format: {error}"));
        match output {
            Output::Lines(target, written) => {
                let log = AccessLog::start(compiled(written)?, target, self.lines_dropped.clone());
                let log = Arc::new(log.map_err(|error| format!("access log {target}: {error}"))?);
                self.files.add(&log);
                Ok(Sink::Lines(log))
            }
            Output::Records(address, body, labels, resource) => {
                let attributes = labels.iter().map(|(key, value)| {
                    // A label is a text in the API; what is none is shown as JSON is.
                    let written = match value {
                        LogValue::Text(text) => super::access_log::Format::value(text),
                        other => super::access_log::Format::json_value(other),
                    };
                    Ok((key.clone(), written.map_err(|error| format!("access log format: {error}"))?))
                });
                let attributes = attributes.collect::<Result<Vec<_>, String>>()?;
                let format = RecordFormat { body: compiled(body)?, attributes };
                let (courier, exported) = (self.courier.clone(), &self.exported);
                let (address, resource) = (address.clone(), resource.clone());
                tracing::info!(collector = %address.to, "access logs go to a collector");
                let (records, task) =
                    Records::start(format, resource, address, courier, exported, &self.runtime);
                self.tasks.add(task);
                Ok(Sink::Records(Arc::new(records)))
            }
        }
    }

    /// Their tasks.
    #[must_use]
    pub fn tasks(&self) -> Tasks {
        self.tasks.clone()
    }

    /// Does what plans say, each for a side; those of one recipe share what sends their spans.
    pub fn tracing<const N: usize>(&mut self, plans: [TracePlan; N]) -> [Tracing; N] {
        let before = std::mem::take(&mut self.tracers);
        plans.map(|TracePlan { sampling, propagation, recipe }| {
            let tracer = recipe.map(|recipe| self.tracer(recipe, &before));
            Tracing { sampling, propagation, tracer, ..Tracing::default() }
        })
    }

    fn tracer(&mut self, recipe: Recipe, before: &[(Recipe, Arc<Tracer>)]) -> Arc<Tracer> {
        if let Some((_, tracer)) = self.tracers.iter().find(|(known, _)| *known == recipe) {
            return tracer.clone();
        }
        let tracer = match before.iter().find(|(known, _)| *known == recipe) {
            Some((_, tracer)) => tracer.clone(),
            None => {
                tracing::info!(collector = %recipe.address.to, "traces go to a collector");
                let (courier, exported) = (self.courier.clone(), &self.exported);
                let (tracer, task) = Tracer::start(recipe.clone(), courier, exported, &self.runtime);
                self.tasks.add(task);
                Arc::new(tracer)
            }
        };
        self.tracers.push((recipe, tracer.clone()));
        tracer
    }
}
