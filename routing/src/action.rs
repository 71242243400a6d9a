//! What a rule does with a request it matched: one file for each kind of transformation.
//!
//! Invariant: plan and apply are apart. A plan is compiled once; applying it needs the request's head and nothing else.

pub mod headers;
pub mod redirect;
pub mod reply;
pub mod rewrite;
