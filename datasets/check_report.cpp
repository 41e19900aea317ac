// The report of check_data() as text and as JSON, and the class weights.
#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "datasets/check_data.h"
#include "datasets/text.h"

namespace limbeck::datasets {
namespace {

double share(std::uint64_t part, std::uint64_t whole) {
  return whole == 0 ? 0.0 : static_cast<double>(part) / static_cast<double>(whole);
}

std::string size_text(const SplitReport& s) {
  if (s.max_h == 0) return "no readable image";
  if (s.min_h == s.max_h && s.min_w == s.max_w) return fmt::format("{}x{}", s.max_w, s.max_h);
  return fmt::format("{}x{} to {}x{}", s.min_w, s.min_h, s.max_w, s.max_h);
}

std::string plural(std::size_t count, const char* noun) {
  return fmt::format("{} {}{}", count, noun, count == 1 ? "" : "s");
}

std::string verdict(const CheckReport& report) {
  const auto errors = static_cast<std::size_t>(
      std::count_if(report.findings.begin(), report.findings.end(), [](const Finding& f) { return f.error; }));
  const std::size_t warnings = report.findings.size() - errors;
  if (errors == 0) return warnings == 0 ? "ok" : fmt::format("ok ({})", plural(warnings, "warning"));
  return fmt::format("not ok ({}, {})", plural(errors, "error"), plural(warnings, "warning"));
}

}  // namespace

std::vector<double> median_frequency_weights(const SplitReport& split) {
  std::vector<double> frequency;
  for (std::size_t k = 0; k < split.class_pixels.size(); ++k) {
    frequency.push_back(share(split.class_pixels[k], split.class_image_pixels[k]));
  }
  std::vector<double> sorted;
  std::copy_if(frequency.begin(), frequency.end(), std::back_inserter(sorted), [](double f) { return f > 0; });
  std::vector<double> weights(frequency.size(), 1.0);
  if (sorted.empty()) return weights;
  std::sort(sorted.begin(), sorted.end());
  const std::size_t middle = sorted.size() / 2;
  const double median = sorted.size() % 2 == 1 ? sorted[middle] : 0.5 * (sorted[middle - 1] + sorted[middle]);
  for (std::size_t k = 0; k < frequency.size(); ++k) {
    if (frequency[k] > 0) weights[k] = median / frequency[k];
  }
  return weights;
}

std::string to_text(const CheckReport& report) {
  std::string text = fmt::format("data set {} {}\n", report.kind, report.root);
  for (const auto& s : report.splits) {
    if (s.whole_images) {
      text += fmt::format("split {}: {}{}, {}, one class per picture\n", s.name, plural(s.listed, "picture"),
                          s.scanned < s.listed ? fmt::format(" ({} looked at)", s.scanned) : "", size_text(s));
      continue;
    }
    std::vector<std::string> formats;
    for (const auto& [name, files] : s.mask_formats) formats.push_back(name);
    text += fmt::format("split {}: {}{}, {}, {:.1f} M pixels, {:.2f} % ignored, masks {}\n", s.name,
                        plural(s.listed, "pair"), s.scanned < s.listed ? fmt::format(" ({} looked at)", s.scanned) : "",
                        size_text(s), 1e-6 * static_cast<double>(s.pixels), 100 * share(s.ignored, s.pixels),
                        join(formats, ", "));
  }

  std::size_t width = 5;
  for (const auto& name : report.classes.names) width = std::max(width, name.size());
  text += fmt::format("\n  id  {:<{}}", "class", width);
  for (const auto& s : report.splits) text += fmt::format("  {:>10} {:>8}", s.name + " %", "images");
  text += "    weight\n";
  for (std::size_t k = 0; k < report.classes.names.size(); ++k) {
    text += fmt::format("{:>4}  {:<{}}", k, report.classes.names[k], width);
    for (const auto& s : report.splits) {
      text += fmt::format("  {:>10.3f} {:>8}", 100 * share(s.class_pixels[k], s.pixels - s.ignored), s.class_images[k]);
    }
    text += fmt::format("  {:>8.4f}\n", report.class_weights[k]);
  }
  std::vector<std::string> weights;
  for (const double w : report.class_weights) weights.push_back(fmt::format("{:.4f}", w));
  text += fmt::format("\nclass_weights: [{}]  # median frequency balancing of split {}\n", join(weights, ", "),
                      report.splits.front().name);

  for (const auto& f : report.findings) {
    text += fmt::format("\n{} {} ({}): {}\n", f.error ? "ERROR" : "WARNING", f.code, f.split, f.text);
    if (!f.fix.empty()) text += fmt::format("  fix: {}\n", f.fix);
  }
  return text + fmt::format("\nverdict: {}\n", verdict(report));
}

std::string to_json(const CheckReport& report, int indent) {
  using nlohmann::json;
  json out{{"ok", report.ok},         {"verdict", verdict(report)},      {"kind", report.kind},
           {"root", report.root},     {"classes", report.classes.names}, {"class_weights", report.class_weights},
           {"splits", json::array()}, {"findings", json::array()}};
  for (const auto& s : report.splits) {
    out["splits"].push_back({{"name", s.name},
                             {"pairs", s.listed},
                             {"scanned", s.scanned},
                             {"min_size", {s.min_h, s.min_w}},
                             {"max_size", {s.max_h, s.max_w}},
                             {"pixels", s.pixels},
                             {"ignored", s.ignored},
                             {"class_pixels", s.class_pixels},
                             {"class_images", s.class_images},
                             {"mask_formats", s.mask_formats}});
  }
  for (const auto& f : report.findings) {
    out["findings"].push_back({{"severity", f.error ? "error" : "warning"},
                               {"code", f.code},
                               {"split", f.split},
                               {"text", f.text},
                               {"fix", f.fix}});
  }
  // File names need not be UTF-8; replacing odd bytes is better than no report.
  return out.dump(indent, ' ', false, json::error_handler_t::replace);
}

}  // namespace limbeck::datasets
