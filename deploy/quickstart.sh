#!/usr/bin/env bash
# From a checkout to a running demonstration: installs what is missing, builds, runs `pgweir demo`.
#
#   ./deploy/quickstart.sh                  until Ctrl-C
#   ./deploy/quickstart.sh --duration 30    ends by itself, exit code 0 if all went well
#
# Arguments go to `pgweir demo`. Packages come from apt (with sudo where needed); Rust it only tells how to get.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
oldest_rust=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' "$root/Cargo.toml")

die() {
    echo "quickstart: $*" >&2
    exit 1
}

has_postgres() { compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null || command -v initdb >/dev/null; }
has_redis() { command -v redis-server >/dev/null; }
# The build of the allocator.
has_make() { command -v make >/dev/null; }
has_compiler() { command -v gcc >/dev/null || command -v clang >/dev/null; }
# The build reads C headers of PostgreSQL's parser with it.
has_libclang() {
    [ -n "${LIBCLANG_PATH:-}" ] || compgen -G '/usr/lib/llvm-*/lib/libclang*.so*' >/dev/null ||
        { command -v ldconfig >/dev/null && ldconfig -p | grep 'libclang' >/dev/null; }
}

install_missing() {
    local missing=()
    has_postgres || missing+=(postgresql)
    has_redis || missing+=(redis-server)
    has_compiler || missing+=(gcc libc6-dev)
    has_libclang || missing+=(libclang-dev)
    has_make || missing+=(make)
    [ ${#missing[@]} -gt 0 ] || return 0
    command -v apt-get >/dev/null || die "please install what Debian calls: ${missing[*]}"
    local as_root=()
    if [ "$(id -u)" != 0 ]; then
        command -v sudo >/dev/null || die "not root, and no sudo: apt-get install ${missing[*]}"
        as_root=(sudo)
    fi
    echo "quickstart: installing ${missing[*]}" >&2
    "${as_root[@]}" apt-get update -q >&2
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "${missing[@]}" >&2
}

find_cargo() {
    command -v cargo >/dev/null || PATH="$PATH:${CARGO_HOME:-$HOME/.cargo}/bin"
    command -v cargo >/dev/null || die "no Rust toolchain. This installs one for your user:

    curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh

then run this script again."
    local version
    version=$(cargo --version | awk '{ print $2 }')
    [ "$(printf '%s\n' "$oldest_rust" "$version" | sort -V | head -n 1)" = "$oldest_rust" ] ||
        die "Rust $version is too old, $oldest_rust or later is needed: rustup update stable"
}

main() {
    install_missing
    find_cargo
    cd "$root"
    echo "quickstart: building pgweir (minutes the first time)" >&2
    cargo build --release --locked --bin pgweir
    local target
    target=$(cargo metadata --no-deps --format-version 1 | sed 's/.*"target_directory":"\([^"]*\)".*/\1/')
    exec "$target/release/pgweir" demo "$@"
}

main "$@"
