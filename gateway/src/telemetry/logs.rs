//! Where requests and connections are logged under one configuration.
//!
//! Invariant: whoever logs never waits. A log is shared between configurations for as long as nothing about it changed, so that no
//! line is lost to a change.

use super::{
    access_log::{AccessLog, Entry, records::Records},
    condition::Condition,
    plan::Side,
};
use std::sync::Arc;

/// All logs.
#[derive(Debug, Default)]
pub struct Logs {
    rules: Box<[Rule]>,
    /// Ports of listeners whose requests are not logged.
    silent: Box<[u16]>,
    /// Whether connections that no listener has a use for are logged.
    connections: Connections,
}

/// Whether connections that no listener has a use for are logged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Connections {
    /// They are, with flag NR.
    #[default]
    Logged,
    /// They are not (MeshConfig: `disableEnvoyListenerLog`).
    Silent,
}

/// One log.
#[derive(Debug)]
pub struct Rule {
    /// Where lines go.
    pub sink: Sink,
    /// Of which requests; `None`: of all.
    pub condition: Option<Condition>,
    /// Of which side's; `None`: of both.
    pub side: Option<Side>,
}

impl Rule {
    fn is_of(&self, side: Side) -> bool {
        self.side.is_none_or(|own| own == side)
    }
}

/// Where lines go.
#[derive(Clone, Debug)]
pub enum Sink {
    /// Standard output, or a file.
    Lines(Arc<AccessLog>),
    /// A collector.
    Records(Arc<Records>),
}

impl Logs {
    /// Logs by these rules, but not of these ports.
    #[must_use]
    pub fn new(rules: Vec<Rule>, silent: Vec<u16>, connections: Connections) -> Self {
        Self { rules: rules.into(), silent: silent.into(), connections }
    }

    /// Whether what a listener of that port serves on a side is logged at all.
    #[must_use]
    pub fn are_for(&self, port: u16, side: Side) -> bool {
        self.rules.iter().any(|rule| rule.is_of(side)) && !self.silent.contains(&port)
    }

    /// Whether connections that no listener of that port has a use for are.
    #[must_use]
    pub fn are_for_connections(&self, port: u16, side: Side) -> bool {
        self.connections == Connections::Logged && self.are_for(port, side)
    }

    /// Logs one request of a side.
    pub fn log(&self, side: Side, entry: &Entry<'_>) {
        for rule in self.rules.iter().filter(|rule| rule.is_of(side)) {
            if rule.condition.as_ref().is_none_or(|condition| condition.holds(entry)) {
                match &rule.sink {
                    Sink::Lines(log) => log.log(entry),
                    Sink::Records(records) => records.log(entry),
                }
            }
        }
    }
}
