# What this is: lines of compare_losses.py as text. Usage: awk -f value.awk -f losses.awk OUTPUT
function beside(way) {
  if (value("over_" way) == "") return ""
  return sprintf("; %s %.3f ms, %.2f times (%s)", way, value(way "_ms"), value("over_" way), value("best_" way))
}
/"limbeck_ms":/ && /"loss":/ { printf "%-40s %9.3f ms%s%s\n", value("name"), value("limbeck_ms"), beside("eager"), beside("compile") }
/"errors": \{"/ { printf "%-40s %s\n", value("name"), substr($0, index($0, "\"errors\""), 300) }
