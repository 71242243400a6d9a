//! `limen run --role sidecar` behind the rules of `deploy/sidecar/redirect`, in namespaces of the kernel's. What it is asked is in
//! `tests/sidecar.py`, which is a user of its own on a network of its own.

use std::process::Command;

use crate::harness::{binary, say_loudly};

/// How the script ends on a machine that gives no namespaces.
const SKIPPED: i32 = 77;

#[test]
fn a_sidecar_serves_what_is_redirected_to_it() {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/sidecar.py");
    let output = Command::new("python3").arg(script).env("LIMEN_BIN", binary()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    if output.status.code() == Some(SKIPPED) {
        return say_loudly(&format!("NOT TRIED: {said}"));
    }
    assert!(output.status.success(), "{said}");
}
