#!/usr/bin/env bash
# A release of limen that is laid out by what it does under load: built with counters, driven, and built again with what was
# counted. Takes two full builds. The binary is target/pgo/limen; benches/load/cost.sh and features.sh measure it with LIMEN=.
#
# Usage: benches/load/pgo.sh [SECONDS of each kind of load]
set -euo pipefail
cd "$(dirname "$0")/../.."
seconds=${1:-6}
host=$(rustc -vV | sed -n 's/^host: //p')
tools=$(rustc --print sysroot)/lib/rustlib/$host/bin
[ -x "$tools/llvm-profdata" ] || rustup component add llvm-tools
command -v h2load >/dev/null || { apt-get update -qq && apt-get install -y -qq nghttp2-client; } >/dev/null 2>&1 ||
  { echo "h2load is missing: apt-get install nghttp2-client" >&2; exit 2; }

# In folders of their own: with other flags nothing is shared with an ordinary build. Naming the target keeps the flags away from
# what runs while building.
built=${CARGO_TARGET_DIR:-$PWD/target}
# One place for the counts: another would be other flags, and everything built anew.
counts=$built/pgo/counts
rm -rf "$counts"
build() {
  CARGO_TARGET_DIR=$built/pgo/$1 RUSTFLAGS=$2 cargo build --release --locked -p gateway --bin limen --target "$host"
}
build counting "-Cprofile-generate=$counts"
LIMEN=$built/pgo/counting/$host/release/limen
. benches/load/common.sh
load_begin
start_upstream

# served CONFIG HOST…: drives each host of a configuration by HTTP/1 and HTTP/2; counts are written when limen has drained.
served() {
  local config=$1 name
  shift
  edge=$(free_port)
  start_limen "$config" --access-log text --drain-time 5s --min-drain-time 0s
  for name in "$@"; do
    local url="http://127.0.0.1:$edge/api/items?page=2"
    local fields=(-H "Host: $name" -H 'x-user: jason' -H 'Origin: https://www.example.com')
    wrk -t1 -c32 -d"${seconds}s" "${fields[@]}" "$url" >/dev/null
    h2load -p h2c -c8 -m16 -D "$seconds" -H ":authority: $name" -H 'x-user: jason' "$url" >/dev/null
  done
  kill -TERM "$limen_pid"
  wait "$limen_pid"
}
served benches/load/cost.yaml shop.example.com nobody.example.org
served benches/load/features.yaml plain.example.com all.example.com

# Cargo does not see that the counts are others than last time.
rm -rf "$built/pgo/driven"
"$tools/llvm-profdata" merge -o "$counts/merged.profdata" "$counts"/*.profraw
build driven "-Cprofile-use=$counts/merged.profdata"
install -m 0755 "$built/pgo/driven/$host/release/limen" "$built/pgo/limen"
echo "$built/pgo/limen"
