#!/usr/bin/env bash
# What a large configuration takes: a release build with 10,000 hosts of five routes each in a folder (a file for each, and one file for
# all), and with 10,000 VirtualServices, 5,000 Services and 50,000 endpoints behind an API server double. Prints the time to the first
# answer, memory, and what one change costs; of the double, which shares the machine, what it takes besides.
#
# Usage: benches/load/scale.sh [HOSTS]
#   LIMEN_BIN=FILE   the binary that is measured, in place of a release build
#   ONLY=kubernetes  or ONLY=live (the folders)
set -euo pipefail
cd "$(dirname "$0")/../.."
LIMEN_BIN=${LIMEN_BIN:-$(benches/load/release.sh)}
tests=(--test live --test kubernetes)
[ -z "${ONLY:-}" ] || tests=(--test "$ONLY")
# As `make test` builds them: nothing is compiled twice.
LIMEN_SCALE=${1:-${LIMEN_SCALE:-10000}} LIMEN_BIN=$LIMEN_BIN \
    cargo test --workspace --locked --features gateway/testing "${tests[@]}" -- --nocapture --test-threads=1 scale
