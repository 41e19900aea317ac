#!/usr/bin/env bash
# The verb `calibrate`, and 8 bits in `eval` and `predict`: table, file, refusals.
source "$(dirname "$0")/lib.sh"
config=$work/tiny.yaml
tiny_config "$config"
run=$work/run
"$limbeck" train -c "$config" -o "$run" train.steps=10
picture=$run/pictures/val_000.png
file=$work/int8.safetensors

expect 0 "on 4 pictures of scenes val" "$limbeck" calibrate "$run" -o "$file" --count 5
expect 0 "with ranges found on 5 pictures (scenes train)" "$limbeck" calibrate "$run" -o "$file" --count 5
expect 0 '"cost":' "$limbeck" calibrate "$run" -o "$work/again.safetensors" --count 5 --json
same "$file" "$work/again.safetensors"
expect 0 "with ranges found on 1 picture (1 file)" "$limbeck" calibrate "$file" -o "$work/files.safetensors" --images "$picture"
expect 0 "on 3 pictures of scenes train" "$limbeck" calibrate "$run" -o "$work/files.safetensors" --split train --count 2 data.val_limit=3

# The score of the table is the score of eval.
score=$("$limbeck" calibrate "$run" -o "$file" --count 5 | sed -n 's/^int8 *\([0-9.]*\) .*/\1/p')
expect 0 "mIoU $score" "$limbeck" eval "$file" -c "$config" --precision int8
expect 0 "no flip, int8" "$limbeck" eval "$file" -c "$config" --precision int8
expect 0 "no flip, bf16" "$limbeck" eval "$file" -c "$config" eval.precision=bf16
"$limbeck" predict -m "$file" -o "$work/masks" --precision int8 "$picture"
"$limbeck" predict -m "$file" -o "$work/masks1" --precision int8 -j 1 "$picture"
same "$work/masks/val_000.png" "$work/masks1/val_000.png"

# Weights in 8 bits give the same table from a smaller file.
packed=$work/packed.safetensors
expect 0 "on 4 pictures of scenes val" "$limbeck" calibrate "$run" -o "$packed" --count 5 --pack
expect 0 "int8 $(sed -n 's/^int8 *//p' "$work/output" | cut -c1-20)" sh -c "'$limbeck' calibrate '$run' -o '$file' --count 5 | sed 's/^int8 */int8 /'"
[ $(($(stat -c %s "$packed") * 2)) -lt "$(stat -c %s "$file")" ] || { failures=$((failures + 1)); echo "FAILED: $(ls -l "$packed" "$file")"; }
expect 0 "mIoU $score" "$limbeck" eval "$packed" -c "$config" --precision int8
expect 0 "no flip, int8" "$limbeck" eval "$packed" -c "$config"
expect 0 "no flip, f32" "$limbeck" eval "$packed" -c "$config" --precision f32
expect 4 "weights are in 8 bits" "$limbeck" train -c "$config" -o "$work/x" "model.init=$packed"
expect 4 "weights are in 8 bits" "$limbeck" import "$packed" --model mobilenet_v2_seg -o "$work/x.safetensors"

expect 4 "limbeck calibrate" "$limbeck" eval "$run" --precision int8
expect 4 "limbeck calibrate" "$limbeck" predict -m "$run" -o "$work/x" --precision int8 "$picture"
expect 2 "is 'int4', expected f32, bf16 or int8" "$limbeck" eval "$run" --precision int4
expect 2 "eval.precision" "$limbeck" eval "$run" eval.precision=half
expect 2 "contradict" "$limbeck" predict -m "$file" -o "$work/x" --precision int8 --bf16 "$picture"
expect 2 "--out is missing" "$limbeck" calibrate "$run"
expect 2 ".safetensors" "$limbeck" calibrate "$run" -o "$work/x"
expect 2 "unknown option '--device'" "$limbeck" calibrate "$run" -o "$work/x.safetensors" --device cuda:0
expect 2 "give a configuration with -c" "$limbeck" calibrate "$file" -o "$work/x.safetensors"
expect 2 "did you mean 'val_limit'" "$limbeck" calibrate "$run" -o "$work/x.safetensors" data.val_limt=4
expect 3 "missing.png" "$limbeck" calibrate "$run" -o "$work/x.safetensors" --images "$work/missing.png"
expect 3 "holds no .png" "$limbeck" calibrate "$run" -o "$work/x.safetensors" --images "$run/best"
expect 2 "every picture needs an --images of its own" "$limbeck" calibrate "$run" -o "$work/x.safetensors" --images "$picture" "$picture"
expect 2 "unknown key 'data.val_limt'" "$limbeck" calibrate "$run" -o "$work/x.safetensors" --images "$picture" data.val_limt=4
expect 2 "no data set" "$limbeck" calibrate "$file" -o "$work/x.safetensors" --images "$picture" data.val_limit=4
expect 4 "does not exist" "$limbeck" calibrate "$work/nowhere" -o "$work/x.safetensors"
expect 1 "no/x.safetensors" "$limbeck" calibrate "$run" -o "$work/no/x.safetensors" --count 1

# Pictures that cannot be read are named and left out: the others make the file, and the status says that some were missing.
head -c 200 "$picture" >"$work/cut.png"
photos=("$work/cut.png" "$picture" "$work/missing.png" "$run/pictures/val_000.png")
expect 3 "cut.png: " "$limbeck" calibrate "$run" -o "$work/some.safetensors" --images "${photos[0]}" --images "$picture"
expect 3 "with ranges found on 2 pictures (2 files)" "$limbeck" calibrate "$file" -o "$work/some.safetensors" $(printf -- '--images %s ' "${photos[@]}")
expect 3 "2 of 4 pictures could not be read" "$limbeck" calibrate "$file" -o "$work/some.safetensors" $(printf -- '--images %s ' "${photos[@]}")
expect 3 '"unreadable":2' "$limbeck" calibrate "$file" -o "$work/some.safetensors" $(printf -- '--images %s ' "${photos[@]}") --json
"$limbeck" calibrate "$file" -o "$work/whole.safetensors" --images "$picture" --images "$picture"
same "$work/whole.safetensors" "$work/some.safetensors"
expect 3 "1 of 1 picture could not be read" "$limbeck" calibrate "$run" -o "$work/x.safetensors" --images "$work/cut.png"
[ -z "$(ls "$work" | grep '^x')" ] || { failures=$((failures + 1)); echo "FAILED: a refused calibration left a file behind"; }
finish
