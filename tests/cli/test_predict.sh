#!/usr/bin/env bash
# The verb `predict`, and the protocol options that it shares with `eval`: pictures of all kinds, frames, names of results, refusals.
source "$(dirname "$0")/lib.sh"
config=$work/tiny.yaml
tiny_config "$config"
run=$work/run
"$limbeck" train -c "$config" -o "$run" train.steps=2
fail_with() { failures=$((failures + 1)); echo "FAILED: $1"; }

# --- protocol
picture=$run/pictures/val_000.png
expect 2 "image files" "$limbeck" predict -m "$run" -o "$work/m"
expect 2 "--scales" "$limbeck" predict -m "$run" -o "$work/m" "$picture" --scales big
expect 2 "--tile" "$limbeck" predict -m "$run" -o "$work/m" "$picture" --tile 0
expect 2 "--overlap" "$limbeck" predict -m "$run" -o "$work/m" "$picture" --overlap 3
expect 0 '"shares"' "$limbeck" predict -m "$run" -o "$work/whole" "$picture" --json --overlay
[ -e "$work/whole/val_000_overlay.png" ] || fail_with "no overlay"
"$limbeck" predict -m "$run" -o "$work/tiled" "$picture" --tile 4096x4096
same "$work/whole/val_000.png" "$work/tiled/val_000.png"
head -c $((48 * 64 * 3 * 2)) "$run/best/model.safetensors" >"$work/frames.rgb"
"$limbeck" predict -m "$run" --stdin 64x48 -o - <"$work/frames.rgb" >"$work/ids"
[ "$(stat -c %s "$work/ids")" = $((48 * 64 * 2)) ] || fail_with "two frames give two maps of ids"
expect 3 "inside frame 1: 5 bytes" sh -c "head -c $((48 * 64 * 3 + 5)) '$work/frames.rgb' | '$limbeck' predict -m '$run' --stdin 64x48 -o '$work/m'"
expect 0 "tiles of 32x32 with overlap 8, own size, scales 1 1.5, flip, f32" "$limbeck" eval "$run" --tile 32 --scales 1,1.5 --flip

# --- frames
expect 2 "--stdin] got '64x', expected WIDTHxHEIGHT" "$limbeck" predict -m "$run" --stdin 64x -o "$work/m"
expect 3 "standard input is empty" sh -c "'$limbeck' predict -m '$run' --stdin 64x48 -o '$work/m' </dev/null"
if [ -w /dev/full ]; then
  expect 1 "cannot write to standard output" sh -c "'$limbeck' predict -m '$run' -o '$work/m' --json '$picture' >/dev/full"
  expect 1 "cannot write to standard output" sh -c "'$limbeck' predict -m '$run' --stdin 64x48 -o - <'$work/frames.rgb' >/dev/full"
fi

# --- a picture that cannot be read does not stop the others, except where nothing can be left out
pictures=$work/pictures
mkdir -p "$pictures/more"
cp "$picture" "$pictures/b.png"
cp "$picture" "$pictures/more/b.png"
head -c 200 "$picture" >"$pictures/a.png"
expect 3 "a.png: the file ends too early" "$limbeck" predict -m "$run" -o "$work/masks" "$pictures"
expect 3 "1 of 3 pictures could not be read" "$limbeck" predict -m "$run" -o "$work/masks" "$pictures"
[ "$(cd "$work/masks" && echo *)" = "b.png b_2.png" ] || fail_with "results: $(ls "$work/masks")"
expect 3 '"error":"[png]' "$limbeck" predict -m "$run" -o "$work/masks" "$pictures" --json
expect 3 "a.png: the file ends too early" sh -c "'$limbeck' predict -m '$run' -o - '$pictures' >'$work/raw'"
[ ! -s "$work/raw" ] || fail_with "raw ids although a picture is missing"
rm "$pictures/a.png"

# --- nothing is written over a picture, and earlier results are not taken for pictures
cp "$pictures/b.png" "$work/kept.png"
expect 2 "b.png would be written over a picture to segment" "$limbeck" predict -m "$run" -o "$pictures" "$pictures"
same "$pictures/b.png" "$work/kept.png"
"$limbeck" predict -m "$run" -o "$pictures/masks" "$pictures"
LIMBECK_LOG=info expect 0 "2 pictures in $pictures/masks left out: taken for earlier results" "$limbeck" predict -m "$run" -o "$pictures/masks" "$pictures"
[ "$(cd "$pictures/masks" && echo *)" = "b.png b_2.png" ] || fail_with "results: $(ls "$pictures/masks")"
# The mask of one picture and the overlay of another want the same name.
mkdir "$work/names"
cp "$picture" "$work/names/x.png"
cp "$picture" "$work/names/x_overlay.png"
"$limbeck" predict -m "$run" -o "$work/named" --overlay "$work/names"
[ "$(ls "$work/named" | wc -l)" = 4 ] || fail_with "results: $(ls "$work/named")"
rm "$pictures"/b.png "$pictures"/more/b.png
expect 3 "there are no pictures besides those in" "$limbeck" predict -m "$run" -o "$pictures/masks" "$pictures"
expect 3 "holds no .png" "$limbeck" predict -m "$run" -o "$work/m" "$run/best"
expect 1 "cannot create $picture" "$limbeck" predict -m "$run" -o "$picture" "$picture"

# --- models
expect 4 "does not exist" "$limbeck" predict -m "$work/nowhere" -o "$work/m" "$picture"
"$limbeck" export "$run" -o "$work/student.pth" >/dev/null
expect 4 "is a PyTorch file" "$limbeck" predict -m "$work/student.pth" -o "$work/m" "$picture"
expect 2 "--seed" "$limbeck" predict -m "$run" -o "$work/m" "$picture" --seed 3
finish
