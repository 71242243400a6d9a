//! Where configuration comes from: one trait, and the sources that ship.
//!
//! Invariant: a source always tells the whole state, never a difference, so that missing one message loses nothing. What a
//! source cannot read any more it goes on giving as it last was, and says so; it never invents an empty state. A source must
//! not know what is done with the resources.

pub mod directory;
pub mod fixed;
#[doc(hidden)]
pub mod kubernetes;
mod watch;

use async_trait::async_trait;
use config_model::{diagnostic::Diagnostics, set::AnyResource};

/// Everything a source knows at one moment.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Loaded {
    /// Resources as written, in the order of their files' names and of the documents in them. A key may be there twice:
    /// the pipeline reports that and takes the first.
    pub resources: Vec<AnyResource>,
    /// Resources of an earlier state whose text cannot be read just now. They yield to a fresh one with the same key.
    pub kept: Vec<AnyResource>,
    /// What reading found: syntax, unknown kinds, what cannot be opened.
    pub diagnostics: Diagnostics,
    /// Documents that could not be read.
    pub unparsable: usize,
    /// Whether the source itself could be read.
    pub health: Health,
}

/// Whether a source could be read as a whole.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[must_use]
pub enum Health {
    /// All of it was read.
    #[default]
    Synchronized,
    /// A part of it was not: its last good state stands in.
    Stale,
}

/// A source of configuration.
#[async_trait]
pub trait Source: Send {
    /// What it reads, for messages.
    fn describe(&self) -> String;

    /// Waits for the next state: the first call answers with the state of now, later ones when something may have changed
    /// (the same state may come twice). `None`: nothing will ever change again. Dropping the future loses nothing.
    async fn next(&mut self) -> Option<Loaded>;
}
