#!/usr/bin/env bash
# Puts the HTTPS variant in place: tls.yaml as it is, and beside it a Secret with a key and a certificate for localhost
# made on the spot. usage: make-tls.sh [CONFIG_DIR]   (default: the sample's own folder)
#
# The Secret is in istio-system because that is where Istio looks: a gateway reads credentials from its own namespace.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
config=${1:-$here/../bookinfo}
[ -d "$config" ] || { echo "make-tls.sh: $config is not a folder" >&2; exit 1; }
config=$(cd "$config" && pwd)
command -v openssl >/dev/null || { echo "make-tls.sh: openssl is not installed" >&2; exit 1; }

# Only the owner may read the key, in the scratch folder as in its place.
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 30 -subj /CN=localhost \
  -addext 'subjectAltName=DNS:localhost,DNS:bookinfo.example.com,IP:127.0.0.1' \
  -keyout "$scratch/key.pem" -out "$scratch/cert.pem" 2>"$scratch/log" || { cat "$scratch/log" >&2; exit 1; }

cat >"$scratch/tls-secret.yaml" <<SECRET
apiVersion: v1
kind: Secret
metadata:
  name: bookinfo-credential
  namespace: istio-system
type: kubernetes.io/tls
data:
  tls.crt: $(base64 -w0 <"$scratch/cert.pem")
  tls.key: $(base64 -w0 <"$scratch/key.pem")
SECRET

# The Secret first, and each by rename, so that a running gateway never reads half a file or a Gateway without its key.
place() { install -m "$3" "$1" "$config/.$2.new" && mv "$config/.$2.new" "$config/$2"; }
place "$scratch/tls-secret.yaml" tls-secret.yaml 600
place "$here/tls.yaml" tls.yaml 644
echo "https://localhost:8443/productpage   (remove $config/tls.yaml and tls-secret.yaml to undo)"
