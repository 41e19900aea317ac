# shellcheck shell=bash
# What this is: how scripts/gpu_check.sh runs its checks and keeps what they say. Needs: out, temporary, seconds. Every check leaves
#   $out/table.txt      checks, figures, goals, for people; written anew after each check
#   $out/results.jsonl  every check and every measurement, one JSON object per line
#   $out/goals.jsonl    the goals, likewise; written anew after each check
#   $out/log.txt        all output

: "${out:?}" "${temporary:?}" "${seconds:?}"
results=$out/results.jsonl log=$out/log.txt table=$out/table.txt
mkdir -p "$out" || exit 1
: > "$results"
: > "$log"
start=$SECONDS
rows=() figures=()
failed=0
here=$(dirname "${BASH_SOURCE[0]}")

# show: writes the table as it is now.
show() {
  {
    printf '%-44s %-44s %s\n' check result seconds
    for line in "${rows[@]}"; do
      IFS='|' read -r name result took <<< "$line"
      printf '%-44s %-44s %s\n' "$name" "$result" "$took"
    done
    [ ${#figures[@]} -eq 0 ] || printf '%s\n' "" "${figures[@]}"
    echo
    awk -f "$here/value.awk" -f "$here/goals.awk" "$results"
  } > "$table"
  awk -v json=1 -f "$here/value.awk" -f "$here/goals.awk" "$results" > "$out/goals.jsonl"
}

# row NAME RESULT SECONDS: a line of the table, and of the results.
row() {
  rows+=("$1|$2|$3")
  printf '{"check":"%s","result":"%s","seconds":%s}\n' "$1" "$2" "$3" >> "$results"
  show
}

# figure TEXT: a line below the checks.
figure() {
  figures+=("$1")
  show
}

left() { echo $((seconds - (SECONDS - start))); }

# run NAME LIMIT COMMAND...: a check of at most so many seconds (times PATIENCE in the environment); its output is in $last, and behind that in the log, its lines of JSON
# in the results. A check that runs into its limit has not failed: what it printed counts.
last=$temporary/last
by_line=()  # lines that are printed before the limit must not wait in a buffer
command -v stdbuf > /dev/null && by_line=(stdbuf -oL)
run() {
  local name=$1 limit=$(($2 * ${PATIENCE:-1})) begin=$SECONDS remaining status
  shift 2
  : > "$last"
  remaining=$(left)
  if [ "$remaining" -lt 5 ]; then
    row "$name" "not run: no time left" 0
    return 0
  fi
  echo "== $name"
  timeout -k 5 "$((limit < remaining ? limit : remaining))" "${by_line[@]}" "$@" > "$last" 2>&1
  status=$?
  { echo "== $name: $*"; cat "$last"; } >> "$log"
  grep -a '^{.*}$' "$last" >> "$results"
  case $status in
    0) row "$name" passed $((SECONDS - begin)) ;;
    124|137) row "$name" "stopped by its limit" $((SECONDS - begin)) ;;
    *) row "$name" "FAILED with status $status (see log.txt)" $((SECONDS - begin)); failed=$((failed + 1)) ;;
  esac
  tail -n 3 "$last" | cut -c 1-200
}

# number KEY: the number of that name in the last line of $last that has it.
number() { sed -nE "s/.*\"$1\": ?([0-9.eE+-]+).*/\1/p" "$last" | tail -n 1; }
