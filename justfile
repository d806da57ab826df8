# What is done often: `just` lists it. .ci/run is the gate, and does more than `just check test`.

_:
    @just --list --unsorted

# Formatting, lints, documentation: what is quick.
check:
    cargo fmt --check
    cargo clippy --locked --all-targets -- -D warnings
    RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps

# The tests, or those whose name has WORD in it. Needs no root; as root it leaves less out.
test *WORD:
    cargo test --locked -- {{ WORD }}

# The tests that mount and that ask living engines: this machine's, with the packages that .ci/run installs,
# or a Debian SUITE's (trixie, forky) in a private machine. As root.
live SUITE="" WORD="":
    {{ if SUITE == "" { "LAYERCTL_TESTS=gate cargo test --locked" } else { ".ci/machine " + SUITE + " " + WORD } }}

# Asks `orphans` for so many seconds an engine while living ones pull, build, unpack, remove and are killed. As root.
storm SECONDS="300":
    LAYERCTL_TESTS=all LAYERCTL_STORM={{ SECONDS }} cargo test --locked -- _live::

# What verbs cost, or only the sections that are named (benches/README.md).
bench *SECTION:
    cargo bench --locked --bench trees -- {{ SECTION }}

# Feeds random input to each target for so many seconds (cargo install cargo-fuzz; nightly).
fuzz SECONDS="60" *TARGET:
    #!/usr/bin/env bash
    set -euo pipefail
    # The library needs no sanitizer: it has no unsafe code of its own.
    for target in {{ if TARGET == "" { "$(cargo +nightly fuzz list)" } else { TARGET } }}; do
        mkdir -p "fuzz/corpus/$target"
        cargo +nightly fuzz run --sanitizer none "$target" "fuzz/corpus/$target" "fuzz/seeds/$target" -- \
            -max_total_time={{ SECONDS }} -max_len=16384 -timeout=10 -close_fd_mask=3
    done

# Changes what decides and what guards, one place at a time, and sees whether a test fails; all of it
# takes days: ARGS are cargo-mutants' own, such as `-f src/restore/guard.rs` (docs/mutants.md).
mutants *ARGS:
    cargo mutants {{ ARGS }}

# Licences, doubled crates and sources of all that is built on, by deny.toml (cargo install cargo-deny).
deny:
    cargo deny --locked check bans licenses sources

# The program as it is handed out: one static file, optimised as far as it goes.
dist:
    deploy/dist

# Whether it is the same bytes wherever it is built: two builds, compared.
reproducible:
    .ci/reproducible

# .deb, .rpm and an archive of it, in target/packages (cargo install cargo-deb cargo-generate-rpm).
package: dist
    deploy/package "target/$(uname -m)-unknown-linux-gnu/dist/layerctl"

# A container image of nothing else, IMAGE or localhost/layerctl:VERSION (needs buildah, and no network).
image *IMAGE: dist
    deploy/image "target/$(uname -m)-unknown-linux-gnu/dist/layerctl" {{ IMAGE }}

# The crate as a registry would have it: what is in it, and its tests from its own archive.
crate:
    #!/usr/bin/env bash
    set -euo pipefail
    cargo package --locked --list
    package=$(mktemp -d)
    trap 'rm -rf "$package"' EXIT
    cargo package --locked --no-verify --target-dir "$package/target"
    tar -xzf "$package"/target/package/layerctl-*.crate -C "$package" --strip-components=1
    CARGO_TARGET_DIR=$PWD/target cargo test --locked --manifest-path "$package/Cargo.toml"
