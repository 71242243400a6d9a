#!/usr/bin/env bash
# What being seen costs a request: CPU of a Limen that writes a text access log and traces 1 % of requests, against one that does
# neither, by turns: the same configuration, upstream and path. Metrics are counted by both, for they cannot be left out; what they
# cost is benches/benches/record.rs's to say.
#
# Usage: benches/load/telemetry.sh [ROUNDS] [SECONDS] ; LIMIT=2.5 fails above that many microseconds. LIMEN=PATH and EXAMPLES=FOLDER
# measure another binary.
set -euo pipefail
cd "$(dirname "$0")/../.."
rounds=${1:-5} seconds=${2:-5} limit=${LIMIT:-2.5}
. benches/load/common.sh
load_begin
start_upstream
cat benches/load/cost.yaml benches/load/traced.yaml > "$scratch/traced.yaml"
start_limen benches/load/cost.yaml --access-log off; off_pid=$limen_pid off=$edge
edge=$(free_port)
start_limen "$scratch/traced.yaml" --access-log text; on_pid=$limen_pid on=$edge on_metrics=$metrics

run() {
  cpu_under_load "$1" "$seconds" -H 'Host: shop.example.com' -H 'x-user: jason' "http://127.0.0.1:$2/api/items?page=2"
}
run "$off_pid" "$off" >/dev/null; run "$on_pid" "$on" >/dev/null
# It must do what it says, or the difference says nothing.
grep -q '/api/items' "$scratch/access.$on.log" || { echo "nothing was logged" >&2; exit 1; }
curl -sf "http://127.0.0.1:$on_metrics/stats/prometheus" | grep '^limen_telemetry_export' | grep -v ' 0$' >/dev/null ||
  { echo "nothing was traced" >&2; exit 1; }
for i in $(seq "$rounds"); do
  a=$(run "$off_pid" "$off"); b=$(run "$on_pid" "$on")
  echo "$a" >> "$scratch/off"; echo "$b" >> "$scratch/on"
  awk -v i="$i" -v a="$a" -v b="$b" 'BEGIN {printf "round %d: off %.2f us/request, on %.2f us/request, difference %.2f us\n", i, a, b, b - a}'
done
awk -v a="$(median "$scratch/off")" -v b="$(median "$scratch/on")" -v limit="$limit" 'BEGIN {
  printf "median: off %.2f us, on %.2f us, difference %.2f us (limit %.2f)\n", a, b, b - a, limit
  exit b - a > limit }'
