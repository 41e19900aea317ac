#!/usr/bin/env bash
# Installs the build tree BUILD to a temporary prefix and builds and runs tests/install_consumer against it,
# as a project that uses limbeck would.
#   scripts/check_install.sh [BUILD]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
build=${1:-build}

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# Copied out of the tree, so that it can see nothing but the installed headers.
cp -r tests/install_consumer "$work/source"
cmake --install "$build" --prefix "$work/prefix" >"$work/log" || { cat "$work/log" >&2; exit 1; }
cmake -S "$work/source" -B "$work/build" -G Ninja -DCMAKE_BUILD_TYPE=Release -DCMAKE_PREFIX_PATH="$work/prefix" >"$work/log" ||
  { cat "$work/log" >&2; exit 1; }
cmake --build "$work/build" >"$work/log" || { cat "$work/log" >&2; exit 1; }
"$work/build/consumer"

# The examples, built from the installed tree by a C++ and a C compiler, segment what the installed program segments.
cmake -S "$work/prefix/share/limbeck/examples" -B "$work/examples" -G Ninja -DCMAKE_BUILD_TYPE=Release -DCMAKE_PREFIX_PATH="$work/prefix" >"$work/log" ||
  { cat "$work/log" >&2; exit 1; }
cmake --build "$work/examples" >"$work/log" || { cat "$work/log" >&2; exit 1; }
cat >"$work/tiny.yaml" <<YAML
seed: 3
model: {name: mobilenet_v2_seg, width: 0.1}
data: {kind: scenes, scene_size: [48, 64], scene_train: 8, scene_val: 2, crop: [48, 64]}
train: {steps: 2, batch: 4, pictures: 1}
YAML
limbeck="$work/prefix/bin/limbeck"
export LIMBECK_LOG=warn
"$limbeck" train -c "$work/tiny.yaml" -o "$work/run" >/dev/null
"$limbeck" predict -m "$work/run" -o "$work/masks" "$work/run/pictures/val_000.png"
"$work/examples/segment" "$work/run" "$work/run/pictures/val_000.png" "$work/mask.png" >"$work/shares"
cmp "$work/mask.png" "$work/masks/val_000.png"
head -c $((48 * 64 * 3)) "$work/run/best/model.safetensors" >"$work/frame.rgb"    # any bytes are a picture
"$limbeck" predict -m "$work/run" --stdin 64x48 -o - <"$work/frame.rgb" >"$work/ids"
"$work/examples/segment_c" "$work/run" 64 48 <"$work/frame.rgb" >"$work/ids_c"
cmp "$work/ids" "$work/ids_c"
if "$work/examples/segment_c" "$work/nowhere" 64 48 <"$work/frame.rgb" 2>"$work/log" || ! grep -q "nowhere does not exist" "$work/log"; then
  echo "check_install: segment_c does not say what is wrong with its model" >&2
  exit 1
fi
echo "examples: C++ and C give the same ids as the program"
