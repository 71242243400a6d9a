//! `limen run --role sidecar` behind the rules of `deploy/sidecar/redirect`, in namespaces of the kernel's. What it is asked is in
//! `tests/sidecar.py` and `tests/sidecar_listeners.py`, which are users of their own on networks of their own.

use std::process::Command;

use crate::harness::{binary, say_loudly};

/// How the scripts end on a machine that gives no namespaces.
const SKIPPED: i32 = 77;

fn tried(script: &str) {
    let script = format!("{}/tests/{script}", env!("CARGO_MANIFEST_DIR"));
    let output = Command::new("python3").arg(script).env("LIMEN_BIN", binary()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    if output.status.code() == Some(SKIPPED) {
        return say_loudly(&format!("NOT TRIED: {said}"));
    }
    assert!(output.status.success(), "{said}");
}

#[test]
fn a_sidecar_serves_what_is_redirected_to_it() {
    tried("sidecar.py");
}

#[test]
fn a_sidecar_serves_the_listeners_that_its_sidecar_writes_and_takes_whom_the_policies_take() {
    tried("sidecar_listeners.py");
}
