#!/usr/bin/env bash
# limen as it is shipped: built for release, and laid out by what it does under load, as limen.profdata has it. Prints the path of
# the binary, target/release/limen. With PROFILE=off it is laid out as the compiler guesses; AUDITABLE=on puts the list of its crates into it,
# as cargo-auditable does, for `cargo audit bin`.
#
# Usage: benches/load/release.sh
set -euo pipefail
cd "$(dirname "$0")/../.."
built=$(realpath -m "${CARGO_TARGET_DIR:-target}")
profile=benches/load/limen.profdata
build=(build)
[ "${AUDITABLE:-off}" = off ] || build=(auditable build)
if [ "${PROFILE:-on}" = off ]; then
  cargo "${build[@]}" --release --locked -p gateway --bin limen >&2
  echo "$built/release/limen"
  exit
fi
host=$(rustc -vV | sed -n 's/^host: //p')
# Functions are found by their names, and those of another compiler are others.
if [ "$(rustc -V)" != "$(cat "$profile.rustc")" ]; then
  echo "release: $profile was made by $(cat "$profile.rustc"), this is $(rustc -V): what it says of most functions is not found." \
    "'make pgo' makes it anew." >&2
fi
# A path of its own for each content, and written once: all that is built depends on it, and a newer file would build all of it anew.
counted=$built/pgo/$(sha256sum "$profile" | cut -c1-16).profdata
[ -e "$counted" ] || install -D -m 0644 "$profile" "$counted"
# Naming the target keeps the flag away from what runs while building. Whether a build is incremental is in the names of functions too.
CARGO_INCREMENTAL=0 CARGO_TARGET_DIR=$built RUSTFLAGS="${RUSTFLAGS:-} -Cprofile-use=$counted" \
  cargo "${build[@]}" --release --locked -p gateway --bin limen --target "$host" >&2
install -D -m 0755 "$built/$host/release/limen" "$built/release/limen"
# Names are others too where a crate that the gateway is built of has another version or other features.
if [ -s "$profile.symbol" ] && ! grep -qaF "$(cat "$profile.symbol")" "$built/release/limen"; then
  echo "release: $profile was made of other versions of crates, or other features: what it says of the gateway's functions is not found." \
    "'make pgo' makes it anew." >&2
fi
echo "$built/release/limen"
