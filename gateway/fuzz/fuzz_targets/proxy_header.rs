#![no_main]
//! See `laws::proxy_header`.

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| gateway_fuzz::laws::proxy_header(bytes));
