//! `limen run`: the gateway that settings describe, for as long as the process lives.
//!
//! Invariant: the process is the gateway's: it follows the signals, counts panics and turns the log.

use super::{Gateway, Panics, Signals};
use crate::{
    cli::LevelHandle,
    settings::{CoreDumps, Settings},
    shutdown::Exit,
};

/// Starts everything and serves until drained.
///
/// # Errors
/// What keeps it from starting, in one sentence.
pub fn launch(settings: &Settings, level: LevelHandle) -> Result<Exit, String> {
    small_pages();
    if settings.core_dumps == CoreDumps::Refused {
        no_core();
    }
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

/// No file with our memory: neither from the kernel, which asks for the limit, nor from a program that it pipes to, which does not.
fn no_core() {
    #[cfg(target_os = "linux")]
    {
        use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};
        let none = Rlimit { current: Some(0), maximum: Some(0) };
        let refused = setrlimit(Resource::Core, none)
            .and_then(|()| set_dumpable_behavior(DumpableBehavior::NotDumpable));
        if let Err(error) = refused {
            tracing::warn!(%error, "a crash may leave a file with keys in it: core dumps cannot be refused");
        }
    }
}
