#!/usr/bin/env bash
# Staged runs: every preset from teacher to table at a tiny size; restarts at the right stage; the autoencoder's own promises.
source "$(dirname "$0")/lib.sh"

# exists FILE...: not empty.
exists() {
  for file in "$@"; do
    checks=$((checks + 1))
    [ -s "$file" ] || { failures=$((failures + 1)); echo "FAILED: $file is missing or empty"; }
  done
}

# The presets of the four systems on generated scenes, shrunk until a stage takes seconds.
tiny=('common.data.scene_size=[48, 64]' 'common.data.crop=[48, 64]' common.data.scene_train=16 common.data.scene_val=4
  stages.teacher.model.width=0.25 stages.teacher.train.batch=4 stages.teacher.train.steps=4
  stages.student.train.batch=4 stages.student.train.steps=4 stages.student.train.save_every=2 stages.student.train.keep=9
  stages.distilled.teacher.min_miou=0)
code=(stages.autoencoder.train.batch=4 stages.autoencoder.train.save_every=1 stages.autoencoder.train.keep=9)

for preset in ka cwd ct aicsd demo; do
  "$limbeck" init-config "scenes/$preset" -o "$work/$preset.yaml"
  more=()
  case "$preset" in ka|demo) more=("${code[@]}") ;; esac
  expect 0 "| distilled |" "$limbeck" run -c "$work/$preset.yaml" -o "$work/$preset" "${tiny[@]}" "${more[@]}"
  exists "$work/$preset"/{table.md,report.html} \
    "$work/$preset"/{teacher,student,distilled}/{report.html,eval_val.json,eval_test.json,stage.yaml}
  expect 0 "to student)" cat "$work/$preset/table.md"
done

# Those for CamVid are read to the end, and stop at the missing data.
for preset in ka cwd ct aicsd output_stride demo; do
  "$limbeck" init-config "camvid/$preset" -o "$work/camvid_$preset.yaml"
  expect 3 "$work/nowhere" "$limbeck" run -c "$work/camvid_$preset.yaml" -o "$work/x" "common.data.root=$work/nowhere"
done
[ ! -e "$work/x" ] || { failures=$((failures + 1)); echo "FAILED: a refused run left $work/x behind"; }

ka=(-c "$work/ka.yaml" "${tiny[@]}" "${code[@]}")
# Mistakes that only the end of the job would meet are found at its beginning.
expect 2 "there is no split 'tset'" "$limbeck" run "${ka[@]}" -o "$work/x" 'splits=[val, tset]'
expect 2 "is the name of the stage mistyped" "$limbeck" run "${ka[@]}" -o "$work/x" stages.techer.train.steps=3
[ ! -e "$work/x" ] || { failures=$((failures + 1)); echo "FAILED: a refused run left $work/x behind"; }
expect 0 "of the variance of the teacher's tap 'aspp'" cat "$work/ka/table.md"
expect 0 "val_zeros" cat "$work/ka/autoencoder/metrics.jsonl"
exists "$work/ka/autoencoder/pictures/val_000.png"

# --- started again: finished stages stay as they are
stamp() { stat -c %Y.%s "$work/ka"/*/best/model.safetensors "$work/ka"/*/eval_*.json; }
before=$(stamp)
LIMBECK_LOG=info expect 0 "stage 1/4 teacher (train): finished before" "$limbeck" run "${ka[@]}" -o "$work/ka"
same <(echo "$before") <(stamp)

# --- a trained teacher of another run in place of the first stage: nothing is trained there, the rest is as ever
taken=("${tiny[@]}" "stages.teacher.from=$work/ka/teacher")
LIMBECK_LOG=info expect 0 "stage 1/3 teacher (train): taken from $work/ka/teacher" "$limbeck" run -c "$work/cwd.yaml" -o "$work/taken" "${taken[@]}"
expect 0 "| teacher | deeplabv3plus_mobilenet_v2 |" cat "$work/taken/table.md"
exists "$work/taken/teacher"/{stage.yaml,eval_val.json} "$work/taken/distilled/report.html"
[ ! -e "$work/taken/teacher/config.yaml" ] || { failures=$((failures + 1)); echo "FAILED: a stage that was taken was trained"; }
LIMBECK_LOG=info expect 0 "stage 1/3 teacher (train): finished before" "$limbeck" run -c "$work/cwd.yaml" -o "$work/taken" "${taken[@]}"
expect 2 "started with other settings" "$limbeck" run -c "$work/cwd.yaml" -o "$work/taken" "${tiny[@]}" "stages.teacher.from=$work/cwd/teacher"
expect 2 "started with other settings" "$limbeck" run -c "$work/cwd.yaml" -o "$work/taken" "${tiny[@]}"
expect 4 "holds a mobilenet_v2_seg, but its model.name is deeplabv3plus_mobilenet_v2" \
  "$limbeck" run -c "$work/cwd.yaml" -o "$work/x" "${tiny[@]}" "stages.teacher.from=$work/cwd/student"
expect 4 "$work/nowhere does not exist" "$limbeck" run -c "$work/cwd.yaml" -o "$work/x" "${tiny[@]}" "stages.teacher.from=$work/nowhere"

# --- interrupted in the third stage: 75, and the same bits in the end
"$limbeck" run "${ka[@]}" -o "$work/broken" &
pid=$!
for _ in $(seq 1 3000); do [ ! -d "$work/broken/autoencoder/step_00000001" ] || break; sleep 0.02; done
kill -TERM $pid 2>/dev/null || true
status=0; wait $pid || status=$?
checks=$((checks + 1))
[ "$status" = 75 ] || { failures=$((failures + 1)); echo "FAILED: SIGTERM gave status $status"; }
expect 0 "| distilled |" "$limbeck" run "${ka[@]}" -o "$work/broken"
for stage in teacher student autoencoder distilled; do
  same "$work/ka/$stage/best/model.safetensors" "$work/broken/$stage/best/model.safetensors"
done
same "$work/ka/autoencoder/step_00000004/training.safetensors" "$work/broken/autoencoder/step_00000004/training.safetensors"

# --- what is on disk and what is asked for must agree
expect 2 "started with other settings" "$limbeck" run "${ka[@]}" -o "$work/broken" stages.student.train.lr=0.5
rm -r "$work/broken/teacher"
expect 2 "stage 'autoencoder' was made from 'teacher', which is not finished" "$limbeck" run "${ka[@]}" -o "$work/broken"
expect 2 "no stage 'nobody' before" "$limbeck" run "${ka[@]}" -o "$work/x" 'stages.distilled.teacher.init="@nobody"'
expect 2 "did you mean 'steps'" "$limbeck" run "${ka[@]}" -o "$work/x" stages.distilled.train.stepz=3
expect 2 "gives no stages" "$limbeck" run -c <(echo 'out: x') -o "$work/x"
[ ! -e "$work/x" ] || { failures=$((failures + 1)); echo "FAILED: a refused run left $work/x behind"; }

# --- a teacher that is too weak stops the run there, with its number
expect 4 "teacher.min_miou asks for 99.00" "$limbeck" run "${ka[@]}" -o "$work/ka" stages.distilled.teacher.min_miou=99 --force

# --- an autoencoder belongs to its teacher
"$limbeck" train -c "$work/ka/teacher/config.yaml" -o "$work/other" seed=9
expect 4 "from another teacher" "$limbeck" distill -c "$work/broken/distilled/config.yaml" -o "$work/x" "teacher.init=$work/other" \
  "distill.autoencoder=$work/broken/autoencoder"
finish
