// What this is: report.html of a run: one self-contained page (inline SVG curves and pictures, no script, no network).
// Everything on it is read from the run folder, so it can be written again at any time with `limbeck report RUN`.
#pragma once

#include <filesystem>
#include <string>
#include <utility>
#include <vector>

namespace limbeck::apps {

/// Writes RUN/report.html from run.json, metrics.jsonl and pictures/. Throws Error naming a file that is missing.
void write_report(const std::filesystem::path& run);

/// One curve of a plot.
struct Curve {
  std::string name;
  std::vector<std::pair<double, double>> points;
};
/// A line plot as an SVG element, with axes, grid, ticks and a legend.
[[nodiscard]] std::string svg_plot(const std::string& title, const std::vector<Curve>& curves);

/// A horizontal bar per (name, value >= 0), as an SVG element.
[[nodiscard]] std::string svg_bars(const std::string& title, const std::vector<std::pair<std::string, double>>& bars);

}  // namespace limbeck::apps
