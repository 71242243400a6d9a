//! From what a user writes to operations that can be done.
//!
//! Invariant: what cannot be done is left out and reported; the rest is kept.

use super::{Direction, HeaderOps, HeaderPlan, HeaderText};
use config_model::{
    istio::virtual_service::{HeaderOperations, Headers},
    scalar::HeaderName as ModelName,
};
use http::HeaderName;
use std::{fmt, sync::Arc};

impl HeaderOps {
    /// Compiles one block. What cannot be done is left out and reported; the rest is kept.
    pub fn compile(model: &HeaderOperations, direction: Direction) -> CompiledOps {
        let mut compiled = CompiledOps::default();
        let mut remove = Vec::new();
        for name in &model.remove {
            match editable(name) {
                Some(name) => remove.push(name),
                None => compiled.report(name, ProblemKind::NotEditable),
            }
        }
        let mut authorities = [None, None];
        let mut blocks = [Vec::new(), Vec::new()];
        for ((pairs, block), authority) in
            [&model.set, &model.add].into_iter().zip(&mut blocks).zip(&mut authorities)
        {
            for (name, text) in pairs {
                match editable(name) {
                    Some(header) => match HeaderText::parse(text) {
                        Ok(Some(value)) => block.push((header, value)),
                        Ok(None) => {}
                        Err(kind) => compiled.report(name, kind),
                    },
                    // The authority is no header value, and operators mean nothing in it (Istio: `translateAppendHeaders`).
                    None if direction == Direction::Request && is_authority(name) => {
                        if !text.is_empty() && authority.is_none() {
                            *authority = Some(Arc::from(text.as_str()));
                        }
                    }
                    None => compiled.report(name, ProblemKind::NotEditable),
                }
            }
        }
        let [set, add] = blocks;
        let [from_set, from_add] = authorities;
        compiled.authority = from_set.or(from_add);
        compiled.ops =
            Self { remove: remove.into(), set: set.into(), add: add.into(), then: None, authority: None };
        compiled
    }
}

/// What compiling one block gave.
#[derive(Clone, Debug, Default)]
pub struct CompiledOps {
    /// The operations that can be done.
    pub ops: HeaderOps,
    /// Authority to send upstream, where the block sets or adds `host` or `:authority`; set beats add.
    pub authority: Option<Arc<str>>,
    /// The operations that cannot.
    pub problems: Vec<HeaderProblem>,
}

impl CompiledOps {
    fn report(&mut self, name: &ModelName, kind: ProblemKind) {
        self.problems.push(HeaderProblem { name: name.as_str().into(), kind });
    }
}

/// An operation that was left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeaderProblem {
    /// Header that it names.
    pub name: Box<str>,
    /// Why it was left out.
    pub kind: ProblemKind,
}

/// Why a header operation was left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProblemKind {
    /// Pseudo-headers and `host` cannot be edited here.
    NotEditable,
    /// The value has a command operator that is not known here.
    Formatter,
    /// The value has bytes that no header may have (RFC 9110 §5.5).
    InvalidValue,
}

impl fmt::Display for HeaderProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = &self.name;
        match self.kind {
            ProblemKind::NotEditable => write!(f, "header `{name}` cannot be changed here"),
            ProblemKind::Formatter => {
                write!(f, "header `{name}`: the value has a command operator that is not honoured")
            }
            ProblemKind::InvalidValue => {
                write!(f, "header `{name}`: the value has bytes that a header cannot carry")
            }
        }
    }
}

impl HeaderPlan {
    /// Compiles a `headers` field of a rule or a destination; what cannot be done is left out and reported.
    #[must_use]
    pub fn compile(model: Option<&Headers>) -> (Self, Vec<HeaderProblem>) {
        let block = |operations: Option<&HeaderOperations>, direction| {
            operations
                .map_or_else(CompiledOps::default, |operations| HeaderOps::compile(operations, direction))
        };
        let request = block(model.and_then(|headers| headers.request.as_ref()), Direction::Request);
        let response = block(model.and_then(|headers| headers.response.as_ref()), Direction::Response);
        let problems = request.problems.into_iter().chain(response.problems).collect();
        let plan = Self {
            request: request.ops,
            response: response.ops,
            authority: request.authority,
            passing: None,
        };
        (plan, problems)
    }
}

fn is_authority(name: &ModelName) -> bool {
    matches!(name.as_str(), ":authority" | "host")
}

fn editable(name: &ModelName) -> Option<HeaderName> {
    if name.as_str() == "host" { None } else { name.to_http() }
}
