#!/usr/bin/env bash
# Installs what is missing, builds limbeck and runs every check. The last line counts them: `N passed, N failed`.
#
#   scripts/test.sh           the normal build, in build/
#   scripts/test.sh --asan    all tests again under AddressSanitizer and UndefinedBehaviorSanitizer, in build-asan/
#
# To run less: cmake --build build && ctest --test-dir build -R conv2d --output-on-failure
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

preset=release build=build
case "${1:-}" in
  "") ;;
  --asan) preset=asan build=build-asan ;;
  *) echo "test: unknown argument '$1'; usage: scripts/test.sh [--asan]" >&2; exit 2 ;;
esac

# Spinning OpenMP threads fight for cores that other programs use too.
export OMP_WAIT_POLICY=passive
jobs=$(nproc)
passed=0 failed=0

# check NAME COMMAND...: runs one check and counts it; the rest goes on after a failure.
check() {
  local name=$1 start=$SECONDS
  shift
  echo "== $name"
  if "$@"; then
    passed=$((passed + 1))
  else
    failed=$((failed + 1))
    echo "test: FAILED: $name"
  fi
  echo "   $((SECONDS - start)) s"
}

# must NAME COMMAND...: the same, but without it nothing else makes sense.
must() {
  local name=$1 start=$SECONDS
  shift
  echo "== $name"
  "$@" || { echo "test: $name failed, so nothing was tested"; echo "$passed passed, $((failed + 1)) failed"; exit 1; }
  echo "   $((SECONDS - start)) s"
}

# Adds up the log of ctest: test cases where a program reports them, else the program as one.
count_ctest() {
  awk '
    function finish() {
      if (!seen) return
      cases += cases_passed + cases_failed
      if (cases_passed + cases_failed == 0) { if (ok) cases_passed = 1; else cases_failed = 1 }
      else if (!ok && cases_failed == 0) cases_failed = 1     # crashed or ran out of time after some cases
      passed += cases_passed; failed += cases_failed
    }
    /^[0-9]+\/[0-9]+ Testing: / { finish(); seen = 1; ok = 0; cases_passed = cases_failed = 0 }
    /^\[doctest\] test cases:/  { split($0, part, "|"); cases_passed = part[2] + 0; cases_failed = part[3] + 0 }
    /^Test Passed\./            { ok = 1 }
    END { finish(); print passed + 0, failed + 0, cases + 0 }' "$build/Testing/Temporary/LastTest.log"
}

# The oracle is optional: limbeck itself needs no Python.
torchvision_agrees() {
  local python=${LIMBECK_PYTHON:-python3}
  if ! "$python" -c 'import torch, torchvision, safetensors' 2> /dev/null; then
    echo "skipped: $python has no torch, torchvision and safetensors; name one that has with LIMBECK_PYTHON"
    return 0
  fi
  "$python" tests/golden/compare_torchvision.py "$build/tests/compare_torchvision"
}

# A test case in a file that no ctest entry covers would never run, and nobody would notice.
every_case_runs() {
  local count=0 program
  for program in limbeck_tests limbeck_cuda_emulated_tests limbeck_cuda_tests limbeck_plan_tests; do
    [ -x "$build/tests/$program" ] || continue     # the last two exist with CUDA only
    count=$((count + $("$build/tests/$program" --count | sed -n 's/.*filters: *//p')))
  done
  [ "$count" -eq "$doctest_ran" ] || { echo "the programs have $count test cases, ctest ran $doctest_ran"; return 1; }
  echo "all $count of them"
}

must "set-up" scripts/setup.sh
must "configure ($preset)" cmake --preset "$preset"
must "build" cmake --build "$build" --parallel "$jobs"

echo "== tests"
rm -f "$build/Testing/Temporary/LastTest.log"
ctest --preset "$preset" --parallel "$jobs" --no-tests=error || echo "test: FAILED: ctest"
read -r ctest_passed ctest_failed doctest_ran < <(count_ctest)
passed=$((passed + ctest_passed)) failed=$((failed + ctest_failed))

if [ "$preset" = release ]; then
  check "every test case is run by ctest" every_case_runs
  check "torchvision agrees" torchvision_agrees
  check "layers" scripts/check_layers.sh
  check "headers stand alone" scripts/check_headers.sh "$build"
  check "another project can use an installed limbeck" scripts/check_install.sh "$build"
fi

# Checks against other programs, for which a Python with their packages must be there.
python=${LIMBECK_PYTHON:-python3}
oracle() { # NAME PACKAGES COMMAND...
  local name=$1 packages=$2
  shift 2
  if "$python" -c "import $packages" 2>/dev/null; then
    check "$name" "$python" "$@"
  else
    echo "== $name"
    echo "   skipped: $python has no $packages; set LIMBECK_PYTHON to one that has"
  fi
}
if [ "$preset" = release ]; then
  if grep -q '^LIMBECK_ONNX:[A-Z]*=OFF' "$build/CMakeCache.txt"; then
    echo "== ONNX Runtime computes what limbeck computes"
    echo "   skipped: this build is without ONNX"
  else
    oracle "ONNX Runtime computes what limbeck computes" "numpy, onnxruntime" tests/golden/check_onnx.py "$build/tests/export_zoo"
  fi
  oracle "torchvision computes what limbeck computes with exported weights" "torch, torchvision, safetensors" \
    tests/golden/check_weights.py "$build/tests/export_zoo"
fi

echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
