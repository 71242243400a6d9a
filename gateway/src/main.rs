//! The `limen` binary: arguments to wiring, no logic.

use std::process::ExitCode;

use gateway::cli::{self, Output};

// Threads hand request memory to each other; mimalloc keeps that cheap and its footprint flat over days.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let (mut out, mut err) = (std::io::stdout(), std::io::stderr());
    let exit = cli::main(std::env::args_os(), &mut Output::new(&mut out, &mut err));
    ExitCode::from(exit.code())
}
