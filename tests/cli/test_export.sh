#!/usr/bin/env bash
# The verb `export`: files, proof, and refusals.
source "$(dirname "$0")/lib.sh"
config=$work/tiny.yaml
tiny_config "$config"
run=$work/run
"$limbeck" train -c "$config" -o "$run" train.steps=2

expect 2 "--format" "$limbeck" export "$run" -o "$work/x" --format caffe
expect 4 "does not exist" "$limbeck" export "$work/nowhere" -o "$work/x"
expect 0 "tensors of mobilenet_v2_seg" "$limbeck" export "$run" -o "$work/student.safetensors" --format safetensors
expect 0 "tensors of mobilenet_v2_seg" "$limbeck" export "$run" -o "$work/student.pth" --format pth-compatible
expect 0 "0 missing" "$limbeck" import "$work/student.pth" --model mobilenet_v2_seg --classes 11 --width 0.1 -o "$work/back.safetensors"
expect 0 "mIoU" "$limbeck" eval "$work/student.safetensors" -c "$config"

if "$limbeck" export "$run" -o "$work/student.onnx" --size 64x96 >"$work/output" 2>&1; then
  grep -qF "argmax agrees" "$work/output" || { failures=$((failures + 1)); echo "FAILED: export does not print its proof"; }
  expect 0 '"passed":true' cat "$work/student.onnx.json"
  expect 0 '"argmax_agreement":1' "$limbeck" export "$run" -o "$work/ids.onnx" --output ids --normalise --dynamic-size --dynamic-batch \
    --opset 14 --keep-batch-norm --size 48x64 --samples "$run/pictures/val_000.png" --json
  expect 2 "opset 12" "$limbeck" export "$run" -o "$work/x.onnx" --opset 12
  expect 2 "--output" "$limbeck" export "$run" -o "$work/x.onnx" --output mask
  expect 2 "--size" "$limbeck" export "$run" -o "$work/x.onnx" --size big
  expect 1 "no/x.onnx" "$limbeck" export "$run" -o "$work/no/x.onnx"
  expect 3 "missing.png" "$limbeck" export "$run" -o "$work/x.onnx" --samples "$work/missing.png"
  [ -z "$(ls "$work" | grep -e unproved -e '^x')" ] || { failures=$((failures + 1)); echo "FAILED: a refused export left a file behind"; }
else
  expect 2 "built without ONNX" cat "$work/output"
fi
finish
