# A gateway for a tool from outside to look at; sourced by the scripts beside it. Not a test by itself.
#
# $plain: HTTP, forwarded to $upstream (a listener of the same process, unless a script has put another port there), except what $rules
# of a script say; $secure: the same behind TLS with the defaults, $work/ca.pem signs its certificates. LIMEN names the binary;
# without it, a debug build.
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

# need COMMAND PACKAGE: installs what is missing, where that is allowed. Ends with 77 where it cannot be had: then nothing was tried.
need() {
  command -v "$1" >/dev/null && return
  if [ "$(id -u)" = 0 ]; then
    apt-get update >/dev/null 2>&1 && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "$2" >/dev/null 2>&1 && return
    echo "no $1 here, and $2 cannot be installed"
  else
    echo "no $1 here: sudo apt-get install $2"
  fi
  exit 77
}

port() {
  local port
  while :; do
    # Below what the kernel gives to connections that go out.
    port=$((RANDOM % 12000 + 20000))
    (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null || break
  done
  echo "$port"
}

# certificate NAME FLAG…: a Secret with a fresh key, a certificate as an authority of the web would sign it, and its word that it is good.
certificate() {
  local name=$1 file=$work/$1
  shift
  if ! [ -e "$work/ca.pem" ]; then
    openssl req -x509 -newkey rsa:2048 -nodes -days 365 -subj "/CN=An authority" -keyout "$work/ca.key" -out "$work/ca.pem" 2>"$work/openssl.log"
  fi
  openssl req "$@" -nodes -subj /CN=edge.example -keyout "$file.key" -out "$file.csr" 2>"$work/openssl.log"
  printf '%s\n' subjectAltName=DNS:edge.example keyUsage=critical,digitalSignature,keyEncipherment extendedKeyUsage=serverAuth \
    basicConstraints=critical,CA:FALSE crlDistributionPoints=URI:http://ca.example/crl \
    authorityInfoAccess=OCSP\;URI:http://ca.example/ocsp >"$file.ext"
  openssl x509 -req -in "$file.csr" -CA "$work/ca.pem" -CAkey "$work/ca.key" -CAcreateserial -days 90 -sha256 \
    -extfile "$file.ext" -out "$file.pem" 2>"$work/openssl.log"
  printf 'V\t991231235959Z\t\t%s\tunknown\t/CN=edge.example\n' "$(openssl x509 -noout -serial -in "$file.pem" | cut -d= -f2)" >"$file.index"
  openssl ocsp -index "$file.index" -CA "$work/ca.pem" -rsigner "$work/ca.pem" -rkey "$work/ca.key" -issuer "$work/ca.pem" \
    -cert "$file.pem" -respout "$file.ocsp" -ndays 7 -no_nonce >"$work/openssl.log" 2>&1
  cat <<YAML
---
apiVersion: v1
kind: Secret
metadata: {name: $name, namespace: istio-system}
type: kubernetes.io/tls
data: {tls.crt: $(base64 -w0 <"$file.pem"), tls.key: $(base64 -w0 <"$file.key"), tls.ocsp-staple: $(base64 -w0 <"$file.ocsp")}
YAML
}

# start FLAG…
start() {
  need openssl openssl
  plain=$(port) secure=$(port) answering=${answering:-$(port)} admin=$(port) status=$(port) metrics=$(port)
  upstream=${upstream:-$answering}
  mkdir "$work/config"
  {
    certificate ecdsa -newkey ec -pkeyopt ec_paramgen_curve:P-256
    certificate rsa -newkey rsa:2048
  } >"$work/config/certificates.yaml"
  cat >"$work/config/all.yaml" <<YAML
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: gw, namespace: default}
spec:
  selector: {istio: ingressgateway}
  servers:
  - {port: {number: $plain, name: http, protocol: HTTP}, hosts: ['*']}
  - {port: {number: $answering, name: http-up, protocol: HTTP}, hosts: ['*']}
  - {port: {number: $secure, name: https, protocol: HTTPS}, tls: {mode: SIMPLE, credentialNames: [ecdsa, rsa]}, hosts: ['edge.example']}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: vs, namespace: default}
spec:
  hosts: ['*']
  gateways: [gw]
  http:
  - match: [{port: $answering}]
    directResponse: {status: 200, body: {string: "$(printf 'x%.0s' $(seq 2000))"}}
${rules:-}
  - route: [{destination: {host: up.example, port: {number: 80}}}]
    timeout: 3s
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: up, namespace: default}
spec:
  hosts: [up.example]
  resolution: STATIC
  ports: [{number: 80, name: http, protocol: HTTP}]
  endpoints: [{address: 127.0.0.1, ports: {http: $upstream}}]
${more:-}
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
