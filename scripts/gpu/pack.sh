#!/usr/bin/env bash
# Programs, stripped, and the libraries that they need but for CUDA's, in one file for a machine without compiler.
# Usage: scripts/gpu/pack.sh FILE.tar.xz PROGRAM...    (scripts/gpu_check.sh --pack calls it)
set -euo pipefail
pack=$1
shift
temporary=$(mktemp -d)
trap 'rm -rf "$temporary"' EXIT
for program in "$@"; do
  [ -x "$program" ] || { echo "gpu_check: $program is not there; see --help" >&2; exit 2; }
  strip -o "$temporary/$(basename "$program")" "$program"
done
# The C library belongs to the machine, and so do the driver and CUDA's libraries, which are opened by name.
ldd "$@" | awk '$2 == "=>" && $3 ~ /^\// { print $3 }' | sort -u | grep -vE '/(libc|libm|ld-linux[^/]*|libgcc_s)\.so' |
  xargs -r cp -L -t "$temporary"
tar -C "$temporary" -cf - . | xz -T0 -6 > "$pack"
echo "gpu_check: $pack, $(du -h "$pack" | cut -f1), $(find "$temporary" -type f | wc -l) files"
