#!/usr/bin/env bash
# `visualize` end to end on generated scenes, and its messages.
source "$(dirname "$0")/lib.sh"
config=$work/tiny.yaml
tiny_config "$config"
"$limbeck" train -c "$config" -o "$work/teacher" model.width=0.25 model.name=deeplabv3plus_mobilenet_v2 train.steps=2
"$limbeck" train -c "$config" -o "$work/plain" train.steps=2
"$limbeck" train -c "$config" -o "$work/student" train.steps=3 train.lr=0.01
networks=(--teacher "$work/teacher" --student "$work/student")

expect 0 "index.html in" env LIMBECK_LOG=info "$limbeck" visualize "${networks[@]}" --plain "$work/plain" -o "$work/out" --count 2 --pixel 10,20 --pixel 30,40 --class road
pages=("$work"/out/*_masks.png "$work"/out/*_affinity.png "$work"/out/*_saliency.png "$work/out/inter_class.png")
checks=$((checks + 3))
[ "${#pages[@]}" = 7 ] || { failures=$((failures + 1)); echo "FAILED: ${#pages[@]} pictures, expected 7"; }
# Seven pictures inside, nothing fetched, no script.
[ "$(grep -c 'src="data:image/png;base64,' "$work/out/index.html")" = 7 ] || { failures=$((failures + 1)); echo "FAILED: pictures of the page"; }
! grep -qE 'http|<script' "$work/out/index.html" || { failures=$((failures + 1)); echo "FAILED: the page is not self-contained"; }
# Twice the same.
"$limbeck" visualize "${networks[@]}" --plain "$work/plain" -o "$work/again" --count 2 --pixel 10,20 --pixel 30,40 --class road
for file in "${pages[@]}"; do same "$file" "$work/again/$(basename "$file")"; done
# Pictures without truth, and without a plain student.
cp "$work/student/pictures/val_000.png" "$work/photo.png"
expect 0 "index.html in" env LIMBECK_LOG=info "$limbeck" visualize "${networks[@]}" -o "$work/photo" "$work/photo.png"
checks=$((checks + 1))
[ -s "$work/photo/photo_affinity.png" ] || { failures=$((failures + 1)); echo "FAILED: no pictures of a photo"; }

expect 2 "--out is missing" "$limbeck" visualize "${networks[@]}"
expect 2 "--pixel 64,0 is outside of" "$limbeck" visualize "${networks[@]}" -o "$work/x" --pixel 64,0
expect 2 "expected X,Y" "$limbeck" visualize "${networks[@]}" -o "$work/x" --pixel 64
expect 2 "the teacher network has no tap 'asp', did you mean 'aspp'" "$limbeck" visualize "${networks[@]}" -o "$work/x" --teacher-tap asp
expect 2 "the distilled network has no tap" "$limbeck" visualize "${networks[@]}" -o "$work/x" --student-tap nothing_like_it
expect 2 "taps: features.0, features.1" "$limbeck" visualize "${networks[@]}" -o "$work/x" --student-tap nothing_like_it
expect 2 "no class 'raod', did you mean 'road'" "$limbeck" visualize "${networks[@]}" -o "$work/x" --class raod
expect 2 "--tau 0" "$limbeck" visualize "${networks[@]}" -o "$work/x" --tau 0
expect 4 "does not exist" "$limbeck" visualize --teacher "$work/nowhere" --student "$work/student" -o "$work/x"
expect 3 "missing.png" "$limbeck" visualize "${networks[@]}" -o "$work/x" "$work/missing.png"
# A student of another data set.
pairs=$work/pairs
mkdir -p "$pairs/images/train" "$pairs/labels/train"
for k in a b c d; do
  cp "$work/photo.png" "$pairs/images/train/$k.png"
  "$limbeck" predict -m "$work/plain" -o "$work/masks" "$work/photo.png"
  cp "$work/masks/photo.png" "$pairs/labels/train/$k.png"
done
"$limbeck" train -c "$config" -o "$work/other" train.steps=1 data.kind=folder "data.root=$pairs" data.val_split=train data.scene_size=null \
  data.num_classes=12
expect 4 "has 12 classes, the teacher 11" "$limbeck" visualize --teacher "$work/teacher" --student "$work/other" -o "$work/x"
checks=$((checks + 1))
[ ! -e "$work/x" ] || { failures=$((failures + 1)); echo "FAILED: a refused call left $work/x behind"; }
finish
