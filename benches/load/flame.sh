#!/usr/bin/env bash
# Where a request's time goes: a flame graph of the release under the load of cost.sh, the kernel's part included where the machine
# lets it be seen, in benches/results/flame.svg; and the functions that take most, as a table.
#
# Usage: benches/load/flame.sh [SECONDS] ; LIMEN=PATH and EXAMPLES=FOLDER measure another binary.
set -euo pipefail
cd "$(dirname "$0")/../.."
seconds=${1:-10}
command -v perf >/dev/null || { apt-get update -qq && apt-get install -y -qq linux-perf; } >/dev/null 2>&1 ||
  { echo "perf is missing: apt-get install linux-perf" >&2; exit 2; }
command -v inferno-flamegraph >/dev/null ||
  cargo install -q inferno --version 0.12.3 --locked --no-default-features --features cli ||
  { echo "inferno is missing: cargo install inferno" >&2; exit 2; }
. benches/load/common.sh
load_begin
start_upstream
start_limen benches/load/cost.yaml --access-log text
load() { wrk -t1 -c32 -d"$1s" -H 'Host: shop.example.com' -H 'x-user: jason' "http://127.0.0.1:$edge/api/items?page=2" >/dev/null; }
load 2
load $((seconds + 1)) &
# cpu-clock: there is no counter of cycles in a virtual machine.
perf record -q -e cpu-clock -F 2000 -g --call-graph dwarf,16384 -p "$limen_pid" -o "$scratch/perf.data" -- sleep "$seconds" 2>/dev/null ||
  perf record -q -e cpu-clock:u -F 2000 -g --call-graph dwarf,16384 -p "$limen_pid" -o "$scratch/perf.data" -- sleep "$seconds"
wait $!
perf script -i "$scratch/perf.data" --no-inline 2>/dev/null | inferno-collapse-perf 2>/dev/null > "$scratch/folded"
mkdir -p benches/results
inferno-flamegraph --title "A request: CPU of limen" --width 1400 "$scratch/folded" > benches/results/flame.svg 2>/dev/null
perf report -i "$scratch/perf.data" --no-children --no-inline --stdio -g none --percent-limit 0.7 2>/dev/null | grep -v '^#' | grep -v '^$' | cut -c1-150
