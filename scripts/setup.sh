#!/usr/bin/env bash
# Sees to it that this machine has what the build needs; safe to run again and again.
# Sourced by the other scripts: sets CARGO_TARGET_DIR and defines need_packages.
set -euo pipefail

export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$HOME/.cache/groat/target}"

# need_packages NAME...: installs the Debian packages that are missing, or prints the line to type.
need_packages() {
  local missing=() name
  for name in "$@"; do
    dpkg-query -W -f='${Status}' "$name" 2>/dev/null | grep -q 'install ok installed' || missing+=("$name")
  done
  [ ${#missing[@]} -eq 0 ] && return 0
  local install="apt-get install -y --no-install-recommends ${missing[*]}" sudo=""
  [ "$(id -u)" -eq 0 ] || sudo="sudo "
  local line="${sudo}apt-get update && $sudo$install"
  if [ -n "$sudo" ] && ! sudo -n true 2>/dev/null; then
    echo "Groat needs packages first; type: $line" >&2
    return 1
  fi
  echo "installing ${missing[*]}" >&2
  { $sudo apt-get update -qq && $sudo env DEBIAN_FRONTEND=noninteractive $install -qq; } >&2 </dev/null ||
    { echo "Could not install them; type: $line" >&2; return 1; }
}

if ! command -v cargo >/dev/null; then
  echo "Groat is built with Rust: install it from https://rustup.rs, then run this again." >&2
  exit 1
fi
if command -v dpkg-query >/dev/null; then
  need_packages g++ libclang-dev
elif ! command -v c++ >/dev/null; then
  echo "Groat needs a C++17 compiler and libclang (RocksDB is built from source)." >&2
  exit 1
fi
