//! How it runs.

pub mod app;
pub mod drain;
pub mod listener;
pub mod shutdown;
pub mod tls;
