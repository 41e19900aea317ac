#!/usr/bin/env bash
# One command for a machine with a GPU: the tests of the GPU code, the distillation step and the losses beside PyTorch's where that is
# installed, the kernels beside the card's copy bandwidth, the memory checkers, a short training; what was wanted and what was measured.
# Needs no network.
#
#   scripts/gpu_check.sh                      builds in build-cuda/ if that has not been done
#   scripts/gpu_check.sh --binaries WHERE     uses programs built elsewhere: a folder, or a file that --pack wrote
#       [--data DIR]                          CamVid in the SegNet layout; without it the generated scenes are used
#       [--out DIR]                           where results go (default gpu_check/): table.txt, results.jsonl, goals.jsonl, log.txt
#       [--seconds N]                         all together (default 480); parts that find no time left are named
#   scripts/gpu_check.sh --pack FILE.tar.xz   builds them for any x86-64-v3 processor in build-cuda-portable/ and packs them with the
#                                             libraries they need, but for CUDA's
#
# What matters most comes first, and every part leaves its results at once. In the environment: BATCH, SIZE and STEPS make the
# benchmarked step smaller; SMALL=1 does that to kernels and losses (a rehearsal: their numbers mean nothing); GPU_PARTS chooses
# parts (default: facts tests step kernels compile losses verbs memory race training f32 rivals other_losses); WARM=0 or 1 says whether
# PyTorch's compiler works ahead while the tests run (default: where there are 8 processors); PATIENCE multiplies the limits of the parts.
set -uo pipefail
export LC_ALL=C
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit

programs=(apps/limbeck tests/limbeck_cuda_tests tests/bench_cuda tests/bench_losses)
targets=(limbeck_app limbeck_cuda_tests bench_cuda bench_losses)
binaries="" data="" out="gpu_check" seconds=480 pack=""
while [ $# -gt 0 ]; do
  case "$1" in
    --binaries) binaries=${2:?--binaries needs a folder or a file}; shift 2 ;;
    --data) data=${2:?--data needs a folder}; shift 2 ;;
    --out) out=${2:?--out needs a folder}; shift 2 ;;
    --seconds) seconds=${2:?--seconds needs a number}; shift 2 ;;
    --pack) pack=${2:?--pack needs a file}; shift 2 ;;
    -h|--help) sed -n '2,16p' "$0" | sed 's/^# \{0,1\}//'; exit 0 ;;
    *) echo "gpu_check: unknown argument $1 (see --help)" >&2; exit 2 ;;
  esac
done
# build PRESET: the programs in build-PRESET/.
build() {
  cmake --preset "$1" && cmake --build "build-$1" --parallel "$(nproc)" --target "${targets[@]}" && return
  echo "gpu_check: the build failed" >&2
  exit 1
}
if [ -n "$pack" ]; then
  build cuda-portable  # the other machine's processor may lack what this one has
  exec scripts/gpu/pack.sh "$pack" "${programs[@]/#/build-cuda-portable/}"
fi
temporary=$(mktemp -d)
trap 'rm -rf "$temporary"' EXIT
# shellcheck source=scripts/gpu/report.sh
source scripts/gpu/report.sh

# --- the programs ---------------------------------------------------------------------------------------------------
if [ -f "$binaries" ]; then
  mkdir "$temporary/programs"
  tar -C "$temporary/programs" -xf "$binaries" || exit 2
  binaries=$temporary/programs
fi
if [ -z "$binaries" ]; then
  [ -x build-cuda/tests/bench_losses ] || build cuda
  paths=("${programs[@]/#/build-cuda/}") libraries=${LD_LIBRARY_PATH:-}
else
  paths=("${programs[@]##*/}")
  paths=("${paths[@]/#/$binaries/}") libraries=$(realpath "$binaries"):${LD_LIBRARY_PATH:-}
fi
for program in "${paths[@]}"; do
  [ -x "$program" ] || { echo "gpu_check: $program is not there" >&2; exit 2; }
done
# Where CUDA's libraries are installed for Python only.
python=${LIMBECK_PYTHON:-python3} found=""
if ! ldconfig -p 2> /dev/null | grep -q 'libcudnn\.so\.9' && command -v "$python" > /dev/null; then
  found=$("$python" -c 'import glob, sys
print(":".join(dict.fromkeys(sorted(f for p in sys.path if p for f in glob.glob(p + "/nvidia/*/lib")))))' 2> /dev/null)
  libraries=$libraries:$found
fi
# Our libraries are for our programs: Python's processes have their own.
alone() {
  local path=$temporary/alone/${1##*/}
  mkdir -p "$temporary/alone"
  printf '#!/bin/sh\nLD_LIBRARY_PATH=%s exec %s "$@"\n' "'$libraries'" "'$(realpath "$1")'" > "$path"
  chmod +x "$path"
  echo "$path"
}
checked=${paths[1]}  # as it is: the checkers follow no script
app=$(alone "${paths[0]}") tests=$(alone "${paths[1]}") bench=$(alone "${paths[2]}") losses=$(alone "${paths[3]}")

# --- what parts share -----------------------------------------------------------------------------------------------
wanted() {
  [[ " ${GPU_PARTS:-facts tests step kernels compile losses verbs memory race training f32 rivals other_losses} " == *" $1 "* ]]
}
small=() goal_losses=channel_kd,pixel_kd,ka_affinity,icsd
[ "${SMALL:-0}" = 0 ] || small=(--small)
sizes=(--batch "${BATCH:-16}" --classes 19)
pytorch=0
"$python" -c 'import torch, torchvision; assert torch.cuda.is_available()' 2> /dev/null && pytorch=1
no_pytorch="not run: no PyTorch with CUDA"

# work_ahead: compiles for PyTorch what will be timed later, into its caches on disk, while the tests run.
ahead=()
work_ahead() {
  [ $pytorch = 1 ] && [ "${WARM:-$(($(nproc --all) >= 8))}" = 1 ] || return 0
  if wanted compile; then
    timeout -k 5 170 "$python" tests/bench/pytorch_step.py --device cuda --mode channels_last,bf16,compile,compile "${sizes[@]}" \
      --size "${SIZE:-512}" --warm > "$temporary/ahead_step" 2>&1 &
    ahead+=($!)
  fi
  if wanted losses; then
    timeout -k 5 170 "$python" tests/bench/compare_losses.py "$losses" --device cuda "${small[@]}" --only $goal_losses \
      --compile all --warm > "$temporary/ahead_losses" 2>&1 &
    ahead+=($!)
  fi
}
# end_of_work_ahead: waits 45 s at most, for nothing else may run while something is timed.
end_of_work_ahead() {
  local begin=$SECONDS process
  [ ${#ahead[@]} -gt 0 ] || return 0
  while kill -0 "${ahead[@]}" 2> /dev/null && [ $((SECONDS - begin)) -lt 45 ]; do sleep 1; done
  for process in "${ahead[@]}"; do kill "$process" 2> /dev/null; done
  wait "${ahead[@]}"
  { echo "== PyTorch's compiler ahead"; cat "$temporary"/ahead_*; } >> "$log"
  row "PyTorch's compiler ahead of its turn" "waited for" $((SECONDS - begin))
}

# step NAME DTYPE ARGUMENTS...: the distillation step.
step() {
  local name=$1 dtype=$2
  shift 2
  run "$name" 90 "$app" bench step --device cuda:0 --dtype "$dtype" "${sizes[@]}" --size "${SIZE:-512}x${SIZE:-512}" \
    --warmup "${STEPS:-5}" --steps "${STEPS:-20}" --json "$@"
  [ -n "$(number median_ms)" ] || return 0
  figure "$(printf '%-34s %9.2f ms, floor %8.2f ms, %8.0f MiB, first step after %.1f s' "$name" "$(number median_ms)" \
    "$(number floor_ms)" "$(number peak_tensor_mb)" "$(number first_step_seconds)")"
  figure "$(printf '  of that machine and step: copy %.0f GB/s, %s product %.0f GFLOP/s; %.0f GFLOP, %.1f GB' \
    "$(number copy_gigabytes_per_second)" "$dtype" "$(number matmul_gflops)" "$(number gflop)" "$(number gigabytes)")"
}
launched=()  # --launched where a step cannot be recorded
# beside WHAT LIMIT MODE: the step, or the student's alone, and PyTorch's in turns; MODE: STUDENT,TEACHER of tests/bench/pytorch_step.py.
beside() {
  local what=$1 limit=$2 mode=$3
  run "$what bf16 beside PyTorch $mode" "$limit" "$python" tests/bench/compare_with_pytorch.py --limbeck "$app" --device cuda \
    "${launched[@]}" --what "$what" "${sizes[@]}" --size "${SIZE:-512}" --dtype bf16 --mode "channels_last,bf16,$mode" --rounds 5 \
    --steps "${STEPS:-10}" --warmup "${STEPS:-5}"
  [ -n "$(number ratio)" ] || return 0
  figure "$(printf '%-34s %9.2f ms, PyTorch %8.2f ms: %.2f times; %.0f and %.0f MiB; first step after %.1f and %.1f s' \
    "$what bf16 and $mode" "$(number limbeck_ms)" "$(number pytorch_ms)" "$(number ratio)" "$(number limbeck_mb)" \
    "$(number pytorch_mb)" "$(number limbeck_first_step_seconds)" "$(number pytorch_first_step_seconds)")"
}
# beside_losses NAME LIMIT ARGUMENTS...: the losses and PyTorch's in turns.
beside_losses() {
  local name=$1 limit=$2 line
  shift 2
  run "$name" "$limit" "$python" tests/bench/compare_losses.py "$losses" --device cuda "${small[@]}" --json --rounds 7 "$@"
  while IFS= read -r line; do figures+=("$line"); done < <(awk -f scripts/gpu/value.awk -f scripts/gpu/losses.awk "$last")
  show
}
# kernels FAMILY: own kernels; one process per family, so that a fault costs no other.
kernels() {
  local line
  run "kernels: $1" 40 "$bench" "${small[@]}" "$1"
  while IFS= read -r line; do figures+=("$line"); done < <(awk -f scripts/gpu/value.awk -f scripts/gpu/kernels.awk "$last")
  show
}

if [ "${small[*]}" != "" ] || [ "${BATCH:-16} ${SIZE:-512}" != "16 512" ]; then
  echo '{"rehearsal":"sizes that are not those of the goals"}' >> "$results"
  figure "A REHEARSAL: sizes that are not those of the goals"
fi

# --- the parts ------------------------------------------------------------------------------------------------------
if wanted facts; then
  if command -v nvidia-smi > /dev/null; then
    figure "card: $(nvidia-smi --query-gpu=name,driver_version,memory.total,clocks.max.sm --format=csv,noheader 2>&1 | head -1)"
  else
    figure "card: no nvidia-smi; tests will say why they are skipped"
  fi
  figure "date: $(date -u +%Y-%m-%d); $(nproc --all) processors; CUDA libraries for Python: ${found:-not used}"
  [ $pytorch = 0 ] || figure "$("$python" -c 'import torch
print(f"PyTorch {torch.__version__}, CUDA {torch.version.cuda}, cuDNN {torch.backends.cudnn.version()}")' 2>&1 | tail -1)"
fi

if wanted tests; then
  work_ahead
  run "tests" 130 "$tests"
  if reason=$(grep -m1 -o 'skipped: .*' "$last"); then
    for process in "${ahead[@]}"; do kill "$process" 2> /dev/null; done
    echo "gpu_check: $(grep -c 'skipped: ' "$last") tests $reason; nothing has been checked" >&2
    : > "$results"
    rows=()
    row "tests" "${reason:0:120}" 0
    exit 1
  fi
  end_of_work_ahead
fi

if wanted step; then
  step "step bf16, replayed" bf16 --cuda-graph
  [ -n "$(number median_ms)" ] || launched=(--launched)
  step "step bf16, launched one by one" bf16
  if [ $pytorch = 1 ]; then
    beside step 120 eager,eager
    beside student 90 eager,eager
  else
    row "step bf16 beside PyTorch" "$no_pytorch" 0
    row "student bf16 beside PyTorch" "$no_pytorch" 0
  fi
fi
if wanted kernels; then
  for family in batch_norm depthwise losses interpolate optimizer products pool_softmax input elementwise; do kernels $family; done
fi
if wanted compile && [ $pytorch = 1 ]; then
  beside step 170 compile,compile
fi
if wanted losses; then
  if [ $pytorch = 1 ]; then
    beside_losses "losses beside PyTorch" 110 --only $goal_losses --compile all
  else
    row "losses beside PyTorch" "$no_pytorch" 0
  fi
fi
wanted verbs && run "every verb, tiny" 75 tests/cli/test_device.sh "$app"

if command -v compute-sanitizer > /dev/null; then
  # Every request goes to the driver, so that an access behind an allocation is seen.
  wanted memory && run "memory checker" 75 env "LD_LIBRARY_PATH=$libraries" LIMBECK_CUDA_CACHE=0 \
    compute-sanitizer --tool memcheck --error-exitcode 9 "$checked" -tc="cases of*"
  wanted race && run "race checker" 45 env "LD_LIBRARY_PATH=$libraries" \
    compute-sanitizer --tool racecheck --error-exitcode 9 "$checked" -tc="cases of*"
else
  wanted memory && row "memory checker" "not run: no compute-sanitizer" 0
  wanted race && row "race checker" "not run: no compute-sanitizer" 0
fi

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
if wanted rivals && [ $pytorch = 1 ]; then
  beside step 90 eager,folded
  beside step 150 graphs,compile
fi
if wanted other_losses && [ $pytorch = 1 ]; then
  beside_losses "other losses beside PyTorch" 120 --skip $goal_losses
fi

show
echo
cat "$table"
echo "results: $results; $failed failed; $((SECONDS - start)) s"
[ "$failed" -eq 0 ]
