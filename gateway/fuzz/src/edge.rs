#[path = "../../src/edge/path.rs"]
mod path;

pub use path::{EscapedSlashes, PathPolicy};
