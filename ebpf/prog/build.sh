#!/bin/sh
# Rebuilds ../object/gantry.bpf.o and the hashes of its sources and itself. Needs, for the pinned toolchain:
#   rustup component add rust-src && cargo install bpf-linker --version 0.10.4 --locked
# OUT=DIR writes there instead of ../object.
set -eu
cd "$(dirname "$0")"
out=${OUT:-../object}
target=${CARGO_TARGET_DIR:-$PWD/target}/bpf
# Paths of this machine must not reach the object.
remap="--remap-path-prefix=$(cd .. && pwd)=ebpf --remap-path-prefix=${CARGO_HOME:-$HOME/.cargo}=cargo \
--remap-path-prefix=$(rustc --print sysroot)=rust"
RUSTC_BOOTSTRAP=1 RUSTFLAGS="-C debuginfo=2 -C link-arg=--btf $remap" CARGO_TARGET_DIR="$target" \
    cargo build --quiet --locked --release --target bpfel-unknown-none -Z build-std=core
mkdir -p "$out"
cp "$target/bpfel-unknown-none/release/gantry" "$out/gantry.bpf.o"
# The same list and order as in ../tests/object.rs.
LC_ALL=C sha256sum Cargo.toml Cargo.lock build.sh src/*.rs ../common/Cargo.toml ../common/src/*.rs > "$out/SOURCES.sha256"
(cd "$out" && sha256sum gantry.bpf.o) >> "$out/SOURCES.sha256"
