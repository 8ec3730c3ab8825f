#!/usr/bin/env bash
# scripts/bench.sh import|sync|mempool|peers|mine|rpc|wallet [OPTIONS]: measures groatd and prints a table: importing generated chains,
# fetching them from a bitcoind, filling the mempool, calls a second of the RPC, all against bitcoind; thousands of peers; hashes
# of the miner; the wallet with a long history. The options are those of `bench BENCH --help`.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/setup.sh
bench="${1:-}"
case "$bench" in
  import | sync | mempool | peers | mine | rpc | wallet) shift ;;
  *) echo "usage: scripts/bench.sh import|sync|mempool|peers|mine|rpc|wallet [OPTIONS]" >&2; exit 2 ;;
esac

cargo build --release --quiet -p groat-node -p groat-wallet -p groat-tests --bins
if [ "$bench" = mine ]; then
  exec "$CARGO_TARGET_DIR/release/bench" mine "$@"
fi
folder="${GROAT_BENCH:-$HOME/.cache/groat/bench}"
mkdir -p "$folder"
if [ "$bench" = wallet ]; then
  exec "$CARGO_TARGET_DIR/release/bench" wallet --groat "$CARGO_TARGET_DIR/release/groat" --folder "$folder" "$@"
fi
programs=(--groatd "$CARGO_TARGET_DIR/release/groatd")
if [ "$bench" = peers ]; then
  # Both ends of all links are on this machine.
  ulimit -n "$(ulimit -Hn)"
else
  programs+=(--bitcoind "$(scripts/peers.sh)/bitcoind")
fi
exec "$CARGO_TARGET_DIR/release/bench" "$bench" "${programs[@]}" --folder "$folder" "$@"
