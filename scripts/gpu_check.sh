#!/usr/bin/env bash
# One command for a machine with a GPU: the tests of the GPU code, the distillation step beside PyTorch's where that is installed, the
# kernels beside the card's copy bandwidth, the memory checkers, a short training. Needs no network.
#
#   scripts/gpu_check.sh                      builds in build-cuda/ if that has not been done
#   scripts/gpu_check.sh --binaries WHERE     uses programs built elsewhere: a folder, or a file that --pack wrote
#       [--data DIR]                          CamVid in the SegNet layout; without it the generated scenes are used
#       [--out DIR]                           where results go (default gpu_check/): table.txt, results.jsonl, log.txt
#       [--seconds N]                         all together (default 480); parts that find no time left are named
#   scripts/gpu_check.sh --pack FILE.tar.xz   packs the programs of build-cuda/ and the libraries they need, but for CUDA's
#
# What matters most comes first, and every part leaves its results at once. BATCH, SIZE and STEPS in the environment make the
# benchmarked step smaller, GPU_PARTS (default: facts tests step kernels memory race verbs training f32
# rivals) chooses parts.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit

programs=(apps/limbeck tests/limbeck_cuda_tests tests/bench_cuda)
binaries="" data="" out="gpu_check" seconds=480 pack=""
while [ $# -gt 0 ]; do
  case "$1" in
    --binaries) binaries=${2:?--binaries needs a folder or a file}; shift 2 ;;
    --data) data=${2:?--data needs a folder}; shift 2 ;;
    --out) out=${2:?--out needs a folder}; shift 2 ;;
    --seconds) seconds=${2:?--seconds needs a number}; shift 2 ;;
    --pack) pack=${2:?--pack needs a file}; shift 2 ;;
    -h|--help) sed -n '2,14p' "$0" | sed 's/^# \{0,1\}//'; exit 0 ;;
    *) echo "gpu_check: unknown argument $1 (see --help)" >&2; exit 2 ;;
  esac
done
temporary=$(mktemp -d)
trap 'rm -rf "$temporary"' EXIT

if [ -n "$pack" ]; then
  for program in "${programs[@]}"; do
    [ -x "build-cuda/$program" ] || { echo "gpu_check: build-cuda/$program is not there" >&2; exit 2; }
    strip -o "$temporary/$(basename "$program")" "build-cuda/$program" || exit 1
  done
  # The C library belongs to the machine, and so do the driver and CUDA's libraries, which are opened by name.
  ldd "${programs[@]/#/build-cuda/}" | awk '$2 == "=>" && $3 ~ /^\// { print $3 }' | sort -u |
    grep -vE '/(libc|libm|ld-linux[^/]*|libgcc_s)\.so' | xargs -r cp -L -t "$temporary" || exit 1
  tar -C "$temporary" -cf - . | xz -T0 -6 > "$pack" || exit 1
  echo "gpu_check: $pack, $(du -h "$pack" | cut -f1), $(find "$temporary" -type f | wc -l) files"
  exit 0
fi

if [ -f "$binaries" ]; then
  tar -C "$temporary" -xf "$binaries" || exit 2
  binaries=$temporary
fi
if [ -n "$binaries" ]; then
  app=$binaries/limbeck tests=$binaries/limbeck_cuda_tests bench=$binaries/bench_cuda
  libraries=$(realpath "$binaries"):${LD_LIBRARY_PATH:-}
else
  if [ ! -x build-cuda/tests/limbeck_cuda_tests ]; then
    cmake --preset cuda && cmake --build build-cuda --parallel "$(nproc)" \
      --target limbeck_app limbeck_cuda_tests bench_cuda || { echo "gpu_check: the build failed" >&2; exit 1; }
  fi
  libraries=${LD_LIBRARY_PATH:-}
  app=build-cuda/apps/limbeck tests=build-cuda/tests/limbeck_cuda_tests bench=build-cuda/tests/bench_cuda
fi
for program in "$app" "$tests" "$bench"; do
  [ -x "$program" ] || { echo "gpu_check: $program is not there" >&2; exit 2; }
done
# Where CUDA's libraries are installed for Python only.
python=${LIMBECK_PYTHON:-python3}
if ! ldconfig -p 2> /dev/null | grep -q 'libcudnn\.so\.9' && command -v "$python" > /dev/null; then
  found=$("$python" -c 'import glob, sysconfig
print(":".join(sorted(glob.glob(sysconfig.get_paths()["purelib"] + "/nvidia/*/lib"))))' 2> /dev/null)
  libraries=$libraries:$found
fi
# Our libraries are for our programs: Python's processes have their own.
alone() {
  local path=$temporary/alone/$(basename "$1")
  mkdir -p "$temporary/alone"
  printf '#!/bin/sh\nLD_LIBRARY_PATH=%s exec %s "$@"\n' "'$libraries'" "'$(realpath "$1")'" > "$path"
  chmod +x "$path"
  echo "$path"
}
checked=$tests  # as it is: the checkers follow no script
app=$(alone "$app") tests=$(alone "$tests") bench=$(alone "$bench")

mkdir -p "$out"
results=$out/results.jsonl log=$out/log.txt table=$out/table.txt
: > "$results"
: > "$log"
start=$SECONDS
rows=() figures=()
failed=0

# show: writes the table as it is now.
show() {
  {
    printf '%-40s %-44s %s\n' check result seconds
    for line in "${rows[@]}"; do
      IFS='|' read -r name result took <<< "$line"
      printf '%-40s %-44s %s\n' "$name" "$result" "$took"
    done
    [ ${#figures[@]} -eq 0 ] || printf '%s\n' "" "${figures[@]}"
  } > "$table"
}
# row NAME RESULT SECONDS: a line of the table, and of the results.
row() {
  rows+=("$1|$2|$3")
  printf '{"check":"%s","result":"%s","seconds":%s}\n' "$1" "$2" "$3" >> "$results"
  show
}
wanted() { [[ " ${GPU_PARTS:-facts tests step kernels memory race verbs training f32 rivals} " == *" $1 "* ]]; }
# run NAME LIMIT COMMAND...: a check of at most so many seconds; its output is in $last, and behind that in the log. A check that runs
# into its limit has not failed: what it printed counts.
last=$temporary/last
by_line=()  # lines that are printed before the limit must not wait in a buffer
command -v stdbuf > /dev/null && by_line=(stdbuf -oL)
run() {
  local name=$1 limit=$2 begin=$SECONDS left=$((seconds - (SECONDS - start))) status
  shift 2
  : > "$last"
  if [ "$left" -lt 5 ]; then
    row "$name" "not run: no time left" 0
    return 0
  fi
  echo "== $name"
  timeout -k 5 "$((limit < left ? limit : left))" "${by_line[@]}" "$@" > "$last" 2>&1
  status=$?
  { echo "== $name: $*"; cat "$last"; } >> "$log"
  case $status in
    0) row "$name" passed $((SECONDS - begin)) ;;
    124|137) row "$name" "stopped by its limit" $((SECONDS - begin)) ;;
    *) row "$name" "FAILED with status $status (see log.txt)" $((SECONDS - begin)); failed=$((failed + 1)) ;;
  esac
  tail -n 3 "$last"
}
# keep: the lines of JSON in $last, as results.
keep() { grep '^{' "$last" >> "$results"; }
# number KEY: the number of that name in the last line of $last that has it.
number() { sed -nE "s/.*\"$1\": ?([0-9.eE+-]+).*/\1/p" "$last" | tail -n 1; }

if wanted facts; then
  if command -v nvidia-smi > /dev/null; then
    figures+=("card: $(nvidia-smi --query-gpu=name,driver_version,memory.total,clocks.max.sm --format=csv,noheader 2>&1 | head -1)")
  else
    figures+=("card: no nvidia-smi; tests will say why they are skipped")
  fi
  figures+=("date: $(date -u +%Y-%m-%d); CUDA libraries for Python: ${found:-not used}")
  show
fi

if wanted tests; then
  run "tests" 150 "$tests"
  if reason=$(grep -m1 -o 'skipped: .*' "$last"); then
    echo "gpu_check: $(grep -c 'skipped: ' "$last") tests $reason; nothing has been checked" >&2
    rows=("tests|${reason:0:120}|0")
    show
    exit 1
  fi
fi

# step NAME DTYPE ARGUMENTS...: the distillation step.
sizes=(--batch "${BATCH:-16}" --size "${SIZE:-512}x${SIZE:-512}" --classes 19)
step() {
  local name=$1 dtype=$2
  shift 2
  run "$name" 60 "$app" bench step --device cuda:0 --dtype "$dtype" "${sizes[@]}" --warmup "${STEPS:-5}" \
    --steps "${STEPS:-20}" --json "$@"
  keep
  [ -z "$(number median_ms)" ] || figures+=("$(printf '%-34s %9.2f ms, floor %8.2f ms, %8.0f MiB' "$name" \
    "$(number median_ms)" "$(number floor_ms)" "$(number peak_tensor_mb)")")
  show
}
# beside WHAT MODE...: the step, or the student's alone, and PyTorch's in turns; modes: STUDENT,TEACHER of tests/bench/pytorch_step.py.
beside() {
  local mode what=$1
  shift
  for mode in "$@"; do
    run "$what bf16 beside PyTorch $mode" 100 "$python" tests/bench/compare_with_pytorch.py --limbeck "$app" --device cuda \
      --what "$what" --batch "${BATCH:-16}" --size "${SIZE:-512}" --classes 19 --dtype bf16 --mode "channels_last,bf16,$mode" \
      --rounds 3 --steps "${STEPS:-10}" --warmup "${STEPS:-5}"
    keep
    [ -z "$(number ratio)" ] || figures+=("$what: PyTorch bf16 $mode takes $(number ratio) times as long (median of the rounds, or the last of them)")
    show
  done
}
if wanted step; then
  step "step bf16, replayed" bf16 --cuda-graph
  step "step bf16, launched one by one" bf16
  [ -z "$(number first_step_seconds)" ] || figures+=("first step done after $(number first_step_seconds) s")
  if "$python" -c 'import torch, torchvision; assert torch.cuda.is_available()' 2> /dev/null; then
    beside step eager,eager compile,compile
    beside student eager,eager
  else
    row "step beside PyTorch" "not run: no PyTorch with CUDA" 0
  fi
fi

if wanted kernels; then
  run "kernels" 60 "$bench"
  keep
  while IFS='|' read -r name ms rate share; do
    figures+=("$(printf '%-44s %9.3f ms %8.0f GB/s %6.2f of copy' "$name" "$ms" "$rate" "$share")")
  done < <(sed -nE 's/.*"name":"([^"]*)","ms":([0-9.]*),"bytes":[0-9]*,"gb_per_s":([0-9.]*),"share_of_copy":([0-9.]*).*/\1|\2|\3|\4/p' "$last")
  while IFS='|' read -r name ms rate; do
    figures+=("$(printf '%-44s %9.3f ms %8.1f TFLOP/s' "$name" "$ms" "$rate")")
  done < <(sed -nE 's/.*"name":"([^"]*)","ms":([0-9.]*),"tflop_per_s":([0-9.]*).*/\1|\2|\3/p' "$last")
  show
fi

if command -v compute-sanitizer > /dev/null; then
  # Every request goes to the driver, so that an access behind an allocation is seen.
  wanted memory && run "memory checker" 75 env "LD_LIBRARY_PATH=$libraries" LIMBECK_CUDA_CACHE=0 \
    compute-sanitizer --tool memcheck --error-exitcode 9 "$checked" -tc="cases of*"
  wanted race && run "race checker" 45 env "LD_LIBRARY_PATH=$libraries" \
    compute-sanitizer --tool racecheck --error-exitcode 9 "$checked" -tc="cases of*"
elif wanted memory; then
  row "memory checker" "not run: no compute-sanitizer" 0
fi

wanted verbs && run "every verb, tiny" 90 tests/cli/test_device.sh "$app"
if wanted training; then
  preset=scenes/student overrides=(train.steps=200 train.pictures=0)
  [ -z "$data" ] || { preset=camvid/student; overrides+=("data.root=$data"); }
  "$app" init-config "$preset" > "$temporary/student.yaml"
  run "training with $preset, 200 steps" 60 \
    "$app" train -c "$temporary/student.yaml" -o "$temporary/run" --force --device cuda:0 "${overrides[@]}"
fi
if wanted f32; then
  step "step f32, replayed" f32 --cuda-graph
  step "step f32, launched one by one" f32
fi
if wanted rivals && "$python" -c 'import torch, torchvision; assert torch.cuda.is_available()' 2> /dev/null; then
  beside step eager,folded graphs,compile
fi

echo
cat "$table"
echo "results: $results; $failed failed; $((SECONDS - start)) s"
[ "$failed" -eq 0 ]
