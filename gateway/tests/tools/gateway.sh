# A gateway for a tool from outside to look at; sourced by the scripts beside it. Not a test by itself.
#
# $plain: HTTP, forwarded to an upstream (a listener of the same process); $secure: the same behind TLS with the defaults.
# LIMEN names the binary; without it, a debug build.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../../.." && pwd)
target_dir=${CARGO_TARGET_DIR:-$root/target}
tools=$target_dir/tools
work=$(mktemp -d)
pids=()
trap 'kill "${pids[@]}" 2>/dev/null || true; rm -rf "$work"' EXIT

if [ -z "${LIMEN:-}" ]; then
  (cd "$root" && cargo build --locked -p gateway --bin limen)
  LIMEN=$target_dir/debug/limen
fi

# need COMMAND PACKAGE: installs what is missing, where that is allowed.
need() {
  command -v "$1" >/dev/null && return
  if [ "$(id -u)" = 0 ]; then
    apt-get update >/dev/null && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "$2" >/dev/null
  else
    echo "missing: sudo apt-get install $2" >&2
    exit 1
  fi
}

port() {
  local port
  while :; do
    port=$((RANDOM % 20000 + 20000))
    (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null || break
  done
  echo "$port"
}

# start FLAG…
start() {
  need openssl openssl
  plain=$(port) secure=$(port) upstream=$(port) admin=$(port) status=$(port) metrics=$(port)
  openssl req -x509 -newkey rsa:2048 -nodes -days 90 -subj /CN=edge.example -addext subjectAltName=DNS:edge.example \
    -keyout "$work/key.pem" -out "$work/cert.pem" 2>/dev/null
  mkdir "$work/config"
  cat >"$work/config/all.yaml" <<YAML
apiVersion: v1
kind: Secret
metadata: {name: edge, namespace: istio-system}
type: kubernetes.io/tls
data:
  tls.crt: $(base64 -w0 <"$work/cert.pem")
  tls.key: $(base64 -w0 <"$work/key.pem")
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: gw, namespace: default}
spec:
  selector: {istio: ingressgateway}
  servers:
  - {port: {number: $plain, name: http, protocol: HTTP}, hosts: ['*']}
  - {port: {number: $upstream, name: http-up, protocol: HTTP}, hosts: ['*']}
  - {port: {number: $secure, name: https, protocol: HTTPS}, tls: {mode: SIMPLE, credentialName: edge}, hosts: ['edge.example']}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: vs, namespace: default}
spec:
  hosts: ['*']
  gateways: [gw]
  http:
  - match: [{port: $upstream}]
    directResponse: {status: 200, body: {string: "$(printf 'x%.0s' $(seq 2000))"}}
  - route: [{destination: {host: up.example, port: {number: 80}}}]
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: up, namespace: default}
spec:
  hosts: [up.example]
  resolution: STATIC
  ports: [{number: 80, name: http, protocol: HTTP}]
  endpoints: [{address: 127.0.0.1, ports: {http: $upstream}}]
YAML
  "$LIMEN" run --config "$work/config" --bind 127.0.0.1 --admin "127.0.0.1:$admin" --status-addr "127.0.0.1:$status" \
    --metrics-addr "127.0.0.1:$metrics" --access-log off "$@" >"$work/log" 2>&1 &
  gateway=$!
  pids+=("$gateway")
  for _ in $(seq 100); do
    curl -sf -o "$work/body" "http://127.0.0.1:$plain/" && return
    sleep 0.1
  done
  cat "$work/log" >&2
  exit 1
}
