#!/usr/bin/env bash
# Installs the build tree BUILD to a temporary prefix and builds and runs tests/install_consumer against it,
# as a project that uses limbeck would.
#   scripts/check_install.sh [BUILD]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
build=${1:-build}

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# Copied out of the tree, so that it can see nothing but the installed headers.
cp -r tests/install_consumer "$work/source"
cmake --install "$build" --prefix "$work/prefix" >"$work/log" || { cat "$work/log" >&2; exit 1; }
cmake -S "$work/source" -B "$work/build" -G Ninja -DCMAKE_BUILD_TYPE=Release -DCMAKE_PREFIX_PATH="$work/prefix" >"$work/log" ||
  { cat "$work/log" >&2; exit 1; }
cmake --build "$work/build" >"$work/log" || { cat "$work/log" >&2; exit 1; }
"$work/build/consumer"
