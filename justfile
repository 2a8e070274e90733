# Shorter names for what CONTRIBUTING.md describes. `just` lists them.

_default:
    @just --list

# Types, lints and format
check:
    cargo fmt --check
    cargo clippy --locked --all-targets --features testing -- -D warnings

# cargo test, as any user
test *ARGS:
    cargo test --locked --features testing {{ARGS}}

# Everything: cargo test and the script tests (root, Docker)
test-all *ARGS:
    tests/run {{ARGS}}

# One script test, for example `just script refusals`
script NAME:
    tests/run --only {{NAME}}

# The release binary without this machine's paths; PROFILE release-debug adds symbols and line tables
release PROFILE="release":
    #!/usr/bin/env bash
    set -euo pipefail
    # Stable cargo cannot trim paths. Panic messages contain the paths of the dependencies' sources, and
    # line tables also those of this directory and of the standard library.
    flags=(
        "--remap-path-prefix=$PWD=."
        "--remap-path-prefix=${CARGO_HOME:-$HOME/.cargo}=/cargo"
        "--remap-path-prefix=$(rustc --print sysroot)=/rust"
    )
    export CARGO_ENCODED_RUSTFLAGS=$(IFS=$'\x1f' && printf '%s' "${flags[*]}")
    cargo build --locked --profile {{PROFILE}} --bin icecore

# Each fuzz target for some seconds
fuzz SECONDS="60":
    SECONDS_EACH={{SECONDS}} fuzz/run

# The parts' speed
bench *ARGS:
    cargo bench --features testing {{ARGS}}

# What must pass before a change lands
ci:
    .ci/run

# The dependencies' licences, versions and sources
deny *CHECKS="licenses bans sources":
    .ci/deny {{CHECKS}}

# The crate's documentation
doc:
    RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps --document-private-items
