# One line each, over the scripts that CI calls; nothing needs `just`.

# build everything
build: 
    . scripts/setup.sh && cargo build --release --workspace

# run the tests
test *ARGS:
    scripts/test.sh {{ARGS}}

# show what Groat does
demo *ARGS:
    scripts/demo.sh {{ARGS}}

# measure against Bitcoin Core
bench WHAT:
    scripts/bench.sh {{WHAT}}

# compare a million random scripts with libbitcoinconsensus
fuzz *ARGS:
    scripts/fuzz.sh {{ARGS}}

# build bitcoind and its tools
peers:
    scripts/peers.sh
