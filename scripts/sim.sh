#!/usr/bin/env bash
# scripts/sim.sh [NODES] [FIRST SEED] [LAST SEED] [SCENARIO...]: plays scenarios with many seeds; stops at the first failure.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/setup.sh

nodes="${1:-200}" first="${2:-1}" last="${3:-100}"
scenarios=("${@:4}")
[ "${#scenarios[@]}" -gt 0 ] || scenarios=(flood liar stall headerspam slowloris partition restart churn skew)
cargo build --release --quiet -p groat-tests --bin sim
for scenario in "${scenarios[@]}"; do
  for seed in $(seq "$first" "$last"); do
    output=$("$CARGO_TARGET_DIR/release/sim" "$scenario" --nodes "$nodes" --seed "$seed") || { echo "$output"; exit 1; }
  done
  echo "$scenario: seeds $first to $last passed"
done
