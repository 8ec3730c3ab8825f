#!/usr/bin/env bash
# Runs the tests. --all, as CI does: also format, clippy, docs, a real bitcoind, kills, a full disk, and the demo.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/setup.sh

all=""
case "${1:-}" in
  "") ;;
  --all) all=1 ;;
  *) echo "usage: scripts/test.sh [--all]" >&2; exit 2 ;;
esac

if [ -n "$all" ]; then
  cargo fmt --all --check
  GROAT_PEERS_BIN=$(scripts/peers.sh)
  export GROAT_PEERS_BIN GROAT_REQUIRE_PEERS=1 GROAT_WIDE=1
  cargo clippy --release --workspace --all-targets --features groat-chain/rocksdb -- -D warnings
  # As net, wallet and the fuzz targets build it.
  cargo clippy --release -p groat-chain --all-targets -- -D warnings
  RUSTDOCFLAGS="-D warnings" cargo doc --release --workspace --no-deps --features groat-chain/rocksdb
else
  # What the tests find, they use; a test says what it skipped.
  export GROAT_REQUIRE_PEERS=0
fi

cargo build --release --workspace --bins
cargo test --release --workspace --features groat-chain/rocksdb
[ -z "$all" ] || scripts/demo.sh
