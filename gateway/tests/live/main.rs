//! The built binary as a user runs it: a folder of YAML, real sockets, real signals.
//!
//! Everything is on loopback and on ports that the system gave. What is waited for is asked for again and again until
//! it holds or patience ends; nothing sleeps in the hope that it will be enough.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    reason = "a broken promise ends the test, in the harness as in the test"
)]

mod attacks;
mod changes;
mod corpus;
mod credentials;
mod edge;
mod egress;
mod errors;
mod faults;
mod front;
mod handover;
mod harness;
mod identity;
mod keys;
mod limits;
mod measure;
mod memory;
mod memory_limit;
mod namespace;
mod noise;
mod ports;
mod responses;
mod scale;
mod seen;
mod shutdown;
mod sidecar;
mod streams;
