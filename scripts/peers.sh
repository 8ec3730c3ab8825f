#!/usr/bin/env bash
# Builds Bitcoin Core's bitcoind, bitcoin-cli, bitcoin-tx and bitcoin-util from the source that the
# package libbitcoinkernel-sys carries, and caches them. Prints the folder that holds them.
set -euo pipefail
cd "$(dirname "$0")/.."

peers="${GROAT_PEERS:-$HOME/.cache/groat/peers}"
source=$(cargo metadata --format-version 1 --all-features |
  sed -n 's|.*"\([^"]*/libbitcoinkernel-sys-[^/"]*\)/Cargo.toml".*|\1|p')/bitcoin
stamp="$peers/built-from"
if [ -x "$peers/bin/bitcoind" ] && [ "$(cat "$stamp" 2>/dev/null)" = "$source" ]; then
  echo "$peers/bin"
  exit 0
fi

. scripts/setup.sh
need_packages cmake ninja-build pkgconf libboost-dev libevent-dev libsqlite3-dev

mkdir -p "$peers"
{
  cmake -S "$source" -B "$peers/build" -G Ninja -DCMAKE_BUILD_TYPE=Release \
    -DENABLE_WALLET=OFF -DENABLE_IPC=OFF -DBUILD_TESTS=OFF -DBUILD_BENCH=OFF -DBUILD_GUI=OFF \
    -DBUILD_TX=ON -DBUILD_UTIL=ON -DWITH_EMBEDDED_ASMAP=OFF -DWITH_ZMQ=OFF
  cmake --build "$peers/build" --target bitcoind bitcoin-cli bitcoin-tx bitcoin-util
} >"$peers/build.log" 2>&1 || {
  echo "bitcoind did not build; the end of $peers/build.log:" >&2
  tail -n 20 "$peers/build.log" >&2
  exit 1
}
mkdir -p "$peers/bin"
for tool in bitcoind bitcoin-cli bitcoin-tx bitcoin-util; do
  cp "$peers/build/bin/$tool" "$peers/bin/$tool"
done
rm -rf "$peers/build"
echo "$source" >"$stamp"
echo "$peers/bin"
