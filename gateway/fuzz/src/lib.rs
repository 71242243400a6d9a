//! The gateway's parsers of what strangers send, by themselves: the same files at the same paths of modules, without the engine.

#![allow(dead_code, unused_imports, unreachable_pub, reason = "what the gateway uses of these files and the laws do not")]

mod edge;
#[path = "../laws.rs"]
pub mod laws;
mod listener;
mod proxy;
mod tls;
