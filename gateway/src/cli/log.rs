//! The process log: standard error, as text or JSON, with a level that can be changed while running.
//!
//! Invariant: set up once, before anything is logged. Must not carry secrets: values come from messages only.

use std::{fmt, sync::Arc};

use tracing_subscriber::{
    EnvFilter, Layer as _, layer::SubscriberExt as _, reload, util::SubscriberInitExt as _,
};

use super::args::Format;

type Set = dyn Fn(&str) -> Result<(), String> + Send + Sync;

/// Changes what is logged.
#[derive(Clone)]
pub struct LevelHandle(Arc<Set>);

impl LevelHandle {
    /// A handle that does what the function does.
    pub fn new(set: impl Fn(&str) -> Result<(), String> + Send + Sync + 'static) -> LevelHandle {
        LevelHandle(Arc::new(set))
    }

    /// Logs by this filter from now on: a level such as `debug`, or filters by module.
    ///
    /// # Errors
    /// When it is not a filter.
    pub fn set(&self, filter: &str) -> Result<(), String> {
        (self.0)(filter)
    }
}

impl fmt::Debug for LevelHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LevelHandle")
    }
}

/// Starts logging.
pub(super) fn start(filter: &str, format: Format, colour: bool) -> Result<LevelHandle, String> {
    let (filter, handle) = reload::Layer::new(parse(filter)?);
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_target(false);
    let lines = match format {
        Format::Text => lines.with_ansi(colour).boxed(),
        Format::Json => lines.json().flatten_event(true).boxed(),
    };
    tracing_subscriber::registry().with(filter).with(lines).try_init().map_err(|error| error.to_string())?;
    Ok(LevelHandle::new(move |filter| handle.reload(parse(filter)?).map_err(|error| error.to_string())))
}

fn parse(filter: &str) -> Result<EnvFilter, String> {
    // Envoy's names for levels, which scripts send to /logging, are ours but for two.
    let filter = match filter {
        "warning" => "warn",
        "critical" => "error",
        other => other,
    };
    EnvFilter::try_new(filter).map_err(|error| format!("log level {filter:?}: {error}"))
}
