#!/usr/bin/env bash
# Fetches PostgreSQL's regression scripts, which the crate pg_raw_parse carries; nothing of it is built. Does nothing when
# they are there already. Prints their directory.
set -euo pipefail

version=0.1.0
home=${XDG_CACHE_HOME:-$HOME/.cache}/pgweir-tests/regress-$version

if [ ! -e "$home/complete" ]; then
    rm -rf "$home"
    mkdir -p "$home/fetch/src"
    touch "$home/fetch/src/lib.rs"
    cat >"$home/fetch/Cargo.toml" <<MANIFEST
[package]
name = "fetch"
version = "0.0.0"
edition = "2024"
[dependencies]
pg_raw_parse = "=$version"
[workspace]
MANIFEST
    (cd "$home/fetch" && cargo fetch --quiet >&2 && cargo vendor --quiet vendor >/dev/null)
    mv "$home/fetch/vendor/pg_raw_parse/libpg_query/test/sql/postgres_regress" "$home/scripts"
    rm -rf "$home/fetch"
    touch "$home/complete"
fi
echo "$home/scripts"
