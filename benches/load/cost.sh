#!/usr/bin/env bash
# CPU per request of Limen with every feature of its first slice on, against a bare Pingora pass-through: the same
# load, the same upstream, alternating runs on the same machine. Prints both and their ratio; judges against a limit.
#
# Usage: benches/load/cost.sh [ROUNDS] [SECONDS] ; LIMIT=1.35 fails above that ratio.
set -euo pipefail
cd "$(dirname "$0")/../.."
rounds=${1:-5} seconds=${2:-5} limit=${LIMIT:-1.35}
target=${CARGO_TARGET_DIR:-target}
command -v wrk >/dev/null || { apt-get update -qq && apt-get install -y -qq wrk; } >/dev/null 2>&1 \
  || { echo "wrk is missing: apt-get install wrk" >&2; exit 2; }
cargo build --release --locked -q -p gateway --bin limen
cargo build --release --locked -q -p benches --examples

scratch=$(mktemp -d); pids=()
# KILL: stock Pingora takes five minutes to follow a TERM, idle or not.
trap 'kill -KILL "${pids[@]}" 2>/dev/null || true; rm -rf "$scratch"' EXIT
free_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }
up=$(free_port); bare=$(free_port); edge=$(free_port); admin=$(free_port); status=$(free_port); metrics=$(free_port)

sed -e "s/@UPSTREAM_PORT@/$up/" benches/load/cost.yaml > "$scratch/config.yaml"
"$target/release/examples/upstream" "127.0.0.1:$up" "127.0.0.2:$up" & pids+=($!)
"$target/release/examples/bare_proxy" "127.0.0.1:$bare" "127.0.0.1:$up" & pids+=($!); bare_pid=$!
"$target/release/limen" run --config "$scratch" --bind 127.0.0.1 --port-map "80=$edge" --threads 1 \
  --admin "127.0.0.1:$admin" --status-addr "127.0.0.1:$status" --metrics-addr "127.0.0.1:$metrics" \
  --access-log text --access-log-file "$scratch/access.log" --log-level warn & pids+=($!); limen_pid=$!
for _ in $(seq 100); do curl -sf "http://127.0.0.1:$status/healthz/ready" >/dev/null && break; sleep 0.1; done

ticks() { awk '{print $14 + $15}' "/proc/$1/stat"; }
# Prints microseconds of CPU per request of process $1 under load on port $2.
run() {
  local before after requests
  before=$(ticks "$1")
  requests=$(wrk -t1 -c32 -d"${seconds}s" -H 'Host: shop.example.com' -H 'x-user: jason' \
    "http://127.0.0.1:$2/api/items?page=2" | tee "$scratch/wrk.txt" | awk '/requests in/ {print $1}')
  after=$(ticks "$1")
  if grep -q 'Non-2xx' "$scratch/wrk.txt"; then echo "load met errors:" >&2; cat "$scratch/wrk.txt" >&2; exit 1; fi
  awk -v t=$((after - before)) -v hz="$(getconf CLK_TCK)" -v n="$requests" 'BEGIN {printf "%.3f\n", t / hz / n * 1e6}'
}
run "$bare_pid" "$bare" >/dev/null; run "$limen_pid" "$edge" >/dev/null
for i in $(seq "$rounds"); do
  a=$(run "$bare_pid" "$bare"); b=$(run "$limen_pid" "$edge")
  echo "$a" >> "$scratch/bare"; echo "$b" >> "$scratch/limen"
  echo "round $i: bare Pingora $a us/request, Limen $b us/request"
done
median() { sort -n "$1" | awk '{v[NR] = $1} END {print v[int((NR + 1) / 2)]}'; }
awk -v a="$(median "$scratch/bare")" -v b="$(median "$scratch/limen")" -v limit="$limit" 'BEGIN {
  printf "median: bare Pingora %.2f us, Limen %.2f us, ratio %.3f (limit %.2f)\n", a, b, b / a, limit; exit b / a > limit }'
