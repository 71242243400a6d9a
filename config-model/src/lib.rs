//! Istio's networking API as types: what users write, read with positions, validated, and explained.
//!
//! Invariant: pure. No file is opened, no clock read, and nothing a user writes can panic. `Validated` is made only by
//! `validate::validate`, so whoever holds one holds resources that Istio's admission would accept.

pub mod annotation;
pub mod cel;
pub mod derived;
pub mod diagnostic;
pub mod istio;
pub mod kubernetes;
pub mod mesh;
pub mod meta;
pub mod parse;
pub mod scalar;
pub mod set;
pub mod support;
pub mod validate;
