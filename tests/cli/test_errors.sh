#!/usr/bin/env bash
# Bad input: one clear message naming file and field, the documented exit status, nothing half-written.
source "$(dirname "$0")/lib.sh"
config=$work/tiny.yaml
tiny_config "$config"

# --- usage and configuration: 2
expect 2 "a verb is missing" "$limbeck"
expect 2 "unknown verb 'fly'" "$limbeck" fly
expect 2 "unknown verb 'trian', did you mean 'train'" "$limbeck" trian -c "$config"
expect 2 "unknown option '--rsume', did you mean '--resume'" "$limbeck" train -c "$config" -o "$work/x" --rsume
expect 2 "unknown option '--modle', did you mean '--model'" "$limbeck" predict --modle=x y.png
expect 2 "--model is required" "$limbeck" predict y.png
expect 2 "unexpected argument 'c'" "$limbeck" compare a b c
expect 2 "--threads: Value 0 not in range" "$limbeck" -j 0 summary resnet18
expect 2 "cannot read" "$limbeck" train -c "$work/missing.yaml" -o "$work/x"
expect 2 "no configuration" "$limbeck" train -o "$work/x"
expect 2 "tiny.yaml: 'out': the run folder is missing; give -o DIR" "$limbeck" train -c "$config"
expect 2 "unknown data set 'scens', did you mean 'scenes'" "$limbeck" train -c "$config" -o "$work/x" data.kind=scens
expect 2 "there is no split 'tset', expected train, val or test" "$limbeck" train -c "$config" -o "$work/x" data.val_split=tset
expect 2 "--seed" "$limbeck" train -c "$config" -o "$work/x" --seed -1
expect 2 "24 samples give no full batch of 100" "$limbeck" train -c "$config" -o "$work/x" train.batch=100
expect 2 "is no run folder: run.json is missing" "$limbeck" report "$work"
expect 2 "did you mean 'batch'" "$limbeck" train -c "$config" -o "$work/x" train.bach=8
printf 'seed: 1\nseed: 2\n' >"$work/twice.yaml"
expect 2 "twice.yaml:2" "$limbeck" train -c "$work/twice.yaml" -o "$work/x"
expect 2 "did you mean" "$limbeck" train -c "$config" -o "$work/x" model.name=mobilenet_v2_sge
expect 2 "did you mean" "$limbeck" summary resnet81
expect 2 "train.lr" "$limbeck" train -c "$config" -o "$work/x" train.lr=fast
expect 2 "cuda" "$limbeck" train -c "$config" -o "$work/x" --device cuda:0
expect 2 "model.classes is 7, but the data set has 11 classes" "$limbeck" train -c "$config" -o "$work/x" model.classes=7
[ ! -e "$work/x" ] || { failures=$((failures + 1)); echo "FAILED: a refused run left $work/x behind"; }

expect 2 "unknown preset 'camvid/distil', did you mean 'camvid/distill'" "$limbeck" init-config camvid/distil
expect 0 "CamVid student trained alone: MobileNetV2 at 0.35 width" "$limbeck" init-config

# --- a good run to damage
run=$work/run
"$limbeck" train -c "$config" -o "$run" train.steps=2
weights=$run/best/model.safetensors

# --- data: 3
pairs=$work/pairs
mkdir -p "$pairs/images/train" "$pairs/labels/train" "$work/pictures"
"$limbeck" predict -m "$run" -o "$work/masks" "$run"/pictures/val_000.png   # any image file gives an index mask
cp "$run/pictures/val_000.png" "$pairs/images/train/a.png"
cp "$work/masks/val_000.png" "$pairs/labels/train/a.png"
folder=(data.kind=folder "data.root=$pairs" data.val_split=train data.scene_size=null data.num_classes=11)
expect 0 "" "$limbeck" check-data -c "$config" "${folder[@]}"
"$limbeck" train -c "$config" -o "$work/twelve" "${folder[@]}" data.num_classes=12 train.steps=1 train.batch=1
# An id that no class has: file, pixel and id are in the message. (The scene has more than one class.)
expect 3 "at pixel x=" "$limbeck" train -c "$config" -o "$work/x" "${folder[@]}" data.num_classes=1 model.classes=1
"$limbeck" train -c "$config" -o "$work/other_size" train.steps=1 'data.scene_size=[40, 64]' 'data.crop=[40, 64]'
cp "$work/other_size/pictures/val_000.png" "$pairs/images/train/a.png"       # image and mask of different size
expect 3 "its mask" "$limbeck" train -c "$config" -o "$work/x" "${folder[@]}"
cp "$run/pictures/val_000.png" "$pairs/images/train/a.png"
: >"$work/empty.txt"
expect 3 "empty.txt" "$limbeck" train -c "$config" -o "$work/x" data.kind=list "data.root=$pairs" \
  "data.train_split=$work/empty.txt" "data.val_split=$work/empty.txt" data.scene_size=null data.num_classes=11
rm "$pairs/labels/train/a.png"
expect 3 "a" "$limbeck" train -c "$config" -o "$work/x" "${folder[@]}"
cp "$pairs/images/train/a.png" "$pairs/labels/train/a.png"                   # RGB where ids belong
expect 3 "RGB" "$limbeck" train -c "$config" -o "$work/x" "${folder[@]}"
cp "$work/masks/val_000.png" "$pairs/labels/train/a.png"
head -c 200 "$run/pictures/val_000.png" >"$pairs/images/train/a.png"         # truncated image
expect 3 "a.png" "$limbeck" train -c "$config" -o "$work/x" "${folder[@]}"
cp "$run/pictures/val_000.png" "$pairs/images/train/a.png"
head -c 60 "$work/masks/val_000.png" >"$pairs/labels/train/a.png"            # truncated mask
expect 3 "a.png" "$limbeck" train -c "$config" -o "$work/x" "${folder[@]}"
rm -r "$pairs"; mkdir -p "$pairs/images/train" "$pairs/labels/train"
expect 3 "$pairs" "$limbeck" train -c "$config" -o "$work/x" "${folder[@]}"
expect 3 "missing.png" "$limbeck" predict -m "$run" -o "$work/masks" "$work/missing.png"
[ ! -e "$work/x" ] || { failures=$((failures + 1)); echo "FAILED: a refused run left $work/x behind"; }

# --- weights: 4
expect 4 "does not exist" "$limbeck" eval "$work/nowhere" -c "$config"
expect 4 "does not exist" "$limbeck" eval "$work/nowhere"
expect 2 "unknown key 'data.val_limt', did you mean 'val_limit'" "$limbeck" eval "$work/nowhere" -c "$config" data.val_limt=4
expect 2 "'train.lr' has no effect here" "$limbeck" eval "$work/nowhere" -c "$config" train.lr=4
expect 2 "unknown key 'data.rot', did you mean 'root'" "$limbeck" check-data -c "$config" data.rot=x
head -c 5000 "$weights" >"$work/short.safetensors"
expect 4 "short.safetensors" "$limbeck" eval "$work/short.safetensors" -c "$config"
head -c 100 /dev/urandom >"$work/noise.safetensors"
expect 4 "noise.safetensors" "$limbeck" eval "$work/noise.safetensors" -c "$config"
cp -r "$run" "$work/flipped"
newest=$(ls -d "$work"/flipped/step_* | tail -n 1)
printf '\xff' | dd of="$newest/training.safetensors" bs=1 seek=20000 conv=notrunc status=none
expect 4 "training.safetensors" "$limbeck" train -c "$config" -o "$work/flipped" --resume
cat >"$work/distill.yaml" <<YAML
model: {name: mobilenet_v2_seg, width: 0.1}
teacher: {name: mobilenet_v2_seg, init: $run, min_miou: 99}
distill: {terms: [{loss: channel_kd, weight: 3}]}
data: {kind: scenes, scene_size: [48, 64], scene_train: 8, scene_val: 4, crop: [48, 64]}
train: {steps: 2, batch: 4}
YAML
sed 's/^distill:.*/autoencoder: {tap: head}/; s/, min_miou: 99//' "$work/distill.yaml" >"$work/code.yaml"
expect 4 "teacher.min_miou" "$limbeck" distill -c "$work/distill.yaml" -o "$work/x"
expect 2 "no tap 'feature'" "$limbeck" distill -c "$work/distill.yaml" -o "$work/x" teacher.min_miou=0 \
  'distill.terms=[{loss: channel_kd, weight: 3, student: feature}]'
expect 2 "taps: logits, features.0" "$limbeck" distill -c "$work/distill.yaml" -o "$work/x" teacher.min_miou=0 \
  'distill.terms=[{loss: channel_kd, teacher: feature}]'
expect 2 "add a connector" "$limbeck" distill -c "$work/distill.yaml" -o "$work/x" teacher.min_miou=0 \
  'distill.terms=[{loss: channel_kd, student: head, teacher: features.3}]'
# A teacher of another project: the configuration says what it is.
"$limbeck" export "$run" -o "$work/teacher.pth" >/dev/null
LIMBECK_LOG=info expect 0 "teacher.pth: " "$limbeck" distill -c "$work/distill.yaml" -o "$work/foreign" teacher.min_miou=0 "teacher.init=$work/teacher.pth" teacher.width=0.1
expect 4 "does not fit" "$limbeck" distill -c "$work/distill.yaml" -o "$work/x" teacher.min_miou=0 "teacher.init=$work/teacher.pth" teacher.width=0.5
expect 4 "has 12 classes, the data set 11" "$limbeck" distill -c "$work/distill.yaml" -o "$work/x" "teacher.init=$work/twelve"
expect 4 "is no autoencoder" "$limbeck" distill -c "$work/distill.yaml" -o "$work/x" teacher.min_miou=0 "distill.autoencoder=$run"
expect 2 "no tap 'asp'" "$limbeck" autoencoder -c "$work/code.yaml" -o "$work/x" autoencoder.tap=asp
expect 2 "has stride 2, finer than 16" "$limbeck" autoencoder -c "$work/code.yaml" -o "$work/x" autoencoder.student_tap=features.0
expect 2 "three strides" "$limbeck" autoencoder -c "$work/code.yaml" -o "$work/x" 'autoencoder.strides=[2, 2]'
expect 2 "released-code" "$limbeck" autoencoder -c "$work/code.yaml" -o "$work/x" autoencoder.variant=released
expect 4 "teacher.min_miou asks for 99" "$limbeck" autoencoder -c "$work/code.yaml" -o "$work/x" teacher.min_miou=99
expect 2 "did you mean 'channel_kd'" "$limbeck" distill -c "$work/distill.yaml" -o "$work/x" 'distill.terms=[{loss: chanel_kd}]'
expect 2 "weight" "$limbeck" distill -c "$work/distill.yaml" -o "$work/x" 'distill.terms=[{loss: channel_kd, weight: -1}]'
expect 2 "weight.to" "$limbeck" distill -c "$work/distill.yaml" -o "$work/x" 'distill.terms=[{loss: channel_kd, weight: {from: 0, to: -3}}]'
expect 2 "did you mean 'image'" "$limbeck" distill -c "$work/distill.yaml" -o "$work/x" 'distill.terms=[{loss: channel_kd, align: images}]'
expect 2 "no term has layers of its own" "$limbeck" distill -c "$work/distill.yaml" -o "$work/x" teacher.min_miou=0 distill.connector_epochs=1
expect 2 "tau" "$limbeck" distill -c "$work/distill.yaml" -o "$work/x" 'distill.terms=[{loss: channel_kd, tau: 0}]'

expect 2 "H, W >= 64; give the term" "$limbeck" distill -c "$work/distill.yaml" -o "$work/y" teacher.min_miou=0 'distill.terms=[{loss: holistic}]'
expect 2 "term_lr is constant, but no distillation term has layers" "$limbeck" distill -c "$work/distill.yaml" -o "$work/x" teacher.min_miou=0 \
  train.term_lr=constant
expect 2 "only cityscapes has coarse masks" "$limbeck" train -c "$config" -o "$work/x" data.coarse_split=train_extra
expect 2 "pad_label background: only a crop" "$limbeck" train -c "$config" -o "$work/x" data.pad_label=background data.crop=null 'data.scale=[1, 1]'
expect 2 "no batch norm behind the backbone" "$limbeck" train -c "$config" -o "$work/x" model.head_bn_eps=1e-5
expect 2 "only the DeepLab heads have an ASPP" "$limbeck" train -c "$config" -o "$work/x" 'model.aspp_rates=[12, 24, 36]'
# Options that another network has.
resnet=(model.name=deeplabv3_resnet18 model.width=1)
expect 2 "width 0.1: only MobileNets have a width multiplier, not deeplabv3_resnet18" "$limbeck" train -c "$config" -o "$work/x" model.name=deeplabv3_resnet18
expect 2 "width_divisor 4: only MobileNets" "$limbeck" train -c "$config" -o "$work/x" "${resnet[@]}" model.width_divisor=4
expect 2 "relu6=false: only MobileNets have a ReLU6" "$limbeck" train -c "$config" -o "$work/x" "${resnet[@]}" model.relu6=false
expect 2 "head_dropout 0.5: there is no dropout in mobilenet_v2_seg" "$limbeck" train -c "$config" -o "$work/x" model.head_dropout=0.5
expect 2 "'model.head_dropout': expected -1 to 0.99, found 1.5" "$limbeck" train -c "$config" -o "$work/x" model.head_dropout=1.5
expect 2 "'model.head_dropout': expected -1 to 0.99, found -2" "$limbeck" train -c "$config" -o "$work/x" model.head_dropout=-2
expect 2 "multi_grid: only ResNets and Xceptions" "$limbeck" train -c "$config" -o "$work/x" 'model.multi_grid=[1, 2, 4]'
expect 2 "width 0.5: only MobileNets" "$limbeck" summary resnet18 --width 0.5
expect 2 "dilation 'jf': only segmentation networks" "$limbeck" summary resnet18 --dilation jf
expect 2 "aux=true: only segmentation networks" "$limbeck" summary mobilenet_v2 --aux
expect 2 "stem 'v1c': only ResNets" "$limbeck" summary mobilenet_v1 --stem v1c
[ ! -e "$work/x" ] || { failures=$((failures + 1)); echo "FAILED: a refused run left $work/x behind"; }

# What released code does, on request and with a warning.
expect 0 "the network learns that padding is class 0, 'sky'" "$limbeck" train -c "$config" -o "$work/padded" data.pad_label=background train.steps=1
expect 0 "nothing is trained in them, only batch statistics move" "$limbeck" distill -c "$work/distill.yaml" -o "$work/released" \
  teacher.min_miou=0 distill.variant=released-code distill.connector_epochs=1 train.steps=3
expect 0 "absent classes count as 0" "$limbeck" eval "$run" data.eval_absent=zero
LIMBECK_LOG=info expect 0 "'head' through conv3x3 <- teacher 'features.3'" "$limbeck" distill -c "$work/distill.yaml" -o "$work/projected" \
  teacher.min_miou=0 train.term_lr=constant 'distill.terms=[{loss: inter_channel_kd, student: head, teacher: features.3, project: 3x3}]'

# Maps of other sizes are no mistake: one is resized, and the log says which.
LIMBECK_LOG=info expect 0 "student map 6x8, teacher map 3x4; the student map is resized (bilinear)" "$limbeck" distill -c "$work/distill.yaml" \
  -o "$work/sizes" teacher.min_miou=0 model.output_stride=8
LIMBECK_LOG=info expect 0 "both maps are resized to 48x64 (bilinear)" "$limbeck" distill -c "$work/distill.yaml" -o "$work/image" \
  teacher.min_miou=0 'distill.terms=[{loss: channel_kd, align: image}]'

# --- non-finite loss: 5, and the checkpoints of before are intact
expect 5 "the loss is" "$limbeck" train -c "$config" -o "$work/nan" train.lr=1000 train.steps=200 train.ema=0

# --- the system: 1
if [ "$(id -u)" != 0 ]; then
  mkdir "$work/locked"; chmod 500 "$work/locked"
  expect 1 "cannot create the folder $work/locked/run: Permission denied" "$limbeck" train -c "$config" -o "$work/locked/run"
else
  expect 1 "/proc/limbeck" "$limbeck" train -c "$config" -o /proc/limbeck/run
fi
# A disk that fills up while a checkpoint is written: the message names the file, what is there stays loadable.
small=$work/small; mkdir "$small"
if mount -t tmpfs -o size=1400k limbeck_test "$small" 2>/dev/null; then
  expect 1 "No space left on device" "$limbeck" train -c "$config" -o "$small/run" train.steps=200 train.save_every=1 train.keep=1000
  for step in "$small"/run/step_*; do
    expect 0 "" "$limbeck" eval "$step" -c "$config"
  done
  umount "$small"
else
  echo "skipped: a full disk (mounting a small tmpfs needs root)"
fi
if [ -w /dev/full ]; then
  # The first write of results fails as on a full disk.
  status=0; "$limbeck" summary resnet18 >/dev/full 2>"$work/output" || status=$?
  checks=$((checks + 1))
  [ "$status" = 1 ] || { failures=$((failures + 1)); echo "FAILED: a full disk gave status $status"; }
fi
finish
