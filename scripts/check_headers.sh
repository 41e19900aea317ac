#!/usr/bin/env bash
# Compiles every header of the library alone, so that including it first works (CMake makes one source per header).
#   scripts/check_headers.sh [BUILD]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
cmake --build "${1:-build}" --target all_verify_interface_header_sets
