#![no_main]
//! See `laws::yaml`.

#[allow(dead_code, reason = "each target checks its own laws")]
#[path = "../laws.rs"]
mod laws;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| laws::yaml(bytes));
