#![no_main]
//! See `laws::host`.

#[allow(dead_code, reason = "each target checks its own laws")]
#[path = "../laws.rs"]
mod laws;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| laws::host(bytes));
