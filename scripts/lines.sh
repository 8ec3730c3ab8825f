#!/usr/bin/env bash
# Counts lines of code (no blank ones, no comments): name, without tests, of tests. With a folder of Bitcoin Core's source
# also what Groat stands for there: all but its GUI, wallet, tests, benches and the libraries that it carries.
set -euo pipefail
cd "$(dirname "$0")/.."

# Files and folders of tests count as tests, and a test module as it ends its file.
count() {
  xargs -0 awk -v name="$1" '
    FNR == 1 { test = FILENAME ~ /\/(tests|test|examples|benches)(\/|\.rs$)/; comment = 0; marked = 0 }
    /^#\[cfg\(test\)\]/ { marked = 1 }
    /^mod .*\{/ && marked { test = 1 }
    /^mod .*;/ { marked = 0 }
    /^[ \t]*\/\*/ { comment = 1 }
    !comment && !/^[ \t]*(\/\/|$)/ { if (test) tests++; else code++ }
    /\*\// { comment = 0 }
    END { printf "%-20s %7d %7d\n", name, code, tests }'
}

for crate in chain net/src/sim net node wallet; do
  not=$([ $crate = net ] && echo net/src/sim || echo -)
  find $crate -name '*.rs' -not -path "$not/*" -print0 | count $crate
done
find tests -name '*.rs' -print0 | count tests
if [ $# -gt 0 ]; then
  find "$1/src" \( -name '*.cpp' -o -name '*.h' \) -print0 |
    grep -zvE '/src/(qt|wallet|test|bench|leveldb|secp256k1|crc32c|minisketch|univalue|ipc/libmultiprocess)/' | count "Bitcoin Core"
fi
