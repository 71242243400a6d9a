#[path = "../../../src/listener/proxy_header/parse.rs"]
pub(crate) mod parse;
