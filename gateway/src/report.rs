//! What people and programs are told about a configuration: findings, the story of one request, tables.
//!
//! Invariant: each report is made once as data and shown as text or JSON from that data, so the command line and the admin
//! endpoints cannot differ. Nothing here decides: decisions are the routing crate's.

mod actions;
mod answer;
mod excerpt;
pub mod explain;
pub mod findings;
mod parts;
pub mod question;
pub mod sarif;
mod security;
mod sidecar;
pub mod story;
pub mod table;
