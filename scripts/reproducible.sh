#!/usr/bin/env bash
# Builds groatd and groat twice, from clones at two places, and compares them byte by byte.
# Without --quick everything is compiled twice from nothing (RocksDB too: the better part of an hour). With it only Groat's own
# crates are, on one and the same build of their dependencies: that says nothing about those, and gives other hashes.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/setup.sh
need_packages git
case "${1:-}" in
  "" | --quick) mode="${1:-}" ;;
  *) echo "usage: scripts/reproducible.sh [--quick]" >&2; exit 2 ;;
esac

commit=$(git rev-parse HEAD)
[ -z "$(git status --porcelain --untracked-files=no)" ] || echo "what is not committed is left out" >&2
work=$(mktemp -d "${TMPDIR:-/tmp}/groat-reproducible.XXXXXX")
trap 'rm -rf "$work"' EXIT
export CARGO_INCREMENTAL=0
# Where the rust-src component is installed, paths of the standard library would be those of this machine.
std="$(rustc --print sysroot)/lib/rustlib/src/rust=/rustc/$(rustc -vV | sed -n 's/^commit-hash: //p')"

# Cargo runs this for the crates of the workspace alone, in its folder.
printf '#!/bin/sh\nexec "$@" --remap-path-prefix "$PWD=/groat"\n' >"$work/rustc"
chmod +x "$work/rustc"

for place in one two/a-longer-name; do
  git clone --quiet . "$work/$place"
  git -C "$work/$place" checkout --quiet "$commit"
  (
    cd "$work/$place"
    if [ -n "$mode" ]; then
      export RUSTC_WORKSPACE_WRAPPER="$work/rustc"
    else
      export CARGO_TARGET_DIR="$PWD/target"
      export RUSTFLAGS="--remap-path-prefix=$PWD=/groat --remap-path-prefix=${CARGO_HOME:-$HOME/.cargo}=/cargo --remap-path-prefix=$std"
      export CFLAGS="-ffile-prefix-map=$PWD=/groat -ffile-prefix-map=${CARGO_HOME:-$HOME/.cargo}=/cargo"
      export CXXFLAGS="$CFLAGS"
    fi
    # One by one, as cargo install does: the wallet has no RocksDB.
    { cargo build --release --locked -p groat-node && cargo build --release --locked -p groat-wallet; } 2>&1 |
      tee "$work/log" >&2
    built=$(grep -c '^ *Compiling groat-' "$work/log" || true)
    # chain, net, node; chain again without RocksDB, wallet.
    [ "$built" -eq 5 ] || { echo "$built of Groat's crates were compiled, not 5" >&2; exit 1; }
    mkdir "$work/$place.out"
    cp "$CARGO_TARGET_DIR"/release/{groatd,groat} "$work/$place.out"
  )
done

for program in groatd groat; do
  cmp "$work/one.out/$program" "$work/two/a-longer-name.out/$program" ||
    { echo "$program is not reproducible" >&2; exit 1; }
done
echo "the same twice, of commit $commit${mode:+ (without the dependencies)}:"
(cd "$work/one.out" && sha256sum groatd groat)
