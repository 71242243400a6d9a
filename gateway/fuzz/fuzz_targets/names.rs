#![no_main]
//! See `laws::names`.

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| gateway_fuzz::laws::names(bytes));
