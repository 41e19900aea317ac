#!/usr/bin/env bash
# The verb `export`: files, proof, and refusals.
source "$(dirname "$0")/lib.sh"
config=$work/tiny.yaml
tiny_config "$config"
run=$work/run
"$limbeck" train -c "$config" -o "$run" train.steps=2

expect 2 "--format" "$limbeck" export "$run" -o "$work/x" --format caffe
expect 2 "x ends with none of .onnx, .safetensors and .pth" "$limbeck" export "$run" -o "$work/x"
expect 2 "x.pth is the name of a file of format pth-compatible, but --format is onnx" "$limbeck" export "$run" -o "$work/x.pth" --format onnx
expect 4 "does not exist" "$limbeck" export "$work/nowhere" -o "$work/x" --format safetensors
expect 0 "tensors of mobilenet_v2_seg" "$limbeck" export "$run" -o "$work/student.safetensors"
expect 0 "tensors of mobilenet_v2_seg" "$limbeck" export "$run" -o "$work/student.pth" --format pth-compatible
expect 0 "0 missing" "$limbeck" import "$work/student.pth" --model mobilenet_v2_seg --classes 11 --width 0.1 -o "$work/back.safetensors"
expect 0 "mIoU" "$limbeck" eval "$work/student.safetensors" -c "$config"

# Of a file for 8 bits, what is in f32.
"$limbeck" calibrate "$run" -o "$work/int8.safetensors" --count 2 >/dev/null
"$limbeck" calibrate "$run" -o "$work/packed.safetensors" --count 2 --pack >/dev/null
expect 0 "int8.safetensors: the ranges for 8 bits are not exported; $work/f32.safetensors computes in f32" \
  "$limbeck" export "$work/int8.safetensors" -o "$work/f32.safetensors"
expect 0 "computes in f32, with weights that were rounded to 8 bits" "$limbeck" export "$work/packed.safetensors" -o "$work/rounded.pth"
expect 0 "0 missing" "$limbeck" import "$work/rounded.pth" --model mobilenet_v2_seg --classes 11 --width 0.1 -o "$work/back.safetensors"

expect 2 "only ONNX files hold 8 bits, not safetensors" "$limbeck" export "$work/int8.safetensors" -o "$work/x.safetensors" --precision int8

# How the file is run is tested with and without ONNX Runtime; the Python that has it is only looked for here.
python=${LIMBECK_PYTHON:-python3}
export LIMBECK_PYTHON=$work/no-python
if "$limbeck" export "$run" -o "$work/student.onnx" --size 64x96 >"$work/first" 2>&1; then
  expect 0 "run by limbeck on 4 images" cat "$work/first"
  expect 0 "argmax agrees" "$limbeck" export "$run" -o "$work/student.onnx" --size 64x96 --runtime limbeck
  expect 0 "not run in ONNX Runtime: there is no $work/no-python" "$limbeck" export "$run" -o "$work/student.onnx" --size 64x96
  expect 0 '"passed":true' cat "$work/student.onnx.json"
  expect 0 '"argmax_agreement":1' "$limbeck" export "$run" -o "$work/ids.onnx" --output ids --normalise --dynamic-size --dynamic-batch \
    --opset 14 --keep-batch-norm --size 48x64 --samples "$run/pictures/val_000.png" --json
  # In 8 bits, from ranges and from packed weights.
  int8=(--precision int8 --size 64x96 --runtime limbeck)
  expect 0 "(--precision int8 does)" "$limbeck" export "$work/int8.safetensors" -o "$work/f32.onnx" --size 64x96
  for kind in int8 packed; do
    expect 0 "compared with the network in 8 bits: it differs by" "$limbeck" export "$work/$kind.safetensors" -o "$work/$kind.onnx" "${int8[@]}"
    expect 0 '"precision":"int8"' "$limbeck" export "$work/$kind.safetensors" -o "$work/$kind.onnx" "${int8[@]}" --output ids --normalise --dynamic-size --json
  done
  [ "$(stat -c %s "$work/int8.onnx")" -lt "$(stat -c %s "$work/f32.onnx")" ] || { failures=$((failures + 1)); echo "FAILED: $(ls -l "$work"/*.onnx)"; }
  expect 4 "has no ranges for 8 bits" "$limbeck" export "$run" -o "$work/x.onnx" "${int8[@]}"
  expect 2 "batch norm is a part of the convolutions" "$limbeck" export "$work/int8.safetensors" -o "$work/x.onnx" "${int8[@]}" --keep-batch-norm
  expect 2 "--precision bf16, expected f32 or int8" "$limbeck" export "$run" -o "$work/x.onnx" --precision bf16
  expect 2 "opset 12" "$limbeck" export "$run" -o "$work/x.onnx" --opset 12
  expect 2 "--output" "$limbeck" export "$run" -o "$work/x.onnx" --output mask
  expect 2 "--size" "$limbeck" export "$run" -o "$work/x.onnx" --size big
  expect 1 "no/x.onnx" "$limbeck" export "$run" -o "$work/no/x.onnx"
  expect 3 "missing.png" "$limbeck" export "$run" -o "$work/x.onnx" --samples "$work/missing.png"
  expect 2 "--runtime onnxruntime: there is no $work/no-python" "$limbeck" export "$run" -o "$work/x.onnx" --size 64x96 --runtime onnxruntime
  expect 2 "--runtime torch, expected auto" "$limbeck" export "$run" -o "$work/x.onnx" --runtime torch
  printf '#!/bin/sh\necho "no module named onnxruntime"; exit 3\n' >"$work/bare-python"
  printf '#!/bin/sh\necho first; echo "Conv: this is no network" >&2; exit 1\n' >"$work/refusing-python"
  chmod +x "$work/bare-python" "$work/refusing-python"
  expect 0 "not run in ONNX Runtime: $work/bare-python: no module named onnxruntime" \
    env LIMBECK_PYTHON="$work/bare-python" "$limbeck" export "$run" -o "$work/student.onnx" --size 64x96
  expect 1 "ended with 1): Conv: this is no network" env LIMBECK_PYTHON="$work/refusing-python" "$limbeck" export "$run" -o "$work/x.onnx" --size 64x96
  # What was there before stays, and its proof.
  cp "$work/student.onnx" "$work/before.onnx"
  expect 1 "ended with 1" env LIMBECK_PYTHON="$work/refusing-python" "$limbeck" export "$run" -o "$work/student.onnx" --size 48x64
  same "$work/student.onnx" "$work/before.onnx"
  expect 0 '"passed":true' cat "$work/student.onnx.json"
  mkdir "$work/folder.onnx"
  expect 1 "it exists and is not a regular file" "$limbeck" export "$run" -o "$work/folder.onnx"
  expect 0 '"samples":"'"$run"'/pictures"' "$limbeck" export "$run" -o "$work/student.onnx" --size 48x64 --samples "$run/pictures" --json
  if "$python" -c 'import numpy, onnxruntime' 2>/dev/null; then
    for output in logits resized ids; do
      expect 0 '"run_by":"limbeck, ONNX Runtime' env LIMBECK_PYTHON="$python" "$limbeck" export "$run" -o "$work/student.onnx" --size 64x96 \
        --output "$output" --dynamic-size --normalise --runtime onnxruntime --json
      expect 0 '"run_by":"limbeck, ONNX Runtime' env LIMBECK_PYTHON="$python" "$limbeck" export "$work/int8.safetensors" -o "$work/int8.onnx" \
        --precision int8 --size 64x96 --output "$output" --runtime onnxruntime --json
    done
  else
    echo "skipped: $python has no onnxruntime and numpy; name one that has with LIMBECK_PYTHON"
  fi
  [ -z "$(ls "$work" | grep -e unproved -e '^x')" ] || { failures=$((failures + 1)); echo "FAILED: a refused export left a file behind"; }
else
  expect 2 "built without ONNX" "$limbeck" export "$run" -o "$work/x.onnx"
fi
finish
