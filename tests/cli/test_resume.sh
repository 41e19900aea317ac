#!/usr/bin/env bash
# Ten steps at once give the same bits as four steps, kill -9, and six more; also with bf16, after SIGTERM, and with
# losses that have a memory of their own.
source "$(dirname "$0")/lib.sh"
config=$work/tiny.yaml
tiny_config "$config"

for precision in f32 bf16; do
  straight=$work/straight-$precision broken=$work/broken-$precision
  "$limbeck" train -c "$config" -o "$straight" train.precision=$precision
  # Kill without warning as soon as step 4 is on disk.
  "$limbeck" train -c "$config" -o "$broken" train.precision=$precision &
  pid=$!
  for _ in $(seq 1 600); do
    [ ! -d "$broken/step_00000004" ] || break
    kill -0 $pid 2>/dev/null || break
    sleep 0.02
  done
  kill -9 $pid 2>/dev/null || true
  wait $pid 2>/dev/null || true
  # Whatever came after step 4 is thrown away, so that exactly 4 + 6 steps are joined.
  for step in "$broken"/step_*; do
    [ "$(basename "$step")" = step_00000002 ] || [ "$(basename "$step")" = step_00000004 ] || rm -rf "$step"
  done
  "$limbeck" train -c "$config" -o "$broken" train.precision=$precision --resume
  for file in model.safetensors training.safetensors; do
    same "$straight/step_00000010/$file" "$broken/step_00000010/$file"
  done
  same <(grep -c . "$straight/metrics.jsonl") <(grep -c . "$broken/metrics.jsonl")
done

# SIGTERM: saved, exit status 75, and the same bits after resuming.
stopped=$work/stopped
"$limbeck" train -c "$config" -o "$stopped" &
pid=$!
for _ in $(seq 1 600); do [ ! -d "$stopped/step_00000002" ] || break; sleep 0.02; done
kill -TERM $pid 2>/dev/null || true
status=0; wait $pid || status=$?
checks=$((checks + 1))
if [ "$status" != 75 ] && [ "$status" != 0 ]; then failures=$((failures + 1)); echo "FAILED: SIGTERM gave status $status"; fi
[ "$status" = 0 ] || "$limbeck" train -c "$config" -o "$stopped" --resume
same "$work/straight-f32/step_00000010/model.safetensors" "$stopped/step_00000010/model.safetensors"

# Losses with a memory of their own: a discriminator and its optimizer, masks per step, weights by epochs. The copy is cut back
# to step 4 and goes on.
cat "$config" - >"$work/distill.yaml" <<YAML
teacher: {name: mobilenet_v2_seg, width: 0.1, output_stride: 16, init: $work/straight-f32}
distill:
  terms:
    - {loss: icsd, weight: {from: 1, to: 10, per: epoch}}
    - {loss: mgd, student: features.3, teacher: features.3, weight: 1.0e-3}
    - {loss: holistic, form: wgan_gp, size: 64, weight: 0.1}
YAML
"$limbeck" distill -c "$work/distill.yaml" -o "$work/whole"
cp -r "$work/whole" "$work/cut"
rm -r "$work/cut"/step_00000006 "$work/cut"/step_00000008 "$work/cut"/step_00000010
"$limbeck" distill -c "$work/distill.yaml" -o "$work/cut" --resume
for file in model.safetensors training.safetensors; do
  same "$work/whole/step_00000010/$file" "$work/cut/step_00000010/$file"
done

# What `compare` says about runs that are the same and runs that are not.
expect 0 "equal at all 10 steps" "$limbeck" compare "$work/straight-f32" "$stopped"
expect 0 "train.precision: f32 -> bf16" "$limbeck" compare "$work/straight-f32" "$work/straight-bf16"
expect 0 '"first_difference":{"step":1,"key":"loss"' "$limbeck" compare --json "$work/straight-f32" "$work/straight-bf16"
expect 2 "is no run folder" "$limbeck" compare "$work/straight-f32" "$work"

# --resume alone takes the configuration of the run folder; another one is named and then used.
cp -r "$work/straight-f32" "$work/longer"
LIMBECK_LOG=info expect 0 "resuming $work/longer/step_00000010 at step 10/10" "$limbeck" train -o "$work/longer" --resume
if grep -q "another configuration" "$work/output"; then failures=$((failures + 1)); echo "FAILED: the same configuration is called another"; fi
expect 0 "is resumed with another configuration: train.lr 0.02 -> 0.01, train.steps 10 -> 12" "$limbeck" train -o "$work/longer" --resume \
  train.steps=12 train.lr=0.01
[ -e "$work/longer/step_00000012" ] || { failures=$((failures + 1)); echo "FAILED: the longer run did not go on"; }

# A run folder is not overwritten by accident.
expect 2 "already holds a run" "$limbeck" train -c "$config" -o "$stopped"
finish
