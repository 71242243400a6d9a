#[path = "../../src/proxy/forwarded_for.rs"]
pub(crate) mod forwarded_for;
#[path = "../../src/proxy/normalize.rs"]
pub(crate) mod normalize;
