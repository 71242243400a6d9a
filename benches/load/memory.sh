#!/usr/bin/env bash
# What idle connections cost, and whether memory comes back after 100,000 of them: a release build held to what is promised
# (20 KiB plain, 40 KiB with TLS; within a fifth of the start). Prints the numbers, fails when one is missed.
set -euo pipefail
cd "$(dirname "$0")/../.."
cargo build --release -p gateway --bin limen
target=${CARGO_TARGET_DIR:-$PWD/target}
# Thousands of connections at one time take as many descriptors on each side.
ulimit -n "$(ulimit -Hn)"
LIMEN_BIN=${LIMEN_BIN:-$target/release/limen} \
    cargo test -p gateway --test live -- --ignored --nocapture memory::the_promised_numbers
