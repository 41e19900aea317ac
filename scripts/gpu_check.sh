#!/usr/bin/env bash
# One command for a machine with a GPU: the tests of the GPU code, then its benchmarks, then a short training. Needs no network.
# Prints a table last and writes everything as JSON lines.
#
#   scripts/gpu_check.sh                      builds in build-cuda/ if that has not been done
#   scripts/gpu_check.sh --binaries DIR       uses the programs in DIR, built elsewhere (see docs/gpu.md), and its libraries
#       [--data DIR]                          CamVid in the SegNet layout; without it the generated scenes are used
#       [--out DIR]                           where results go (default gpu_check/)
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

binaries="" data="" out="gpu_check"
while [ $# -gt 0 ]; do
  case "$1" in
    --binaries) binaries=${2:?--binaries needs a folder}; shift 2 ;;
    --data) data=${2:?--data needs a folder}; shift 2 ;;
    --out) out=${2:?--out needs a folder}; shift 2 ;;
    -h|--help) sed -n '2,8p' "$0" | sed 's/^# \{0,1\}//'; exit 0 ;;
    *) echo "gpu_check: unknown argument $1 (see --help)" >&2; exit 2 ;;
  esac
done

mkdir -p "$out"
results="$out/results.jsonl"
: > "$results"
rows=()
failed=0
# row NAME RESULT SECONDS: a line of the table, and of the results.
row() {
  rows+=("$1|$2|$3")
  printf '{"check":"%s","result":"%s","seconds":%s}\n' "$1" "$2" "$3" >> "$results"
}
# run NAME LOG COMMAND...: runs a check and keeps its output; what follows goes on after a failure.
run() {
  local name=$1 log=$out/$2 start=$SECONDS
  shift 2
  echo "== $name"
  if "$@" > "$log" 2>&1; then
    row "$name" passed $((SECONDS - start))
  else
    row "$name" "FAILED (see $log)" $((SECONDS - start))
    failed=$((failed + 1))
  fi
  tail -n 3 "$log"
}

if [ -n "$binaries" ]; then
  app=$binaries/limbeck tests=$binaries/limbeck_cuda_tests bench=$binaries/bench_cuda
  export LD_LIBRARY_PATH=$binaries:${LD_LIBRARY_PATH:-}
else
  if [ ! -x build-cuda/tests/limbeck_cuda_tests ]; then
    cmake --preset cuda && cmake --build build-cuda --parallel "$(nproc)" \
      --target limbeck_app limbeck_cuda_tests bench_cuda || { echo "gpu_check: the build failed" >&2; exit 1; }
  fi
  app=build-cuda/apps/limbeck tests=build-cuda/tests/limbeck_cuda_tests bench=build-cuda/tests/bench_cuda
fi
for program in "$app" "$tests" "$bench"; do
  [ -x "$program" ] || { echo "gpu_check: $program is not there" >&2; exit 2; }
done

if command -v nvidia-smi > /dev/null; then
  nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader | tee "$out/card.txt"
else
  echo "gpu_check: no nvidia-smi; tests will say why they are skipped" | tee "$out/card.txt"
fi

run "tests" tests.log "$tests"
if reason=$(grep -m1 -o 'skipped: .*' "$out/tests.log"); then
  echo "gpu_check: $(grep -c 'skipped: ' "$out/tests.log") tests $reason; nothing has been checked" >&2
  exit 1
fi
run "every verb, tiny" verbs.log tests/cli/test_device.sh "$app"
if command -v compute-sanitizer > /dev/null; then
  # Every request goes to the driver, so that an access behind an allocation is seen.
  run "memory checker" memcheck.log env LIMBECK_CUDA_CACHE=0 compute-sanitizer --tool memcheck --error-exitcode 9 "$tests" -tc="cases of*"
  run "race checker" racecheck.log compute-sanitizer --tool racecheck --error-exitcode 9 "$tests" -tc="cases of*"
else
  row "memory checker" "not run: no compute-sanitizer" 0
fi

run "kernels" kernels.jsonl "$bench"
cat "$out/kernels.jsonl" >> "$results"
# step NAME LOG ARGUMENTS...: the distillation step. BATCH, SIZE and STEPS in the environment make it smaller.
step() {
  local name=$1 log=$2
  shift 2
  run "$name" "$log" "$app" bench step --device cuda:0 --batch "${BATCH:-16}" --size "${SIZE:-512x512}" --classes 19 \
    --warmup "${STEPS:-10}" --steps "${STEPS:-30}" --json "$@"
  cat "$out/$log" >> "$results"
}
for dtype in f32 bf16; do
  step "distillation step $dtype" "step_$dtype.json" --dtype "$dtype"
  step "the same replayed" "step_${dtype}_graph.json" --dtype "$dtype" --cuda-graph
  LIMBECK_CUDNN=timed step "the same, algorithms timed" "step_${dtype}_timed.json" --dtype "$dtype" --cuda-graph
done

preset=scenes/student overrides=(train.steps=200)
[ -z "$data" ] || { preset=camvid/student; overrides+=("data.root=$data"); }
"$app" init-config "$preset" > "$out/student.yaml"
run "training with $preset, 200 steps" train.log \
  "$app" train -c "$out/student.yaml" -o "$out/run" --force --device cuda:0 "${overrides[@]}"

echo
printf '%-36s %-40s %s\n' check result seconds
for line in "${rows[@]}"; do
  IFS='|' read -r name result seconds <<< "$line"
  printf '%-36s %-40s %s\n' "$name" "$result" "$seconds"
done
echo
[ ! -s "$out/kernels.jsonl" ] || sed -nE 's/.*"name":"([^"]*)","ms":([0-9.]*),"bytes":[0-9]*,"gb_per_s":([0-9.]*),"share_of_copy":([0-9.]*).*/\1|\2|\3|\4/p' \
  "$out/kernels.jsonl" | while IFS='|' read -r name ms rate share; do
    printf '%-44s %10s ms %10s GB/s %8s of copy\n' "$name" "$ms" "$rate" "$share"
  done
# median FILE: the median milliseconds of a step.
median() { sed -nE 's/.*"median_ms":([0-9.eE+-]+).*/\1/p' "$1"; }
for dtype in f32 bf16; do
  for way in graph timed; do
    plain=$(median "$out/step_$dtype.json") other=$(median "$out/step_${dtype}_$way.json")
    [ -n "$plain" ] && [ -n "$other" ] || continue
    awk -v d="$dtype" -v w="$way" -v p="$plain" -v o="$other" \
      'BEGIN { printf "%-4s step: %.2f ms launched one by one, %.2f ms %s, ratio %.2f\n", d, p, o,
               w == "graph" ? "replayed" : "replayed with timed algorithms", p / o }'
  done
done
echo "results: $results; $failed failed"
[ "$failed" -eq 0 ]
