#!/usr/bin/env bash
# The main job from start to end: set-up, build, then the stages of a demo preset: a teacher, a student alone, the code of the
# teacher's features, and the same student distilled; scores, pictures, a report and a table. Run it again after a stop: it goes on.
#
#   scripts/demo.sh                       on generated street scenes, minutes on two cores
#   scripts/demo.sh --data DIR            on CamVid in DIR (SegNet layout: train.txt, train/, trainannot/, ...)
#       [--teacher-init F] [--student-init F]   ImageNet weights (.safetensors, torchvision names)
#       [--epochs N]                            per network (default 60 and 40; about an hour each on two cores)
#   scripts/demo.sh --out DIR             where the runs go (default runs/demo)
#   scripts/demo.sh --seed N              another seed for all stages
set -euo pipefail
cd "$(dirname "$0")/.."
export OMP_WAIT_POLICY=passive

data="" out="runs/demo" teacher_init="" student_init="" epochs="" seed=()
while [ $# -gt 0 ]; do
  case "$1" in
    --data) data=${2:?--data needs a folder}; shift 2 ;;
    --out) out=${2:?--out needs a folder}; shift 2 ;;
    --teacher-init) teacher_init=${2:?}; shift 2 ;;
    --student-init) student_init=${2:?}; shift 2 ;;
    --epochs) epochs=${2:?}; shift 2 ;;
    --seed) seed=(--seed "${2:?}"); shift 2 ;;
    -h|--help) sed -n '2,10p' "$0" | sed 's/^# \{0,1\}//'; exit 0 ;;
    *) echo "demo: unknown argument $1 (see --help)" >&2; exit 2 ;;
  esac
done

# What the build cannot change is looked at before it.
[ -z "$data" ] || [ -f "$data/train.txt" ] ||
  { echo "demo: $data/train.txt does not exist; --data wants CamVid in the SegNet layout" >&2; exit 3; }
for file in "$teacher_init" "$student_init"; do
  [ -z "$file" ] || [ -e "$file" ] || { echo "demo: $file does not exist; it was given as weights to start from" >&2; exit 4; }
done

./scripts/setup.sh
cmake --preset release >/dev/null
cmake --build --preset release --target limbeck_app
limbeck=build/apps/limbeck

config=apps/configs/scenes/demo.yaml
overrides=()
if [ -n "$data" ]; then
  config=apps/configs/camvid/demo.yaml
  overrides=("common.data.root=$data")
  $limbeck check-data -c apps/configs/camvid/student.yaml "data.root=$data"
fi
# The distilled student is like the student, so what is set for one holds for the other.
[ -z "$teacher_init" ] || overrides+=("stages.teacher.model.init=$teacher_init")
[ -z "$student_init" ] || overrides+=("stages.student.model.init=$student_init")
[ -z "$epochs" ] || overrides+=("stages.teacher.train.epochs=$epochs" "stages.student.train.epochs=$epochs")

$limbeck run -c "$config" -o "$out" "${seed[@]}" "${overrides[@]}"
if [ -n "$data" ]; then
  $limbeck predict --overlay -m "$out/distilled" -o "$out/predictions" "$data/val"
fi
echo "report: $out/report.html   table: $out/table.md   stages: $out/*/report.html"
