#!/usr/bin/env bash
# Counts lines of code (no blank ones, no comments): what is counted, without tests, of tests. Given a folder of Bitcoin
# Core's source, also what stands against it there: all but its GUI, wallet, benches and the libraries that it carries.
set -euo pipefail
cd "$(dirname "$0")/.."

# Files and folders of tests count as tests, and a test module as it ends its file.
count() {
  xargs -0 awk -v name="$1" '
    FNR == 1 { test = FILENAME ~ /(^|\/)(tests?|examples)(\/|\.rs$)/; comment = marked = 0 }
    /^#\[cfg\(test\)\]/ { marked = 1 }
    /^mod .*\{/ && marked { test = 1 }
    /^mod .*;/ { marked = 0 }
    /^[ \t]*\/\*/ { comment = 1 }
    !comment && !/^[ \t]*(\/\/|$)/ { if (test) tests++; else code++ }
    /\*\// { comment = 0 }
    END { printf "%-14s %7d %7d\n", name, code, tests }'
}

find chain -name '*.rs' -print0 | count chain
find net -name '*.rs' -not -path 'net/src/sim/*' -print0 | count net
find net/src/sim -name '*.rs' -print0 | count 'net/src/sim'
for crate in node wallet tests; do
  find $crate -name '*.rs' -print0 | count $crate
done
if [ $# -gt 0 ]; then
  find "$1/src" \( -name '*.cpp' -o -name '*.h' \) -print0 |
    grep -zvE '/src/(qt|wallet|bench|leveldb|secp256k1|crc32c|minisketch|univalue|ipc/libmultiprocess)/' | count 'Bitcoin Core'
fi
