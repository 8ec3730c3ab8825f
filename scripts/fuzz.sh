#!/usr/bin/env bash
# Compares script verdicts with Bitcoin Core's in a million random cases. A seed of its own each run, printed;
# `scripts/fuzz.sh --seed N --count N` repeats one, `--case HEX` a single case.
set -euo pipefail
cd "$(dirname "$0")/.."

. scripts/setup.sh
exec cargo run --release -p groat-tests --bin fuzz_script -- --seed "$RANDOM$RANDOM" "$@"
