#!/usr/bin/env bash
# What idle connections cost, and whether memory comes back after 100,000 of them: a release build held to what is promised
# (20 KiB plain, 40 KiB with TLS; within a fifth of the start). Prints the numbers, fails when one is missed.
set -euo pipefail
cd "$(dirname "$0")/../.."
limen=${LIMEN_BIN:-$(benches/load/release.sh)}
# Thousands of connections at one time take as many descriptors on each side.
ulimit -n "$(ulimit -Hn)"
LIMEN_BIN=$limen \
    cargo test -p gateway --test live -- --ignored --nocapture memory::the_promised_numbers
