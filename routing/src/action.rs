//! What a rule does with a request it matched: one file for each kind of transformation.
//!
//! Invariant: plan and apply are apart. A plan is compiled once; applying it needs the request's head and nothing else
//! but what chance is given.

pub mod cors;
pub mod fault;
pub mod headers;
pub mod mirror;
pub mod redirect;
pub mod reply;
pub mod retry;
pub mod rewrite;
pub mod share;
pub mod timeout;
