#![no_main]
//! See `laws::client_hello`.

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| gateway_fuzz::laws::client_hello(bytes));
