#!/usr/bin/env bash
# Installs the drivers, at the versions pinned here, into $XDG_CACHE_HOME/pgweir-tests; does nothing
# when they are there already. Prints the directory.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
pins=$(cat "$here/requirements.txt" "$here/package.json" "$here/package-lock.json" | sha256sum | cut -c1-12)
home=${XDG_CACHE_HOME:-$HOME/.cache}/pgweir-tests/drivers-$pins

if [ ! -e "$home/complete" ]; then
    rm -rf "$home"
    mkdir -p "$home"
    python3 -m venv "$home/venv" >&2
    "$home/venv/bin/pip" install --quiet --disable-pip-version-check --only-binary :all: \
        --requirement "$here/requirements.txt" >&2
    cp "$here/package.json" "$here/package-lock.json" "$home/"
    (cd "$home" && npm ci --no-audit --no-fund --loglevel=error >&2)
    touch "$home/complete"
fi
echo "$home"
