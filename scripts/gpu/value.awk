# What this is: what the other awk programs here read JSON lines with. Flat objects only; keys and texts without escapes.
# The value of a key in the current line, without quotes; empty if it is not there.
function value(key,  text) {
  if (!match($0, "\"" key "\": *(\"[^\"]*\"|[-+0-9.eE]+)")) return ""
  text = substr($0, RSTART, RLENGTH)
  sub(/^"[^"]*": */, "", text)
  gsub(/"/, "", text)
  return text
}
