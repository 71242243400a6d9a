#!/usr/bin/env bash
# What a large configuration takes: a release build with 10,000 hosts of five routes each in a folder (a file for each, and one file for
# all), and with 10,000 VirtualServices, 5,000 Services and 50,000 endpoints behind an API server double. Prints the time to the first
# answer, memory, and what one change costs.
#
# Usage: benches/load/scale.sh [HOSTS]
set -euo pipefail
cd "$(dirname "$0")/../.."
limen=${LIMEN_BIN:-$(benches/load/release.sh)}
LIMEN_SCALE=${1:-10000} LIMEN_BIN=$limen \
    cargo test --locked -p gateway --features testing --test live --test kubernetes -- --nocapture --test-threads=1 scale
