// What this is: report.html of a run: one self-contained page (inline SVG curves and pictures, no script, no network).
// Everything on it is read from the run folder, so it can be written again at any time with `limbeck report RUN`.
#pragma once

#include <filesystem>

namespace limbeck::apps {

/// Writes RUN/report.html from run.json, metrics.jsonl and pictures/. Throws Error naming a file that is missing.
void write_report(const std::filesystem::path& run);

}  // namespace limbeck::apps
