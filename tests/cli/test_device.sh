#!/usr/bin/env bash
# Every verb that computes, with --device cuda:0. The program is one whose GPU is emulated (tests/cuda_emulation), so the runs are as
# small as they can be. The numbers of the GPU are the subject of other tests; here nothing may be left on the wrong side.
source "$(dirname "$0")/lib.sh"

tiny_data='kind: scenes, scene_size: [32, 32], scene_train: 4, scene_val: 1, crop: [32, 32], workers: 1'
tiny_train='batch: 2, lr: 0.01, keep: 9, log_every: 1, pictures: 1'
cat >"$work/run.yaml" <<YAML
out: $work/run
common:
  data: {$tiny_data}
stages:
  teacher:
    verb: train
    model: {name: mobilenet_v2_seg, width: 0.1, output_stride: 16}
    train: {steps: 6, $tiny_train, clip_norm: 2, save_every: 3, ema: 0.9, class_weights: median_frequency}
  student:
    verb: train
    model: {name: ka_student_mobilenet_v2, width: 0.1, output_stride: 16}
    train: {steps: 2, $tiny_train, optimizer: adamw, accumulate: 2}
  autoencoder:
    verb: autoencoder
    model: {name: ka_student_mobilenet_v2, width: 0.1, output_stride: 16}
    teacher: {init: "@teacher"}
    autoencoder: {tap: head, student_tap: head, code: 8}
    train: {steps: 2, $tiny_train}
  distilled:
    verb: distill
    like: student
    teacher: {init: "@teacher"}
    distill:
      autoencoder: "@autoencoder"
      terms:
        - {name: adapt, loss: ka_adapt, student: head, teacher: code, weight: 50}
        - {name: affinity, loss: ka_affinity, student: head, teacher: code, weight: 1}
        - {name: cwd, loss: channel_kd, tau: 4}
YAML
gpu=(--device cuda:0)
expect 0 "| distilled |" "$limbeck" run -c "$work/run.yaml" "${gpu[@]}"
expect 0 '"iter":6' cat "$work/run/teacher/metrics.jsonl"
checks=$((checks + 1))
[ "$(grep -c '"loss"' "$work/run/teacher/metrics.jsonl")" = 6 ] ||
  { failures=$((failures + 1)); echo "FAILED: losses of six steps, read late"; }

# The same on the device after an interruption: bit for bit.
cp -r "$work/run/teacher" "$work/again"
rm -r "$work/again/step_00000006" "$work/again/best"
expect 0 "resuming" env LIMBECK_LOG=info "$limbeck" train -c "$work/run/teacher/config.yaml" -o "$work/again" --resume "${gpu[@]}"
same "$work/again/step_00000006/model.safetensors" "$work/run/teacher/step_00000006/model.safetensors"

# A step that is recorded and replayed gives the bits of one that is launched piece by piece, and so does a run that goes on
# from a checkpoint, with rates, weights of terms and averages that change.
cat >"$work/graph.yaml" <<YAML
model: {name: mobilenet_v2_seg, width: 0.1, output_stride: 16}
teacher: {name: mobilenet_v2_seg, init: $work/run/teacher}
data: {$tiny_data}
train: {steps: 12, $tiny_train, clip_norm: 2, save_every: 6, ema: 0.9, optimizer: adamw, accumulate: 2, cuda_graph: on}
distill: {terms: [{loss: channel_kd, tau: 4, weight: {from: 1, to: 3}}, {loss: pixel_kd, weight: {value: 1, until: 10}}]}
YAML
graph() {  # graph NAME ARGUMENTS...: the run, in a folder of its own
  local out=$work/$1
  shift
  LIMBECK_LOG=info "$limbeck" distill -c "$work/graph.yaml" -o "$out" "${gpu[@]}" "$@"
}
expect 0 "step 3 is recorded" graph on
expect 0 "validation" graph off train.cuda_graph=off
for file in model.safetensors training.safetensors; do
  same "$work/on/step_00000012/$file" "$work/off/step_00000012/$file"
done
losses() { sed -nE 's/.*"iter":([0-9]+).*"loss":([^,]*),.*/\1 \2/p' "$1/metrics.jsonl"; }
same <(losses "$work/on") <(losses "$work/off")
rm -r "$work/on/step_00000012" "$work/on/best"
expect 0 "step 9 is recorded" graph on --resume
same "$work/on/step_00000012/model.safetensors" "$work/off/step_00000012/model.safetensors"
# So does one whose losses draw random numbers, in bf16, with pictures that are normalised on the device.
sed -i -E 's/^distill:.*/distill: {terms: [{loss: mgd}]}/; s/steps: 12/steps: 6/' "$work/graph.yaml"
for mode in on off; do
  expect 0 "validation" graph drawn_$mode train.cuda_graph=$mode train.precision=bf16 data.bytes=on
done
same "$work/drawn_on/step_00000006/model.safetensors" "$work/drawn_off/step_00000006/model.safetensors"
# A step that cannot be recorded is an error where that is asked for.
expect 2 "the device is cpu" "$limbeck" distill -c "$work/graph.yaml" -o "$work/cpu"

expect 0 "mIoU" "$limbeck" eval "$work/run/distilled" --split val --scales 0.5,1 --flip "${gpu[@]}"
"$limbeck" predict -m "$work/run/distilled" -o "$work/masks" "$work/run/teacher/pictures/val_000.png" --tile 32x32 "${gpu[@]}"
expect 0 "val_000.png" ls "$work/masks"
expect 0 "index.html in" env LIMBECK_LOG=info "$limbeck" visualize --teacher "$work/run/teacher" --student "$work/run/distilled" \
  -o "$work/out" --count 1 "${gpu[@]}"

cat >"$work/sweep.yaml" <<YAML
base:
  model: {name: mobilenet_v2_seg, width: 0.1, output_stride: 16}
  data: {$tiny_data}
  train: {steps: 1, batch: 2, lr: 0.01, pictures: 0}
common:
  teacher: {name: mobilenet_v2_seg, init: $work/run/teacher}
seeds: [1]
splits: [val]
methods:
  - {name: alone}
  - {name: kd, terms: [{loss: pixel_kd}]}
  - {name: mgd, terms: [{loss: mgd}]}
YAML
expect 0 "3 of 3 runs finished" "$limbeck" ablate -c "$work/sweep.yaml" -o "$work/sweep" "${gpu[@]}"

expect 2 "cuda:7 is not available" "$limbeck" run -c "$work/run.yaml" --device cuda:7 -o "$work/x"
finish
