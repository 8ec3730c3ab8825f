#!/usr/bin/env bash
# scripts/demo.sh [--keep]: shows what Groat does, on this machine alone: a network of three nodes with a miner, two wallets,
# payments, a node that is cut off and comes back, and real blocks where GROAT_DATA has some. Leaves nothing behind;
# with --keep the network stays up, to be tried out.
set -euo pipefail
cd "$(dirname "$0")/.."
case "${1:-}" in
  "" | --keep) keep="${1:-}" ;;
  *) echo "usage: scripts/demo.sh [--keep]" >&2; exit 2 ;;
esac
data=$(ls "${GROAT_DATA:-../shared/data}"/contiguous-chains/mainnet-0000000-*.blk 2>/dev/null | head -n 1 || true)
# What is set for a node of one's own is not meant for these.
for name in "${!GROAT_@}"; do unset "$name"; done
. scripts/setup.sh
export LC_ALL=C PATH="$CARGO_TARGET_DIR/release:$PATH"
work="${TMPDIR:-/tmp}/groat-demo.$$"

# However it ends, no node is left running; only what --keep promised stays.
finish() {
  local status=$?
  trap '' INT TERM HUP
  trap - EXIT
  set +e
  local said
  said=$(sed -n 's/^{"error":"\(.*\)","exit_code":[0-9]*}$/\1/p; s/^error: //p' "$work/said" 2>/dev/null | tail -n 1)
  if [ "$status" = 0 ] && [ -n "$keep" ]; then exit 0; fi
  [ ! -e "$work/net/demo/nodes.json" ] || groat net down --json >/dev/null 2>&1
  rm -rf "$work"
  case "$status" in
    0) ;;
    130 | 143) echo "Stopped. Nothing is left running, nothing was kept." >&2 ;;
    *) echo "The demo failed: ${said:-see above}. Nothing is left running, nothing was kept." >&2 ;;
  esac
  exit "$status"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

rows=()
step() { printf '\n%s\n' "$1"; began=${EPOCHREALTIME/./}; }
say() { printf '    %s\n' "$@"; }
# shown WHAT: a row of the table at the end, with the seconds since the step began.
shown() {
  local took=$(((${EPOCHREALTIME/./} - began) / 1000))
  rows+=("$(printf '%-78s %4d.%03d s' "$1" $((took / 1000)) $((took % 1000)))")
}
# wait_for WHAT COMMAND...: repeats the command until it succeeds.
wait_for() {
  local what="$1" end=$((SECONDS + 60))
  shift
  until "$@"; do
    [ "$SECONDS" -lt "$end" ] || { echo "error: within a minute this did not come: $what" >>"$work/said"; return 1; }
    sleep 0.1
  done
}
# A value out of an answer in JSON.
field() { sed -n "s/.*\"$1\": *\"\{0,1\}\([^\",}]*\).*/\1/p" | head -n 1; }

# at NODE COMMAND...: at this node, with the wallet that lies in its folder.
at() { groat --chain "$work/demo.toml" --datadir "$work/net/demo/node$1" --rpc "127.0.0.1:${rpc[$1]}" "${@:2}"; }
wallet() { at "$@" --json --yes --no-input --password-file "$work/password" 2>>"$work/said"; }
waits() { [ -n "$(at "$1" rpc getmempoolentry "$2" 2>/dev/null)" ]; }
mined() { [ -n "$(at "$1" rpc gettxout "$2" 0 include_mempool=false)" ]; }
on_all() { "$1" 0 "$2" && "$1" 1 "$2" && "$1" 2 "$2"; }
has() { [ "$(wallet "$1" balance | field confirmed_sat)" = "$2" ]; }
height() { at "$1" rpc getblockcount; }
is_past() { [ "$(height "$1")" -gt "$2" ]; }
coins() { at "$1" rpc gettxoutsetinfo muhash --json | grep -o '"\(height\|bestblock\|muhash\)":"\?[0-9a-f]*'; }
agree() { seen=$(coins 0) && [ "$seen" = "$(coins 1)" ] && [ "$seen" = "$(coins 2)" ]; }

step "Building groatd and groat (minutes the first time, since RocksDB is built too)"
cargo build --release -p groat-node -p groat-wallet
groatd --version | sed 's/^/    /'
mkdir -m 700 "$work" || { work=; exit 1; }
SECONDS=0

step "A network of its own: groat net new demo, groat net up demo.toml --nodes 3"
export GROAT_DATADIR="$work"
groat net new demo --out "$work/demo.toml" --spacing 1 --retarget 0 --maturity 5 --no-input --json >/dev/null 2>>"$work/said"
# Nodes on one machine need not wait a while before they pass a payment on; the miner takes 5 sat/vB or more.
GROAT_WHITELIST=in,out,noban@127.0.0.1 GROAT_BLOCKMINTXFEE=0.00005 GROAT_REST=1 GROAT_METRICS=127.0.0.1:0 \
  groat net up "$work/demo.toml" --nodes 3 --detach --json >"$work/up.json" 2>>"$work/said"
mapfile -t rpc < <(grep -o '"rpc_port":[0-9]*' "$work/up.json" | cut -d: -f2)
say "three nodes are linked; node 0 mines a block a second, and takes payments from 5 sat/vB on"
shown "three nodes and a miner on a chain of their own, from its first block on"

step "Two wallets: groat create"
echo "not a secret" >"$work/password"
ann=$(wallet 1 create ann | field address)
bob=$(wallet 2 create bob | field address)
say "Ann is at node 1: $ann" "Bob is at node 2: $bob"
shown "two wallets, each at a node of its own"

step "The faucet gives Ann money: groat net pay $ann 10btc"
groat net pay "$ann" 10btc --feerate 10 --json >/dev/null 2>>"$work/said"
wait_for "Ann has 10 BTC" has 1 1000000000
say "Ann has 10 BTC, in block $(height 1)"
shown "a payment from node 0 to node 1, in a block"

step "Ann pays Bob, and offers little: groat send $bob 2.5btc --feerate 1"
payment=$(wallet 1 send "$bob" 2.5btc --feerate 1 | field txid)
wait_for "the payment waits at every node" on_all waits "$payment"
say "$payment" "waits in the mempool of node 0, node 1 and node 2"
shown "a payment in the mempool of every node"

step "She raises the fee: groat bump $payment --feerate 10"
payment=$(wallet 1 bump "$payment" --feerate 10 | field txid)
wait_for "the payment is in a block on every node" on_all mined "$payment"
wait_for "Bob has 2.5 BTC" has 2 250000000
say "$payment" "replaced it, and is in a block on node 0, node 1 and node 2: Bob has 2.5 BTC"
shown "its replacement in a block on every node"

step "Node 2 is cut off: groat rpc setnetworkactive false"
at 2 rpc setnetworkactive false >/dev/null
at 2 rpc generatetoaddress 1 "$bob" >/dev/null
fork=$(height 2)
payment=$(wallet 1 send "$bob" 1btc --feerate 10 | field txid)
wait_for "the payment is in a block at node 1" mined 1 "$payment"
wait_for "the other side has more work" is_past 1 "$fork"
wait_for "Bob has 2.5 BTC, and no more" has 2 250000000
say "node 2 mined block $fork by itself; nodes 0 and 1 are at block $(height 1), and there Ann paid Bob 1 BTC more" \
  "Bob, at node 2, knows nothing of it: he has 2.5 BTC"
shown "a network in two parts, each with a chain of its own"

step "It comes back: groat rpc setnetworkactive true"
at 2 rpc setnetworkactive true >/dev/null
wait_for "all nodes have the same tip and the same coins" agree
wait_for "Bob has 3.5 BTC" has 2 350000000
say "node 2 gave up its own block: all three were at block $(field height <<<"$seen") with the same coins," \
  "whose hash is $(field muhash <<<"$seen"); Bob has 3.5 BTC"
shown "all in one again: the same tip, the same coins, both payments"

if [ -n "$data" ]; then
  step "Real blocks: groatd --chain main --assumevalid=0 import $(basename "$data")"
  groatd --chain main --datadir "$work/main" --assumevalid=0 import "$data" 2>>"$work/said" | sed 's/^/    /'
  groatd --chain main --datadir "$work/main" verify-chain 2>>"$work/said" | sed 's/^/    /'
  shown "Bitcoin's own first blocks, every rule and script, read back and checked again"
fi

step "What was shown, in $SECONDS s:"
printf '    %s\n' "${rows[@]}"
[ -n "$keep" ] || { printf '\nscripts/demo.sh --keep leaves the network up, to be tried out.\n'; exit 0; }
cat <<END

The network stays up, in $work. To try it out:
    export PATH="$CARGO_TARGET_DIR/release:\$PATH" GROAT_DATADIR=$work
    groat net status
    groat net pay $ann 1btc --feerate 10    # this miner takes 5 sat/vB or more
    groat balance --chain $work/demo.toml --datadir $work/net/demo/node1 --rpc 127.0.0.1:${rpc[1]}
In a browser, or with curl:
    $(sed -n 's/.*serving metrics on //p' "$work/net/demo/node1/demo/debug.log") and /healthy there
    http://127.0.0.1:${rpc[1]}/rest/chaininfo.json
The wallets' password is in $work/password. To stop it, and to leave nothing:
    groat net down && rm -r $work
END
