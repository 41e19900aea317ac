#!/usr/bin/env bash
# Installs what limbeck is built with, by package name, on Debian 12 or newer and Ubuntu 24.04 or newer.
# Run it as often as you like: it asks for nothing when all is there. Needs root or sudo only when something is missing.
#
#   scripts/setup.sh           install what is missing
#   scripts/setup.sh --list    print the package names and stop
#   scripts/setup.sh --fuzz    also install what scripts/fuzz.sh needs
set -euo pipefail

packages=(
  g++ cmake ninja-build pkg-config ccache          # the build
  libdnnl-dev                                      # oneDNN: convolutions and matrix products on the CPU
  libstb-dev libspng-dev zlib1g-dev                # images; masks (PNG with palette)
  libzip-dev                                       # PyTorch weight files
  libonnx-dev libprotobuf-dev protobuf-compiler    # ONNX files
  libfmt-dev libyaml-cpp-dev nlohmann-json3-dev libcli11-dev
  doctest-dev libbenchmark-dev                     # tests
)
fuzz_packages=(clang libomp-dev)

say() { echo "setup: $*"; }
die() { echo "setup: $*" >&2; exit 1; }

if [ "${1:-}" = --list ]; then
  printf '%s\n' "${packages[@]}"
  exit 0
fi
if [ "${1:-}" = --fuzz ]; then
  packages+=("${fuzz_packages[@]}")
  shift
fi
[ $# -eq 0 ] || die "unknown argument '$1'; usage: scripts/setup.sh [--list | --fuzz]"

command -v dpkg-query >/dev/null && command -v apt-get >/dev/null ||
  die "this is no Debian or Ubuntu; install the equivalents of: ${packages[*]}"

missing=()
for package in "${packages[@]}"; do
  [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || missing+=("$package")
done
if [ ${#missing[@]} -eq 0 ]; then
  say "all ${#packages[@]} packages are there"
  exit 0
fi

as_root=()
if [ "$(id -u)" -ne 0 ]; then
  command -v sudo >/dev/null || die "not root and no sudo; ask an administrator for: apt-get install ${missing[*]}"
  as_root=(sudo)
fi
apt() { "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=120 "$@"; }

say "installing ${missing[*]}"
log=$(mktemp)
trap 'rm -f "$log"' EXIT
if ! { apt update && apt install --yes --no-install-recommends "${missing[@]}"; } >"$log" 2>&1; then
  tail -n 15 "$log" >&2
  die "apt-get could not install: ${missing[*]} (its last words are above; on Ubuntu, is 'universe' enabled?)"
fi
say "done"
