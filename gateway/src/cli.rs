//! The command line: arguments in, text and an exit code out.
//!
//! Invariant: every command is a function of its arguments and writes only where it is told, so tests run it in-process. What a
//! program reads goes to standard output, what a person is told goes to standard error.

pub mod args;
mod check;
mod cluster;
mod explain;
mod get;
mod load;
mod log;
mod output;
mod remote;
mod run;
mod workload;

use std::ffi::OsString;

use clap::{CommandFactory as _, Parser as _};

use crate::report::findings::Paint;
pub(crate) use args::duration;
use args::{Cli, Color, Command, Format};
pub use log::LevelHandle;
pub use output::{Output, Reader, counted};

/// What the process says when it ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Exit {
    /// All is well; for `explain`: the request is routed.
    Ok,
    /// Errors were found, or the process cannot start.
    Failed,
    /// The arguments are wrong.
    Usage,
    /// No route, or no listener.
    NoRoute,
    /// Denied by a policy.
    Denied,
    /// A file that cannot be parsed (BSD sysexits: `EX_DATAERR`).
    Unparsable,
}

impl Exit {
    /// The number.
    #[must_use]
    pub fn code(self) -> u8 {
        match self {
            Exit::Ok => 0,
            Exit::Failed => 1,
            Exit::Usage => 2,
            Exit::NoRoute => 3,
            Exit::Denied => 4,
            Exit::Unparsable => 65,
        }
    }
}

/// Version of the crate, which is the version of the program.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Runs the command that the arguments name; the first is the program's own name.
pub fn main(arguments: impl IntoIterator<Item = OsString>, out: &mut Output<'_>) -> Exit {
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) if error.use_stderr() => {
            out.tell(&error.render().to_string());
            return Exit::Usage;
        }
        Err(error) => {
            out.say(&error.render().to_string());
            return Exit::Ok;
        }
    };
    match cli.command {
        Command::Run(args) => run::run(&args, out),
        Command::Check(args) => check::check(&args, out),
        Command::Explain(args) => explain::explain(&args, out),
        Command::Get(args) => get::get(&args, out),
        Command::Version(args) => {
            match args.output {
                Format::Text => out.say(&format!("limen {VERSION}\n")),
                Format::Json => out.json(&serde_json::json!({"name": "limen", "version": VERSION})),
            }
            Exit::Ok
        }
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "limen", &mut script);
            out.say(&String::from_utf8_lossy(&script));
            Exit::Ok
        }
    }
}

/// Colour where it was asked for, or where a person looks and has not said no (no-color.org).
fn paint(color: Color, reader: Reader) -> Paint {
    let wanted = match (color, reader) {
        (Color::Always, _) => true,
        (Color::Never, _) | (Color::Auto, Reader::Program) => false,
        (Color::Auto, Reader::Person) => std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()),
    };
    if wanted { Paint::Colour } else { Paint::Plain }
}

#[cfg(test)]
mod tests;
