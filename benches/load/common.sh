# What the load scripts share: ports, one Limen on one thread in front of the upstream, and its CPU. Sourced, not run.
#
# Begin with `load_begin`; it sets $target, $scratch, $pids, $up and $edge. LIMEN names another binary than that of release.sh,
# EXAMPLES another folder of the upstream and its like.

need_wrk() {
  command -v wrk >/dev/null || { apt-get update -qq && apt-get install -y -qq wrk; } >/dev/null 2>&1 ||
    { echo "wrk is missing: apt-get install wrk" >&2; exit 2; }
}

free_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }

load_begin() {
  need_wrk
  target=${CARGO_TARGET_DIR:-target}
  limen=${LIMEN:-$(benches/load/release.sh)}
  examples=${EXAMPLES:-$target/release/examples}
  [ -n "${EXAMPLES:-}" ] || cargo build --release --locked -q -p benches --examples
  scratch=$(mktemp -d) pids=()
  # KILL: stock Pingora takes five minutes to follow a TERM, idle or not.
  trap 'kill -KILL "${pids[@]}" 2>/dev/null || true; rm -rf "$scratch"' EXIT
  up=$(free_port) edge=$(free_port)
}

# start_upstream: the one process behind all endpoints.
start_upstream() {
  "$examples/upstream" "127.0.0.1:$up" "127.0.0.2:$up" &
  pids+=($!)
}

# start_limen CONFIG [FLAG…]: serves the file on port $edge and is ready; its process is $limen_pid, its metrics are on $metrics. The log is not in the
# folder that is watched: each write to it would be taken for a change.
start_limen() {
  local config=$1 admin status
  shift
  admin=$(free_port) status=$(free_port) metrics=$(free_port)
  mkdir -p "$scratch/config.$edge"
  sed -e "s/@UPSTREAM_PORT@/$up/" -e "s|@SCRATCH@|$scratch|g" "$config" > "$scratch/config.$edge/config.yaml"
  "$limen" run --config "$scratch/config.$edge" --bind 127.0.0.1 --port-map "80=$edge" --threads 1 \
    --admin "127.0.0.1:$admin" --status-addr "127.0.0.1:$status" --metrics-addr "127.0.0.1:$metrics" \
    --access-log-file "$scratch/access.$edge.log" --log-level warn "$@" &
  limen_pid=$!
  pids+=("$limen_pid")
  for _ in $(seq 100); do curl -sf "http://127.0.0.1:$status/healthz/ready" >/dev/null && return; sleep 0.1; done
  echo "limen did not become ready" >&2
  exit 1
}

ticks() { awk '{print $14 + $15}' "/proc/$1/stat"; }

# cpu_under_load PID SECONDS ARGUMENT…: microseconds of CPU a request of the process while wrk runs with these arguments.
cpu_under_load() {
  local pid=$1 seconds=$2 before after requests
  shift 2
  before=$(ticks "$pid")
  requests=$(wrk -t1 -c32 -d"${seconds}s" "$@" | tee "$scratch/wrk.txt" | awk '/requests in/ {print $1}')
  after=$(ticks "$pid")
  if grep -q 'Non-2xx' "$scratch/wrk.txt"; then echo "load met errors:" >&2; cat "$scratch/wrk.txt" >&2; exit 1; fi
  awk -v t=$((after - before)) -v hz="$(getconf CLK_TCK)" -v n="$requests" 'BEGIN {printf "%.3f\n", t / hz / n * 1e6}'
}

median() { sort -n "$1" | awk '{v[NR] = $1} END {print v[int((NR + 1) / 2)]}'; }
