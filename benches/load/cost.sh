#!/usr/bin/env bash
# CPU per request of Limen with every feature of its first slice on, against a bare Pingora pass-through: the same
# load, the same upstream, alternating runs on the same machine. Prints both and their ratio; judges against a limit.
#
# Usage: benches/load/cost.sh [ROUNDS] [SECONDS] ; LIMIT=1.35 fails above that ratio. LIMEN=PATH measures another binary of it.
set -euo pipefail
cd "$(dirname "$0")/../.."
rounds=${1:-5} seconds=${2:-5} limit=${LIMIT:-1.35}
. benches/load/common.sh
load_begin
bare=$(free_port)
start_upstream
"$examples/bare_proxy" "127.0.0.1:$bare" "127.0.0.1:$up" & pids+=($!); bare_pid=$!
start_limen benches/load/cost.yaml --access-log text

run() {
  cpu_under_load "$1" "$seconds" -H 'Host: shop.example.com' -H 'x-user: jason' "http://127.0.0.1:$2/api/items?page=2"
}
run "$bare_pid" "$bare" >/dev/null; run "$limen_pid" "$edge" >/dev/null
for i in $(seq "$rounds"); do
  a=$(run "$bare_pid" "$bare"); b=$(run "$limen_pid" "$edge")
  echo "$a" >> "$scratch/bare"; echo "$b" >> "$scratch/limen"
  echo "round $i: bare Pingora $a us/request, Limen $b us/request"
done
awk -v a="$(median "$scratch/bare")" -v b="$(median "$scratch/limen")" -v limit="$limit" 'BEGIN {
  printf "median: bare Pingora %.2f us, Limen %.2f us, ratio %.3f (limit %.2f)\n", a, b, b / a, limit; exit b / a > limit }'
