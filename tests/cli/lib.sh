# What this is: helpers of the command-line tests. Each test_*.sh is run by ctest with the program as first argument.
set -euo pipefail
limbeck=${1:?usage: test_NAME.sh PATH_TO_LIMBECK}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export OMP_WAIT_POLICY=passive LIMBECK_LOG=${LIMBECK_LOG:-warn}
failures=0
checks=0

# expect STATUS 'TEXT' COMMAND...: the command must end with STATUS and say TEXT (a fixed string) on stderr or stdout.
expect() {
  local want=$1 text=$2 status=0
  shift 2
  "$@" >"$work/output" 2>&1 || status=$?
  checks=$((checks + 1))
  if [ "$status" != "$want" ]; then
    failures=$((failures + 1))
    echo "FAILED: status $status, expected $want: $*"
    tail -n 5 "$work/output"
  elif ! grep -qF -- "$text" "$work/output"; then
    failures=$((failures + 1))
    echo "FAILED: the output lacks '$text': $*"
    tail -n 5 "$work/output"
  fi
}

# same FILE FILE: equal bytes.
same() {
  checks=$((checks + 1))
  cmp -s "$1" "$2" || { failures=$((failures + 1)); echo "FAILED: $1 and $2 differ"; }
}

finish() {
  echo "$checks checks, $failures failures"
  [ "$failures" = 0 ]
}

# A tiny configuration: seconds per run.
tiny_config() { # FILE VERB
  cat >"$1" <<YAML
seed: 3
model: {name: mobilenet_v2_seg, width: 0.1, output_stride: 16}
data: {kind: scenes, scene_size: [48, 64], scene_train: 24, scene_val: 4, crop: [48, 64], scale: [0.8, 1.2], workers: 2}
train: {steps: 10, batch: 4, lr: 0.02, save_every: 2, keep: 20, log_every: 1, ema: 0.9, pictures: 1}
YAML
}
