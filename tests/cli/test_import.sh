#!/usr/bin/env bash
# What `limbeck import` accepts, refuses and writes, with the weights of a run of two steps. Usage: test_import.sh PATH_TO_LIMBECK
# The forms of files and names: tests/test_weights.cpp, tests/test_weight_names.cpp, tests/test_torch_file.cpp.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

tiny_config "$work/tiny.yaml"
"$limbeck" train -c "$work/tiny.yaml" -o "$work/run" train.steps=2 >"$work/log" 2>&1 || { cat "$work/log"; exit 1; }
file=$(ls "$work"/run/step_*2/model.safetensors)
net=(--model mobilenet_v2_seg --width 0.1)
import=("$limbeck" import "$file" "${net[@]}" -o "$work/out.safetensors")

# The first try says how many classes the file has.
expect 4 "classifier.weight: file [" "${import[@]}" --classes 50
classes=$(sed -n 's/.*classifier.weight: file \[\([0-9]*\),.*/\1/p' "$work/output" | head -n 1)
expect 4 "nothing was changed" "${import[@]}" --classes 50
expect 0 "keep random values" env LIMBECK_LOG=info "${import[@]}" --classes 50 --new-classifier
expect 0 "0 missing, 0 unexpected, 0 mismatched" "${import[@]}" --classes "$classes"
expect 0 "loaded       classifier.weight" "${import[@]}" --classes "$classes" --report
expect 0 '"missing":[]' "${import[@]}" --classes "$classes" --json
expect 0 "mIoU" "$limbeck" eval "$work/out.safetensors" -c "$work/tiny.yaml"

# Lists of names.
echo "classifier.weight classifier.weight" >"$work/names.txt"
expect 0 "0 missing" "${import[@]}" --classes "$classes" --map "$work/names.txt"
echo "clasifier.weight classifier.weight" >"$work/names.txt"
expect 4 "names.txt:1: no tensor of" "${import[@]}" --classes "$classes" --map "$work/names.txt"
echo "classifier.weight -" >"$work/names.txt"
expect 4 "1 missing (classifier.weight)" "${import[@]}" --classes "$classes" --map "$work/names.txt"
expect 0 "1 missing (classifier.weight)" "${import[@]}" --classes "$classes" --map "$work/names.txt" --lenient
expect 4 "missing.txt" "${import[@]}" --classes "$classes" --map "$work/missing.txt"

# The padding of MobileNetV2 is kept with the weights.
expect 0 "0 missing" "${import[@]}" --classes "$classes" --padding before_expansion
expect 0 "mIoU" "$limbeck" eval "$work/out.safetensors" -c "$work/tiny.yaml"
grep -qaF '"padding":"before_expansion"' "$work/out.safetensors" || { failures=$((failures + 1)); echo "FAILED: no padding in the metadata"; }
expect 2 "choose depthwise or before_expansion" "${import[@]}" --classes "$classes" --padding block

# So are forms of a DeepLab head that its weights do not show.
"$limbeck" train -c "$work/tiny.yaml" -o "$work/deeplab" train.steps=1 model.name=deeplabv3_mobilenet_v2 >"$work/log" 2>&1 || { cat "$work/log"; exit 1; }
deeplab=("$limbeck" import "$work/deeplab/best/model.safetensors" --model deeplabv3_mobilenet_v2 --width 0.1 --classes "$classes" -o "$work/head.safetensors")
expect 0 "0 missing" "${deeplab[@]}" --bn-eps 1e-3 --head-bn-eps 1e-5 --aspp-rates 12,24,36
for entry in '"bn_eps":"0.001"' '"head_bn_eps":"1e-05"' '"aspp_rates":"12,24,36"'; do
  checks=$((checks + 1))
  grep -qaF "$entry" "$work/head.safetensors" || { failures=$((failures + 1)); echo "FAILED: no $entry in the metadata"; }
done
expect 0 "mIoU" "$limbeck" eval "$work/head.safetensors" -c "$work/tiny.yaml"
expect 2 "rates 12, 24, 0" "${deeplab[@]}" --aspp-rates 12,24,0
expect 2 "aspp-rates" "${deeplab[@]}" --aspp-rates 12,24

# Files and options that cannot be right.
expect 4 "does not fit" "$limbeck" import "$file" --model resnet18 -o "$work/out.safetensors"
expect 2 "did you mean" "$limbeck" import "$file" --model mobilenet_v2_sge -o "$work/out.safetensors"
expect 2 "normalisation 'caffe' is unknown" "${import[@]}" --classes "$classes" --normalisation caffe
expect 2 "--classes" "${import[@]}" --classes -3
expect 2 "--bn-eps" "${import[@]}" --classes "$classes" --bn-eps -1
expect 4 "is a folder, expected a weight file" "$limbeck" import "$work/run" "${net[@]}" -o "$work/out.safetensors"
expect 4 "does not exist" "$limbeck" import "$work/none.pth" "${net[@]}" -o "$work/out.safetensors"
finish
