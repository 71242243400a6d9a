//! The `limen` binary: arguments to wiring, no logic.

use std::{io::IsTerminal as _, process::ExitCode};

use gateway::cli::{self, Output, Reader};

// Threads hand request memory to each other; mimalloc keeps that cheap and its footprint flat over days.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let (mut out, mut err) = (std::io::stdout(), std::io::stderr());
    let reader = if out.is_terminal() { Reader::Person } else { Reader::Program };
    let exit = cli::main(std::env::args_os(), &mut Output::new(&mut out, &mut err, reader));
    ExitCode::from(exit.code())
}
