#![no_main]
//! See `laws::http1`.

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| gateway_fuzz::laws::http1(bytes));
