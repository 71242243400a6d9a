#!/usr/bin/env bash
# Asks a running demo for its pages, and fails at the first wrong answer. usage: smoke.sh [URL]
# Expects the sample's configuration as it is in the repository.
set -euo pipefail

base=${1:-http://127.0.0.1:8080}
body=$(mktemp)
trap 'rm -f "$body"' EXIT

fail() { printf 'smoke: %s\n' "$*" >&2; sed -n 1,40p "$body" >&2; exit 1; }

# status PATH [curl arguments]: prints the status, leaves the body in $body
status() {
  local path=$1
  shift
  curl -sS --max-time 20 -o "$body" -w '%{http_code}' "$@" "$base$path" || fail "no answer for $path"
}

# expect STATUS PATH [curl arguments]
expect() {
  local want=$1 path=$2 got
  shift 2
  got=$(status "$path" "$@")
  [ "$got" = "$want" ] || fail "$path: expected $want, got $got"
}

holds() { grep -Eq "$1" "$body" || fail "the answer lacks $1"; }

expect 200 /productpage
holds '<title>Simple Bookstore App</title>'
holds 'productpage-v1-'
holds 'details-v1-'
holds 'reviews-v[123]-'

# Endpoints take turns, or are drawn: in sixty views every version answers.
seen=''
for _ in {1..60}; do
  expect 200 /productpage
  seen+=$(grep -Eo 'reviews-v[123]' "$body" | head -n 1)
  case $seen in *v1*v2*v3* | *v1*v3*v2* | *v2*v1*v3* | *v2*v3*v1* | *v3*v1*v2* | *v3*v2*v1*) break ;; esac
done
for version in v1 v2 v3; do
  case $seen in *"$version"*) ;; *) fail "reviews $version never answered: $seen" ;; esac
done

expect 200 /static/style.css
expect 200 /login
expect 302 /login --data 'username=jason&passwd='
expect 302 /logout
expect 200 /api/v1/products
holds 'The Comedy of Errors'
for part in '' /reviews /ratings; do expect 200 "/api/v1/products/0$part"; done

expect 404 /nope
[ ! -s "$body" ] || fail "/nope: expected an empty body"
expect 404 /productpage/more

echo "smoke: all well at $base"
