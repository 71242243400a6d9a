#!/usr/bin/env bash
# What a rule with every feature adds to a request: CPU of one Limen for a route that asks for nothing and for one that
# asks for everything, by turns: the same process, connections, upstream and path.
#
# Usage: benches/load/features.sh [ROUNDS] [SECONDS] ; LIMIT=3 fails above that many microseconds. LOG=off leaves the access
# log out, which makes up about the same of both. LIMEN=PATH measures another binary.
set -euo pipefail
cd "$(dirname "$0")/../.."
rounds=${1:-5} seconds=${2:-5} limit=${LIMIT:-3}
. benches/load/common.sh
load_begin
start_upstream
start_limen benches/load/features.yaml --access-log "${LOG:-text}"

# Both routes must do what they say, or the difference says nothing.
answer() { curl -sf -D - -o /dev/null -H "Host: $1" -H 'x-user: jason' -H 'Origin: https://www.example.com' "http://127.0.0.1:$edge/api/items?page=2"; }
answer plain.example.com | grep -i '^x-served-by' >/dev/null && { echo "the plain route has features" >&2; exit 1; }
answer all.example.com | grep -i '^x-served-by' >/dev/null || { echo "the other route has none" >&2; exit 1; }

run() {
  cpu_under_load "$limen_pid" "$seconds" -H "Host: $1" -H 'x-user: jason' -H 'Origin: https://www.example.com' \
    "http://127.0.0.1:$edge/api/items?page=2"
}
run plain.example.com >/dev/null; run all.example.com >/dev/null
for i in $(seq "$rounds"); do
  a=$(run plain.example.com); b=$(run all.example.com)
  echo "$a" >> "$scratch/plain"; echo "$b" >> "$scratch/all"
  awk -v i="$i" -v a="$a" -v b="$b" 'BEGIN {printf "round %d: nothing %.2f us/request, everything %.2f us/request, difference %.2f us\n", i, a, b, b - a}'
done
awk -v a="$(median "$scratch/plain")" -v b="$(median "$scratch/all")" -v limit="$limit" 'BEGIN {
  printf "median: nothing %.2f us, everything %.2f us, difference %.2f us (limit %.2f)\n", a, b, b - a, limit
  exit b - a > limit }'
