#!/usr/bin/env bash
# Fuzzes the readers of files that come from strangers, under AddressSanitizer and UndefinedBehaviorSanitizer, one after the other.
# Stops at the first crash, leak, foreign exception, slow file (25 s) or allocation far beyond the file; the file that caused it is
# left in build-fuzz/findings/.
#
#   scripts/fuzz.sh [MINUTES [NAME...]]     default: 1 minute each of: safetensors torch_file pickle config image
#
# Needs clang: scripts/setup.sh --fuzz. What was found interesting is kept in build-fuzz/corpus/ and used by the next run.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

minutes=${1:-1}
[ $# -eq 0 ] || shift
names=("$@")
[ ${#names[@]} -gt 0 ] || names=(safetensors torch_file pickle config image)
[[ $minutes =~ ^[0-9]+$ ]] || { echo "fuzz: '$minutes' is no number of minutes; usage: scripts/fuzz.sh [MINUTES [NAME...]]" >&2; exit 2; }
command -v clang++ >/dev/null || { echo "fuzz: there is no clang++; scripts/setup.sh --fuzz installs it" >&2; exit 2; }

cmake --preset fuzz >/dev/null
cmake --build build-fuzz --target "${names[@]/#/fuzz_}"
mkdir -p build-fuzz/findings

# Longer files than these find nothing new, and slow the search down. No reader may allocate more at once than the third number (MB).
limits() { # NAME -> seeds, longest file, largest allocation
  case $1 in
    safetensors) echo "tests/golden/torch_files 2048 16" ;;
    torch_file) echo "tests/golden/torch_files 8192 16" ;;
    pickle) echo "- 4096 16" ;;
    config) echo "apps/configs 4096 48" ;;
    image) echo "- 4096 128" ;;   # 4 KB of deflate may be 34 million pixels of one bit
  esac
}

export UBSAN_OPTIONS=print_stacktrace=1 OMP_NUM_THREADS=1
for name in "${names[@]}"; do
  corpus=build-fuzz/corpus/$name
  mkdir -p "$corpus"
  read -r others longest largest < <(limits "$name")
  seeds=("tests/fuzz/seeds/$name")
  [ "$others" = - ] || seeds+=("$others")
  echo "== $name: $minutes min"
  "build-fuzz/tests/fuzz/fuzz_$name" -max_total_time=$((60 * minutes)) -max_len="$longest" -timeout=25 -malloc_limit_mb="$largest" \
    -rss_limit_mb=1024 -print_final_stats=1 -print_funcs=0 -verbosity=0 -artifact_prefix="build-fuzz/findings/$name-" "$corpus" "${seeds[@]}"
done
