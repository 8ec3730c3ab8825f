#!/usr/bin/env bash
# scripts/bench.sh import [OPTIONS]: measures groatd against bitcoind on generated chains; prints a table.
# The options are those of `bench import --help`.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/setup.sh
[ "${1:-}" = import ] || { echo "usage: scripts/bench.sh import [OPTIONS]" >&2; exit 2; }
shift

peers=$(scripts/peers.sh)
cargo build --release --quiet -p groat-node -p groat-tests --bins
folder="${GROAT_BENCH:-$HOME/.cache/groat/bench}"
mkdir -p "$folder"
exec "$CARGO_TARGET_DIR/release/bench" import \
  --groatd "$CARGO_TARGET_DIR/release/groatd" --bitcoind "$peers/bitcoind" --folder "$folder" "$@"
