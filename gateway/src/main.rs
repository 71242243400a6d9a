//! The `limen` binary: arguments to wiring, no logic.
fn main() {}
