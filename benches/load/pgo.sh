#!/usr/bin/env bash
# What limen does under load, counted anew into limen.profdata: built with counters, driven over HTTP/1, HTTP/2 and TLS; then the
# release that is laid out by it. Takes two full builds. For a change of the hot path, or another compiler.
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
command -v openssl >/dev/null || { apt-get update -qq && apt-get install -y -qq openssl; } >/dev/null 2>&1 ||
  { echo "openssl is missing: apt-get install openssl" >&2; exit 2; }

# In a folder of its own: with other flags nothing is shared with an ordinary build. One place for the counts: another would be
# other flags, and everything built anew.
built=$(realpath -m "${CARGO_TARGET_DIR:-target}")
counts=$built/pgo/counts
rm -rf "$counts"
CARGO_INCREMENTAL=0 CARGO_TARGET_DIR=$built/pgo/counting RUSTFLAGS="-Cprofile-generate=$counts" \
  cargo build --release --locked -p gateway --bin limen --target "$host"
LIMEN=$built/pgo/counting/$host/release/limen
. benches/load/common.sh
load_begin
start_upstream

# begin CONFIG: serves it; end: counts are written when limen has drained.
begin() { edge=$(free_port); start_limen "$1" --access-log text --drain-time 5s --min-drain-time 0s; }
end() { kill -TERM "$limen_pid"; wait "$limen_pid"; }

# drive SCHEME HOST: by HTTP/1 and HTTP/2.
drive() {
  local url="$1://127.0.0.1:$edge/api/items?page=2"
  local fields=(-H "Host: $2" -H 'x-user: jason' -H 'Origin: https://www.example.com')
  wrk -t1 -c32 -d"${seconds}s" "${fields[@]}" "$url" >/dev/null
  h2load -p h2c -c8 -m16 -D "$seconds" -H ":authority: $2" -H 'x-user: jason' "$url" >/dev/null
}
begin benches/load/cost.yaml
drive http shop.example.com
drive http nobody.example.org
end
cat benches/load/cost.yaml benches/load/traced.yaml > "$scratch/traced.yaml"
begin "$scratch/traced.yaml"
drive http shop.example.com
end
begin benches/load/features.yaml
drive http plain.example.com
drive http all.example.com
end
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=shop.example.com \
  -addext subjectAltName=DNS:shop.example.com -keyout "$scratch/tls.key" -out "$scratch/tls.crt" 2>/dev/null
begin benches/load/secure.yaml
drive https shop.example.com
# A handshake for each request.
wrk -t1 -c8 -d"${seconds}s" -H 'Host: shop.example.com' -H 'Connection: close' "https://127.0.0.1:$edge/api/items" >/dev/null
end

# many HOSTS: a VirtualService of five rules and a ServiceEntry for each.
many() {
  cat benches/load/cost.yaml
  for n in $(seq "$1"); do
    printf -- '---\napiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: vs-%s, namespace: default}\nspec:\n' "$n"
    printf '  hosts: [h%s.example.com]\n  gateways: [istio-system/public]\n  http:\n' "$n"
    for p in 0 1 2 3 4; do
      printf '    - match: [{uri: {prefix: /p%s/}}]\n      route: [{destination: {host: s%s.example, port: {number: 80}}}]\n' "$p" "$n"
    done
    printf -- '---\napiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata:\n  name: s%s\n  namespace: default\nspec:\n' "$n"
    printf '  hosts: [s%s.example]\n  resolution: STATIC\n  ports: [{number: 80, name: http, protocol: HTTP}]\n  endpoints: [{address: 10.0.0.1}]\n' "$n"
  done
}
# A large configuration is read, checked and compiled, and again after each change.
many 3000 > "$scratch/many.yaml"
begin "$scratch/many.yaml"
for n in $(seq 8); do
  sed -i "s#prefix: /p4/.*}}]#prefix: /p4/$n}}]#" "$scratch/config.$edge/config.yaml"
  sleep 2
done
end

# Without what was never called: that needs no word.
"$tools/llvm-profdata" merge --sparse -o benches/load/limen.profdata "$counts"/*.profraw
rustc -V > benches/load/limen.profdata.rustc
# The name of a function that the gateway makes of the engine's: a build that has it is one that the profile speaks of.
named='_ZN13pingora_proxy[A-Za-z0-9_$.]*15process_request28[A-Za-z0-9_$.]*E'
grep -aom1 "$named" "$LIMEN" | head -n1 > benches/load/limen.profdata.symbol
benches/load/release.sh
