#!/usr/bin/env bash
# What a scrape of 10,000 series costs, and what requests meanwhile feel of it: 150 services, each asked once, make 150 x 67 lines.
#
# Usage: benches/load/scrape.sh [SCRAPES] [SECONDS] ; LIMIT=20 fails above that many milliseconds in the middle. LIMEN=PATH and
# EXAMPLES=FOLDER measure another binary.
set -euo pipefail
cd "$(dirname "$0")/../.."
scrapes=${1:-50} seconds=${2:-5} limit=${LIMIT:-20} services=150
. benches/load/common.sh
load_begin
start_upstream
mkdir -p "$scratch/made"
{
  printf 'apiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {name: public, namespace: istio-system}\n'
  printf 'spec: {selector: {istio: ingressgateway}, servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: ["*"]}]}\n'
  for n in $(seq "$services"); do
    printf -- '---\napiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {name: s%s}\n' "$n"
    printf 'spec: {hosts: [s%s.example.com], resolution: STATIC, ports: [{number: 80, name: http, protocol: HTTP}],\n' "$n"
    printf '  endpoints: [{address: 127.0.0.1, ports: {http: @UPSTREAM_PORT@}, labels: {app: s%s}}]}\n' "$n"
    printf -- '---\napiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: s%s}\n' "$n"
    printf 'spec: {hosts: [s%s.example.com], gateways: [istio-system/public], http: [{route: [{destination: {host: s%s.example.com}}]}]}\n' "$n" "$n"
  done
} > "$scratch/made/many.yaml"
start_limen "$scratch/made/many.yaml" --access-log off
for n in $(seq "$services"); do
  curl -sf -o /dev/null -H "Host: s$n.example.com" "http://127.0.0.1:$edge/" || { echo "s$n does not answer" >&2; exit 1; }
done
url=http://127.0.0.1:$metrics/stats/prometheus
series=$(curl -sf "$url" | grep -vc '^#')
[ "$series" -ge 10000 ] || { echo "only $series series" >&2; exit 1; }
for _ in $(seq "$scrapes"); do curl -sf -o /dev/null -w '%{time_total}\n' "$url"; done | awk '{print $1 * 1000}' | sort -n > "$scratch/times"

# The time of requests without a scrape, and with one after another.
latency() { wrk -t1 -c8 -d"${seconds}s" --latency -H 'Host: s1.example.com' "http://127.0.0.1:$edge/" | awk '/50%|99%/ {printf "%s %s  ", $1, $2}'; }
alone=$(latency)
(while :; do curl -sf -o /dev/null "$url"; sleep 0.1; done) & pids+=($!)
together=$(latency)
echo "requests alone: $alone; with ten scrapes a second: $together"
awk -v n="$series" -v limit="$limit" '{v[NR] = $1} END {
  middle = v[int((NR + 1) / 2)]
  printf "%d series: %d scrapes, median %.1f ms, longest %.1f ms (limit %.1f)\n", n, NR, middle, v[NR], limit
  exit middle > limit }' "$scratch/times"
