# What this is: the goals of the GPU backend, from the results of scripts/gpu_check.sh: wanted, measured, reached. What has not been
#   measured is named with the reason, and never counts as reached.
# Usage: awk [-v json=1] -f value.awk -f goals.awk results.jsonl

# What became of a check, or of those whose names begin so or are the beginning of it: why there is no measurement.
function reason(check,  name, text) {
  text = "not run"
  for (name in state) if ((index(name, check) == 1 || index(check, name) == 1) && text ~ /^(not run|passed)$/) text = state[name]
  return text == "passed" ? "it printed none" : text
}

function line(name, wanted, measured, shown, reached, note) {
  if (rehearsal && reached != "not measured") reached = "rehearsal"
  if (reached == "yes") met++
  total++
  if (json)
    printf "{\"goal\":\"%s\",\"wanted\":\"%s\",\"measured\":%s,\"reached\":\"%s\",\"note\":\"%s\"}\n", name, wanted, measured,
      tolower(reached), note
  else
    printf "%-50s %-10s %-9s %-13s %s\n", name, wanted, shown, reached, note
}

# One goal. `relation` is >= or <; a measurement that is empty has not been made, `why` says why not.
function goal(name, relation, wanted, measured, note, why,  reached) {
  if (measured == "") {
    line(name, relation " " wanted, "null", "-", "not measured", why)
    return
  }
  reached = relation == ">=" ? measured + 0 >= wanted + 0 : measured + 0 < wanted + 0
  line(name, relation " " wanted, measured + 0, sprintf("%.2f", measured), reached ? "yes" : "NO", note)
}

# A check that must have passed.
function check_goal(name, check,  why) {
  why = reason(check)
  if (why == "it printed none") line(name, "passed", "true", "passed", "yes", "")
  else if (why ~ /^FAILED/) line(name, "passed", "false", "failed", "NO", why)
  else line(name, "passed", "null", "-", "not measured", why)
}

function family_goal(family,  check, whole, note) {
  check = "kernels: " family
  whole = state[check] == "passed"
  note = rows[family] + 0 " kernels, worst: " worst[family] (whole ? "" : "; " reason(check))
  # Kernels that were not reached may be worse than those that were: too few of them can fail the goal, not reach it.
  if (rows[family] + 0 == 0 || (!whole && least[family] + 0 >= 0.8))
    goal(family " kernels, share of copy bandwidth", ">=", 0.8, "", "", reason(check))
  else
    goal(family " kernels, share of copy bandwidth", ">=", 0.8, least[family], note)
}

function loss_goals(loss, type,  key) {
  key = loss SUBSEP type
  goal(loss " " type " against eager PyTorch, times", ">=", 3, eager[key], "beside " at[key], reason("losses beside PyTorch"))
  goal(loss " " type " against torch.compile, times", ">=", 1, compiled[key], "beside " at[key], reason("losses beside PyTorch"))
}

function step_goals(what, way, wanted,  key, why) {
  key = what SUBSEP way
  why = reason(what " bf16 beside PyTorch " way)
  goal(what " bf16 against PyTorch " way ", times", ">=", wanted, ratio[key], spread[key], why)
}

function memory_goal(way,  key) {
  key = "step" SUBSEP way
  goal("peak memory of the step, of PyTorch " way, "<", 1, theirs[key] > 0 ? ours[key] / theirs[key] : "", \
       sprintf("%.0f of %.0f MiB", ours[key], theirs[key]), reason("step bf16 beside PyTorch " way))
}

# Sizes or programs that are not those of the goals: nothing counts as reached.
/"rehearsal":/ { rehearsal = 1 }

/"check":/ { state[value("check")] = value("result") }

/"share_of_copy":/ {
  family = value("family")
  share = value("share_of_copy")
  rows[family]++
  if (!(family in least) || share + 0 < least[family] + 0) {
    least[family] = share
    worst[family] = value("name")
  }
}

# The first line of a loss is that on the maps of its goal.
/"over_eager":/ {
  key = value("loss") SUBSEP value("dtype")
  if (!(key in eager)) {
    eager[key] = value("over_eager")
    compiled[key] = value("over_compile")
    at[key] = value("shape")
  }
}

# One line per round, each with the median so far.
/"mode":/ && /"ratio":/ {
  split(value("mode"), how, ",")
  if (how[2] == "bf16" && how[3] == how[4]) {
    key = value("what") SUBSEP how[3]
    ratio[key] = value("ratio")
    spread[key] = sprintf("%s to %s in %s rounds", value("least"), value("most"), value("rounds"))
    ours[key] = value("limbeck_mb")
    theirs[key] = value("pytorch_mb")
  }
}

# The slowest start counts.
/"floor_ms":/ && /"first_step_seconds":/ { if (value("first_step_seconds") + 0 > first + 0) first = value("first_step_seconds") }

END {
  if (!json) printf "%-50s %-10s %-9s %-13s %s\n", "goals", "wanted", "measured", "reached", ""
  check_goal("tests of the GPU code pass", "tests")
  check_goal("memory checker finds nothing", "memory checker")
  check_goal("race checker finds nothing", "race checker")
  check_goal("every verb runs on the card", "every verb")
  step_goals("step", "eager", 1.5)
  step_goals("step", "compile", 1.1)
  step_goals("student", "eager", 1.5)
  memory_goal("eager")
  memory_goal("compile")
  goal("first step after the start, seconds", "<", 3, first, "the slowest of the runs", reason("step bf16, "))
  split("channel_kd pixel_kd ka_affinity icsd", losses, " ")
  for (i = 1; i in losses; i++) {
    loss_goals(losses[i], "bf16")
    loss_goals(losses[i], "f32")
  }
  split("batch_norm depthwise losses interpolate optimizer pool_softmax input elementwise", families, " ")
  for (i = 1; i in families; i++) family_goal(families[i])
  if (!json) printf "%d of %d reached\n", met, total
}
