#!/usr/bin/env bash
# What a rule with every feature adds to a request: CPU of one Limen for a route that asks for nothing and for one that
# asks for everything, by turns: the same process, connections, upstream and path.
#
# Usage: benches/load/features.sh [ROUNDS] [SECONDS] ; LIMIT=3 fails above that many microseconds.
# LOG=off leaves the access log out, which makes up about the same of both.
set -euo pipefail
cd "$(dirname "$0")/../.."
rounds=${1:-5} seconds=${2:-5} limit=${LIMIT:-3} log=${LOG:-text}
target=${CARGO_TARGET_DIR:-target}
command -v wrk >/dev/null || { apt-get update -qq && apt-get install -y -qq wrk; } >/dev/null 2>&1 \
  || { echo "wrk is missing: apt-get install wrk" >&2; exit 2; }
cargo build --release --locked -q -p gateway --bin limen
cargo build --release --locked -q -p benches --examples

scratch=$(mktemp -d); pids=()
trap 'kill -KILL "${pids[@]}" 2>/dev/null || true; rm -rf "$scratch"' EXIT
free_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }
up=$(free_port); edge=$(free_port); admin=$(free_port); status=$(free_port); metrics=$(free_port)

sed -e "s/@UPSTREAM_PORT@/$up/" benches/load/features.yaml > "$scratch/config.yaml"
"$target/release/examples/upstream" "127.0.0.1:$up" "127.0.0.2:$up" & pids+=($!)
"$target/release/limen" run --config "$scratch" --bind 127.0.0.1 --port-map "80=$edge" --threads 1 \
  --admin "127.0.0.1:$admin" --status-addr "127.0.0.1:$status" --metrics-addr "127.0.0.1:$metrics" \
  --access-log "$log" --access-log-file "$scratch/access.log" --log-level warn & pids+=($!); limen_pid=$!
for _ in $(seq 100); do curl -sf "http://127.0.0.1:$status/healthz/ready" >/dev/null && break; sleep 0.1; done

# Both routes must do what they say, or the difference says nothing.
answer() { curl -sf -D - -o /dev/null -H "Host: $1" -H 'x-user: jason' -H 'Origin: https://www.example.com' "http://127.0.0.1:$edge/api/items?page=2"; }
answer plain.example.com | grep -i '^x-served-by' >/dev/null && { echo "the plain route has features" >&2; exit 1; }
answer all.example.com | grep -i '^x-served-by' >/dev/null || { echo "the other route has none" >&2; exit 1; }

ticks() { awk '{print $14 + $15}' "/proc/$limen_pid/stat"; }
# Prints microseconds of CPU per request for host $1.
run() {
  local before after requests
  before=$(ticks)
  requests=$(wrk -t1 -c32 -d"${seconds}s" -H "Host: $1" -H 'x-user: jason' -H 'Origin: https://www.example.com' \
    "http://127.0.0.1:$edge/api/items?page=2" | tee "$scratch/wrk.txt" | awk '/requests in/ {print $1}')
  after=$(ticks)
  if grep -q 'Non-2xx' "$scratch/wrk.txt"; then echo "load met errors:" >&2; cat "$scratch/wrk.txt" >&2; exit 1; fi
  awk -v t=$((after - before)) -v hz="$(getconf CLK_TCK)" -v n="$requests" 'BEGIN {printf "%.3f\n", t / hz / n * 1e6}'
}
run plain.example.com >/dev/null; run all.example.com >/dev/null
for i in $(seq "$rounds"); do
  a=$(run plain.example.com); b=$(run all.example.com)
  echo "$a" >> "$scratch/plain"; echo "$b" >> "$scratch/all"
  awk -v i="$i" -v a="$a" -v b="$b" 'BEGIN {printf "round %d: nothing %.2f us/request, everything %.2f us/request, difference %.2f us\n", i, a, b, b - a}'
done
median() { sort -n "$1" | awk '{v[NR] = $1} END {print v[int((NR + 1) / 2)]}'; }
awk -v a="$(median "$scratch/plain")" -v b="$(median "$scratch/all")" -v limit="$limit" 'BEGIN {
  printf "median: nothing %.2f us, everything %.2f us, difference %.2f us (limit %.2f)\n", a, b, b - a, limit
  exit b - a > limit }'
