#!/usr/bin/env bash
# Runs the demo: the Bookinfo services, and limen serving this very folder, so that an edit here is live at once.
# usage: run.sh [CONFIG_DIR]   (default: the folder of this script). Ctrl-C, or TERM, ends all of it.
set -uo pipefail
# Each child leads a process group: a Ctrl-C reaches this script alone, which then stops them in order.
set -m

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../../.." && pwd)
config=${1:-$here}
binaries=${CARGO_TARGET_DIR:-$root/target}/release
gateway=http://127.0.0.1:8080
ready=http://127.0.0.1:15021/healthz/ready

say() { printf 'demo: %s\n' "$*" >&2; }

limen_pid='' services_pid=''

alive() { [ -n "$1" ] && kill -0 "$1" 2>/dev/null; }

# TERM, eight seconds to drain and end, then KILL.
stop() {
  alive "$1" || return 0
  kill -TERM "$1" 2>/dev/null
  for _ in {1..80}; do alive "$1" || return 0; sleep 0.1; done
  kill -KILL "$1" 2>/dev/null
}

# The gateway first, so that what it still serves finds its backends; the exit status stays the one we came with.
finish() {
  local status=$?
  trap - EXIT
  trap '' INT TERM HUP
  stop "$limen_pid"
  stop "$services_pid"
  wait 2>/dev/null
  exit "$status"
}
trap finish EXIT
trap 'echo >&2; say "stopping"; exit 0' INT TERM HUP

for binary in limen bookinfo; do
  [ -x "$binaries/$binary" ] || { say "$binaries/$binary is not built; type: make run"; exit 1; }
done
[ -d "$config" ] || { say "$config is not a folder"; exit 1; }

for port in 8080 15000 15020 15021 15090; do
  if (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then
    say "port $port is taken: something on this machine answers there already. End it, and run this again."
    command -v ss >/dev/null && ss -Hltnp "sport = :$port" >&2
    exit 1
  fi
done

"$binaries/bookinfo" all --via-gateway "$gateway" </dev/null &
services_pid=$!
# Nobody balances load over this one gateway, so it need not accept for a while after it is told to stop.
"$binaries/limen" run --config "$config" --drain-time 3s --min-drain-time 0s </dev/null &
limen_pid=$!

# Ends the demo when a part of it has ended by itself; what it had to say is on the screen already.
check_parts() {
  alive "$services_pid" || { wait "$services_pid"; say "the Bookinfo services ended (status $?)"; exit 1; }
  alive "$limen_pid" || { wait "$limen_pid"; say "limen ended (status $?)"; exit 1; }
}

for ((tries = 0; ; tries++)); do
  check_parts
  curl -fs -o /dev/null --max-time 2 "$ready" && break
  [ "$tries" -lt 300 ] || { say "limen is not ready after 30 s"; exit 1; }
  sleep 0.1
done

shown=${config#"$PWD"/}
variants=$here/../bookinfo-variants
variants=$(cd "$variants" && pwd)
variants=${variants#"$PWD"/}
cat >&2 <<TEXT

  Bookinfo is up:   http://localhost:8080/productpage

  1. Edit a rule:   open $shown/internal.yaml, add "subset: v3" below "host: reviews", save,
                    and reload the page: the stars are red from now on.
  2. Split traffic: cp $variants/80-20.yaml $shown/
                    then press "Ask 20 more times" on the page. Delete the copy to undo it.

  Ctrl-C ends it.

TEXT

# Returns when either child ends; a signal ends the wait early and runs its trap.
wait -n "$limen_pid" "$services_pid"
check_parts
