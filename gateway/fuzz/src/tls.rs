#[path = "../../src/tls/client_hello.rs"]
pub(crate) mod client_hello;
