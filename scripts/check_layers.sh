#!/usr/bin/env bash
# Checks what the compiler cannot:
#   1. an #include of a layer points to the same layer or to one below it
#   2. every source and header of a layer is named in the layer's CMakeLists.txt
#   3. a build option removes files, never lines: no #if on LIMBECK_WITH_*
# Prints one line per offence and fails if there was one.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

declare -A may_include=(
  [core]="core"
  [ops]="ops core"
  [nn]="nn ops core"
  [models]="models nn ops core"
  [distill]="distill models nn ops core"
  [datasets]="datasets ops core"
  [apps]="apps datasets distill models nn ops core"
  [tests]="tests apps datasets distill models nn ops core"
)
offences=0
offence() { echo "layers: $*"; offences=$((offences + 1)); }

for layer in "${!may_include[@]}"; do
  allowed=${may_include[$layer]// /|}
  while IFS= read -r line; do
    offence "$line: $layer/ may include only ${may_include[$layer]}, as \"folder/file.h\""
  done < <(grep -rnE --include=*.h --include=*.cpp --include=*.cu --include=*.cuh --exclude-dir=install_consumer \
             '^ *# *include *"' "$layer" | grep -vE "include *\"($allowed)/" || true)

  lists=("$layer/CMakeLists.txt")
  [ "$layer" != tests ] || lists+=(tests/cuda.cmake tests/fuzz/CMakeLists.txt)
  while IFS= read -r file; do
    name=${file#"$layer"/}
    # The list of tests names `conv2d` for test_conv2d.cpp and cases/conv2d.cpp.
    [ "$layer" != tests ] || { name=${name##*/}; name=${name#test_}; name=${name%.cpp}; }
    grep -qE "(^|[[:space:](/])${name//./\\.}([[:space:])]|\.cpp|\$)" "${lists[@]}" ||
      offence "$file is not named in $layer/CMakeLists.txt, so nobody builds it"
  done < <(find "$layer" \( -name '*.cpp' -o -name '*.cu' -o \( -name '*.h' -not -path 'apps/*' -not -path 'tests/*' \) \) \
             -not -path 'tests/install_consumer/*' | sort)
done

while IFS= read -r line; do
  offence "$line: build options remove files, never lines"
done < <(grep -rnE '^ *# *(if|ifdef|ifndef|elif).*LIMBECK_WITH_' "${!may_include[@]}" --include=*.h --include=*.cpp --include=*.cu || true)

if [ "$offences" -gt 0 ]; then
  echo "layers: $offences offences"
  exit 1
fi
echo "layers: includes and file lists are in order"
