//! `limen run`: the gateway that settings describe, for as long as the process lives.
//!
//! Invariant: the process is the gateway's: it follows the signals, counts panics and turns the log.

use super::{Gateway, Panics, Signals};
use crate::{cli::LevelHandle, settings::Settings, shutdown::Exit};

/// Starts everything and serves until drained.
///
/// # Errors
/// What keeps it from starting, in one sentence.
pub fn launch(settings: &Settings, level: LevelHandle) -> Result<Exit, String> {
    let gateway = Gateway::builder()
        .settings(settings.clone())
        .log_level(level)
        .signals(Signals::Follow)
        .panics(Panics::Count)
        .build()
        .map_err(|error| error.to_string())?;
    gateway.run().map_err(|error| format!("cannot serve: {error}"))
}
