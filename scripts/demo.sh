#!/usr/bin/env bash
# The main job from start to end: set-up, build, then train a teacher, a student alone and the same student distilled from
# the teacher; evaluate the three; write pictures, reports and a table.
#
#   scripts/demo.sh                       on generated street scenes, minutes on two cores
#   scripts/demo.sh --data DIR            on CamVid in DIR (SegNet layout: train.txt, train/, trainannot/, ...)
#       [--teacher-init F] [--student-init F]   ImageNet weights (.safetensors, torchvision names)
#       [--epochs N]                            per network (default 60; about an hour each on two cores)
#   scripts/demo.sh --out DIR             where the runs go (default runs/demo)
set -euo pipefail
cd "$(dirname "$0")/.."
export OMP_WAIT_POLICY=passive

data="" out="runs/demo" teacher_init="" student_init="" epochs=""
while [ $# -gt 0 ]; do
  case "$1" in
    --data) data=${2:?--data needs a folder}; shift 2 ;;
    --out) out=${2:?--out needs a folder}; shift 2 ;;
    --teacher-init) teacher_init=${2:?}; shift 2 ;;
    --student-init) student_init=${2:?}; shift 2 ;;
    --epochs) epochs=${2:?}; shift 2 ;;
    -h|--help) sed -n '2,11p' "$0" | sed 's/^# \{0,1\}//'; exit 0 ;;
    *) echo "demo: unknown argument $1 (see --help)" >&2; exit 2 ;;
  esac
done

./scripts/setup.sh
cmake --preset release >/dev/null
cmake --build --preset release --target limbeck_app
limbeck=build/apps/limbeck

if [ -z "$data" ]; then
  preset=scenes; splits=val
  common=()
else
  preset=camvid; splits="val test"
  [ -f "$data/train.txt" ] || { echo "demo: $data/train.txt does not exist; --data wants CamVid in the SegNet layout" >&2; exit 3; }
  common=("data.root=$data")
  [ -z "$epochs" ] || common+=("train.epochs=$epochs")
  $limbeck check-data -c apps/configs/camvid/student.yaml "data.root=$data"
fi
configs=apps/configs/$preset
mkdir -p "$out"
teacher_args=("${common[@]}"); student_args=("${common[@]}")
[ -z "$teacher_init" ] || teacher_args+=("model.init=$teacher_init")
[ -z "$student_init" ] || student_args+=("model.init=$student_init")

# Finished or interrupted runs are continued, so that the demonstration can be stopped and started again.
run() { # VERB NAME CONFIG OVERRIDES...
  local verb=$1 name=$2 config=$3; shift 3
  echo "== $name"
  local resume=(--force); [ ! -e "$out/$name/config.yaml" ] || resume=(--resume)
  $limbeck "$verb" -c "$config" -o "$out/$name" "${resume[@]}" "$@"
}
run train teacher "$configs/teacher.yaml" "${teacher_args[@]}"
run train student "$configs/student.yaml" "${student_args[@]}"
run distill distilled "$configs/distill.yaml" "teacher.init=$out/teacher" "${student_args[@]}"

# One number of a flat JSON file.
field() { sed -n "s/.*\"$1\":\([0-9.]*\).*/\1/p" "$2"; }
{
  echo "| network | split | mIoU | pixel accuracy | images |"
  echo "|---|---|---|---|---|"
  for name in teacher student distilled; do
    for split in $splits; do
      $limbeck eval "$out/$name" --split "$split" -o "$out/$name/eval_$split.json" >"$out/$name/eval_$split.txt" 2>/dev/null
      json="$out/$name/eval_$split.json"
      printf '| %s | %s | %.2f | %.2f | %d |\n' "$name" "$split" "$(field miou "$json")" "$(field pixel_acc "$json")" "$(field images "$json")"
    done
  done
} >"$out/table.md"
if [ -n "$data" ]; then
  $limbeck predict --overlay -m "$out/distilled" -o "$out/predictions" "$data/val"
fi
echo
cat "$out/table.md"
echo
echo "reports: $out/{teacher,student,distilled}/report.html   table: $out/table.md"
