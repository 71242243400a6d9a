#![no_main]
//! See `laws::path`.

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| gateway_fuzz::laws::path(bytes));
