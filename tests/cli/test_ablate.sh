#!/usr/bin/env bash
# A sweep that is stopped in the middle and run again gives the numbers of one that was not; a run that fails does not take
# the others with it; mistakes are found before the first step.
source "$(dirname "$0")/lib.sh"
teacher=$work/teacher sweep=$work/sweep.yaml
tiny_config "$work/teacher.yaml"
"$limbeck" train -c "$work/teacher.yaml" -o "$teacher" model.width=0.25 train.steps=4 train.ema=0
cat >"$sweep" <<YAML
base:
  model: {name: mobilenet_v2_seg, width: 0.1, output_stride: 16}
  data: {kind: scenes, scene_size: [48, 64], scene_train: 24, scene_val: 4, crop: [48, 64], scale: [0.8, 1.2], workers: 2}
  train: {steps: 8, batch: 4, lr: 0.02, save_every: 2, keep: 20, log_every: 1, pictures: 0}
common:
  teacher: {name: mobilenet_v2_seg, init: $teacher}
seeds: [1, 2]
splits: [val, test]
methods:
  - {name: alone}
  - {name: kd, terms: [{loss: pixel_kd}]}
YAML

check() { # MESSAGE COMMAND...
  local message=$1
  shift
  checks=$((checks + 1))
  "$@" || { failures=$((failures + 1)); echo "FAILED: $message"; }
}
# What a sweep found, without what depends on the clock.
numbers() { grep -ohE '"(method|seed|split|weights|miou|iou)":(\[[^]]*\]|[^,}]*)' "$1"/*/seed_*/result.json; }

straight=$work/straight broken=$work/broken
"$limbeck" ablate -c "$sweep" -o "$straight" >"$work/table"
check "the table names both methods" grep -q '^| kd ' "$work/table"
check "the table says how many runs there are" grep -q '4 of 4 runs finished' "$work/table"
for file in results.json table.md table.html bars_val.png bars_test.png; do check "$file is there" [ -s "$straight/$file" ]; done
# What a run does is what `train` and `distill` do.
"$limbeck" distill -c "$straight/kd/seed_2/config.yaml" -o "$work/one"
same "$work/one/step_00000008/model.safetensors" "$straight/kd/seed_2/step_00000008/model.safetensors"

# SIGTERM in the second run: saved, status 75, and the same numbers after the second try.
"$limbeck" ablate -c "$sweep" -o "$broken" >/dev/null &
pid=$!
for _ in $(seq 1 3000); do [ ! -d "$broken/kd/seed_1/step_00000002" ] || break; sleep 0.02; done
kill -TERM $pid 2>/dev/null || true
status=0; wait $pid || status=$?
check "SIGTERM gave status $status" [ "$status" = 75 ]
check "the finished run has no result" [ -s "$broken/alone/seed_1/result.json" ]
check "the sweep did not stop" [ ! -e "$broken/kd/seed_2/result.json" ]
before=$(stat -c %Y.%i "$broken/alone/seed_1/step_00000008/model.safetensors")
"$limbeck" ablate -c "$sweep" -o "$broken" >/dev/null
check "a finished run was trained again" [ "$before" = "$(stat -c %Y.%i "$broken/alone/seed_1/step_00000008/model.safetensors")" ]
same <(numbers "$straight") <(numbers "$broken")
for run in alone/seed_1 alone/seed_2 kd/seed_1 kd/seed_2; do
  same "$straight/$run/step_00000008/model.safetensors" "$broken/$run/step_00000008/model.safetensors"
done

# Another configuration in the same folder is refused, with the line; --force trains again, --only limits it.
expect 2 "lr: 0.01' instead of" "$limbeck" ablate -c "$sweep" -o "$broken" train.lr=0.01
changed() { stat -c %Y.%i "$broken/$1/seed_1/step_00000008/model.safetensors"; }
alone=$(changed alone) kd=$(changed kd)
expect 0 "4 of 4 runs finished" "$limbeck" ablate -c "$sweep" -o "$broken" --force --only kd
check "--only kd trained another method" [ "$alone" = "$(changed alone)" ]
check "--force did not train kd again" [ "$kd" != "$(changed kd)" ]
same <(numbers "$straight") <(numbers "$broken")
expect 2 "there is no split 'tset'" "$limbeck" ablate -c "$sweep" -o "$work/refused" 'splits=[val, tset]'
[ ! -e "$work/refused" ] || { failures=$((failures + 1)); echo "FAILED: a refused sweep left $work/refused behind"; }

# A split that was not scored before is scored without training.
expect 0 "## train" "$limbeck" ablate -c "$sweep" -o "$broken" 'splits=[val, test, train]' --only alone

# A loss that explodes fails its own runs; the status says so at the end.
failing=("methods=[{name: alone}, {name: wild, terms: [{loss: pixel_kd}], train: {lr: 1000}}, {name: cwd, terms: [{loss: channel_kd}]}]")
expect 5 "2 failed" "$limbeck" ablate -c "$sweep" -o "$work/wild" "${failing[@]}" train.steps=40
check "the method behind the failed one was run" grep -q '"state":"finished"' "$work/wild/cwd/seed_2/result.json"
check "the reason is recorded" grep -q '"reason":"\[train\] the loss is' "$work/wild/wild/seed_1/result.json"

# Mistakes, before anything is trained.
expect 2 "did you mean 'kd'" "$limbeck" ablate -c "$sweep" -o "$work/x" --only kdd
expect 2 "second method 'kd'" "$limbeck" ablate -c "$sweep" -o "$work/x" 'methods=[{name: kd}, {name: kd}]'
expect 2 "name of a folder" "$limbeck" ablate -c "$sweep" -o "$work/x" 'methods=[{name: a/b}]'
expect 2 "no method is called 'none'" "$limbeck" ablate -c "$sweep" -o "$work/x" baseline=none
expect 2 "neither a preset nor a file" "$limbeck" ablate -c "$sweep" -o "$work/x" base=camvid/studend
expect 2 "did you mean 'channel_kd'" "$limbeck" ablate -c "$sweep" -o "$work/x" 'methods=[{name: a, terms: [{loss: chanel_kd}]}]'
expect 2 "method 'a': [distiller] term" "$limbeck" ablate -c "$sweep" -o "$work/x" \
  'methods=[{name: a, terms: [{loss: channel_kd, student: feature}]}]'
expect 2 "unknown key 'train.stepz'" "$limbeck" ablate -c "$sweep" -o "$work/x" 'methods=[{name: a, train: {stepz: 3}}]'
expect 2 "no folder for the runs" "$limbeck" ablate -c "$sweep"
expect 4 "does not exist" "$limbeck" ablate -c "$sweep" -o "$work/x" "teacher.init=$work/nowhere"
check "a refused sweep left a folder behind" [ ! -e "$work/x" ]
finish
