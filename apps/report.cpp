#include "apps/report.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "apps/chart.h"
#include "apps/cli.h"
#include "apps/compare.h"
#include "apps/html.h"
#include "core/error.h"
#include "core/file_io.h"
#include "core/log.h"

namespace limbeck::apps {
namespace {

namespace fs = std::filesystem;

constexpr const char* kColours[] = {"#1f77b4", "#d62728", "#2ca02c", "#9467bd",
                                    "#ff7f0e", "#17becf", "#8c564b", "#7f7f7f"};

/// One curve of a plot.
struct Curve {
  std::string name;
  std::vector<std::pair<double, double>> points;
};
using Series = std::map<std::string, Curve>;

/// All numbers of metrics.jsonl by key, over the steps.
Series read_series(const fs::path& file) {
  Series series;
  for (const auto& [step, values] : read_metrics(file)) {
    for (const auto& [key, value] : values) {
      if (!std::isfinite(value)) continue;
      auto& curve = series[key];
      curve.name = key;
      curve.points.emplace_back(static_cast<double>(step), value);
    }
  }
  return series;
}

/// A line plot as an SVG element, with axes, grid, ticks and a legend.
std::string svg_plot(const std::string& title, const std::vector<Curve>& curves) {
  constexpr double kWidth = 620;
  constexpr double kHeight = 260;
  constexpr double kLeft = 60;
  constexpr double kRight = 150;
  constexpr double kTop = 28;
  constexpr double kBottom = 30;
  double x0 = std::numeric_limits<double>::infinity();
  double y0 = x0;
  double x1 = -x0;
  double y1 = -x0;
  for (const auto& curve : curves) {
    for (const auto& [x, y] : curve.points) {
      if (!std::isfinite(y)) continue;
      x0 = std::min(x0, x);
      x1 = std::max(x1, x);
      y0 = std::min(y0, y);
      y1 = std::max(y1, y);
    }
  }
  if (!(x0 <= x1)) return {};
  if (x0 == x1) x1 = x0 + 1;
  if (y0 == y1) y1 = y0 + std::max(1e-3, std::abs(y0) * 0.1);
  const auto px = [&](double x) { return kLeft + (x - x0) / (x1 - x0) * (kWidth - kLeft - kRight); };
  const auto py = [&](double y) { return kHeight - kBottom - (y - y0) / (y1 - y0) * (kHeight - kTop - kBottom); };

  std::string s =
      fmt::format("<svg width=\"{0}\" height=\"{1}\" viewBox=\"0 0 {0} {1}\" role=\"img\">\n", kWidth, kHeight);
  s += fmt::format("<text x=\"{}\" y=\"16\" class=\"title\">{}</text>\n", kLeft, html_escape(title));
  const double sx = tick_step(x1 - x0);
  for (double x = std::ceil(x0 / sx) * sx; x <= x1 + sx * 1e-9; x += sx) {
    s += fmt::format(
        "<line x1=\"{0:.1f}\" x2=\"{0:.1f}\" y1=\"{1}\" y2=\"{2}\" class=\"grid\"/>"
        "<text x=\"{0:.1f}\" y=\"{3}\" text-anchor=\"middle\">{4}</text>\n",
        px(x), kTop, kHeight - kBottom, kHeight - 12, format_short(x));
  }
  const double sy = tick_step(y1 - y0);
  for (double y = std::ceil(y0 / sy) * sy; y <= y1 + sy * 1e-9; y += sy) {
    s += fmt::format(
        "<line x1=\"{0}\" x2=\"{1}\" y1=\"{2:.1f}\" y2=\"{2:.1f}\" class=\"grid\"/>"
        "<text x=\"{3}\" y=\"{4:.1f}\" text-anchor=\"end\">{5}</text>\n",
        kLeft, kWidth - kRight, py(y), kLeft - 6, py(y) + 4, format_short(std::abs(y) < sy * 1e-9 ? 0.0 : y));
  }
  for (std::size_t k = 0; k < curves.size(); ++k) {
    const char* colour = kColours[k % std::size(kColours)];
    std::string points;
    for (const auto& [x, y] : curves[k].points) {
      if (std::isfinite(y)) points += fmt::format("{:.1f},{:.1f} ", px(x), py(y));
    }
    s += fmt::format("<polyline points=\"{}\" fill=\"none\" stroke=\"{}\" stroke-width=\"1.5\"/>\n", points, colour);
    const double y = kTop + 12 + 16 * static_cast<double>(k);
    s += fmt::format(
        "<rect x=\"{}\" y=\"{}\" width=\"10\" height=\"10\" fill=\"{}\"/><text x=\"{}\" y=\"{}\">{}</text>\n",
        kWidth - kRight + 12, y - 9, colour, kWidth - kRight + 27, y, html_escape(curves[k].name));
  }
  return s + "</svg>\n";
}

void add_plot(std::string& page, const std::string& title, const Series& series,
              const std::function<bool(const std::string&)>& wanted) {
  std::vector<Curve> curves;
  for (const auto& [name, curve] : series) {
    if (wanted(name)) curves.push_back(curve);
  }
  if (!curves.empty()) page += svg_plot(title, curves);
}

std::string facts_table(const nlohmann::json& facts) {
  std::string table = "<table>\n";
  for (const auto& [key, value] : facts.items()) {
    std::string text;
    if (value.is_array()) {
      for (const auto& item : value)
        text += html_escape(item.is_string() ? item.get<std::string>() : item.dump()) + "<br>";
    } else {
      text = html_escape(value.is_string() ? value.get<std::string>() : value.dump());
    }
    table += fmt::format("<tr><th>{}</th><td>{}</td></tr>\n", html_escape(key), text);
  }
  return table + "</table>\n";
}

}  // namespace

void write_report(const fs::path& run) {
  const auto facts = nlohmann::json::parse(read_file(run / "run.json"), nullptr, false);
  if (!facts.is_object()) fail("report", "{} is not valid JSON", (run / "run.json").string());
  const Series series = read_series(run / "metrics.jsonl");

  std::string page = html_begin(run.filename().string());
  if (facts.contains("best_miou")) {
    page += fmt::format("<p>Best validation mIoU <b>{:.2f}</b>, last {:.2f}.</p>\n", facts["best_miou"].get<double>(),
                        facts.value("last_miou", 0.0));
  }
  if (facts.contains("best_top1")) {
    page += fmt::format("<p>Best validation top-1 <b>{:.2f}</b>, last {:.2f}.</p>\n", facts["best_top1"].get<double>(),
                        facts.value("last_top1", 0.0));
  }
  if (facts.contains("best_explained")) {
    page += fmt::format(
        "<p>The code keeps <b>{:.2f} %</b> of the tap's variance on the validation set, {:.2f} % at the end.</p>\n",
        facts["best_explained"].get<double>(), facts.value("last_explained", 0.0));
  }
  page += "<h2>Curves</h2>\n";
  add_plot(page, "training loss", series, [](const auto& k) { return k == "loss"; });
  add_plot(page, "terms, before weighting", series, [](const auto& k) { return k.starts_with("loss/"); });
  add_plot(page, "validation (percent)", series,
           [](const auto& k) { return k == "val_miou" || k == "val_pixel_acc" || k == "val_top1" || k == "val_top5"; });
  add_plot(page, "code (percent)", series, [](const auto& k) { return k == "val_explained" || k == "val_zeros"; });
  add_plot(page, "learning rate", series, [](const auto& k) { return k == "lr"; });
  add_plot(page, "steps per second", series, [](const auto& k) { return k == "steps_per_second"; });
  if (fs::is_directory(run / "pictures")) {
    page += "<h2>Validation pictures</h2>\n";
    std::vector<fs::path> files;
    for (const auto& entry : fs::directory_iterator(run / "pictures")) {
      if (entry.path().extension() == ".png") files.push_back(entry.path());
    }
    std::sort(files.begin(), files.end());
    for (const auto& file : files) {
      page += html_png(file.filename().string(), read_file(file));
    }
  }
  page += "<h2>Run</h2>\n" + facts_table(facts);
  if (fs::exists(run / "config.yaml"))
    page += "<h2>Configuration</h2>\n<pre>" + html_escape(read_file(run / "config.yaml")) + "</pre>\n";
  page += html_end();
  write_file_atomic(run / "report.html", page);
}

int run_report(const std::string& run) {
  if (!fs::exists(fs::path(run) / "run.json")) {
    fail<ConfigError>("report", "{} is no run folder: run.json is missing", run);
  }
  write_report(run);
  log_info("wrote {}", (fs::path(run) / "report.html").string());
  return 0;
}

}  // namespace limbeck::apps
