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
    small_pages();
    let gateway = Gateway::builder()
        .settings(settings.clone())
        .log_level(level)
        .signals(Signals::Follow)
        .panics(Panics::Count)
        .build()
        .map_err(|error| error.to_string())?;
    gateway.run().map_err(|error| format!("cannot serve: {error}"))
}

/// The allocator asks for huge pages, which a large configuration fills less well: it takes an eighth more memory in them, and no less time.
fn small_pages() {
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::thread::disable_transparent_huge_pages(true) {
        tracing::debug!(%error, "memory is in huge pages");
    }
}
