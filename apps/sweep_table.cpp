#include "apps/sweep_table.h"

#include <algorithm>
#include <cmath>

#include "apps/html.h"
#include "apps/statistics.h"
#include "core/json.h"
#include "core/log.h"

namespace limbeck::apps {
namespace {

const SplitScore* score_of(const RunRecord& record, const std::string& split, const std::string& weights) {
  for (const auto& s : record.scores) {
    if (s.split == split && s.weights == weights) return &s;
  }
  return nullptr;
}

struct Cost {
  std::vector<double> seconds, bytes;
};

Cost cost_of(const std::vector<RunRecord>& records, const std::string& method) {
  Cost cost;
  for (const auto& r : records) {
    if (r.method != method || r.state != "finished") continue;
    cost.seconds.push_back(r.seconds_per_step);
    if (r.peak_bytes > 0) cost.bytes.push_back(r.peak_bytes);
  }
  return cost;
}

std::string number(double value, int digits = 2, bool sign = false) {
  if (!std::isfinite(value)) return "-";
  if (std::abs(value) < 0.5 * std::pow(10.0, -digits)) value = 0.0;  // no "-0.00"
  return sign ? fmt::format("{:+.{}f}", value, digits) : fmt::format("{:.{}f}", value, digits);
}

using Cells = std::vector<std::string>;
struct Table {
  Cells head;
  std::vector<Cells> rows;
};

Table main_table(const std::vector<MethodRow>& rows, const std::string& baseline) {
  Table table{{"method", "seeds", "mIoU", "std", "vs " + baseline, "std", "s/step", "extra MB"}, {}};
  for (const auto& r : rows) {
    const bool base = r.name == baseline;
    table.rows.push_back({r.name, fmt::format("{}", r.seeds.size()), number(mean_of(r.miou)),
                          number(deviation_of(r.miou)), base ? "" : number(mean_of(r.differences), 2, true),
                          base ? "" : number(deviation_of(r.differences)), number(r.seconds_per_step, 3),
                          base ? "" : number(r.extra_bytes / 1e6, 1)});
  }
  return table;
}

Table class_table(const std::vector<MethodRow>& rows, const std::vector<std::string>& classes) {
  Table table{{"method"}, {}};
  table.head.insert(table.head.end(), classes.begin(), classes.end());
  for (const auto& r : rows) {
    if (r.iou.empty()) continue;
    Cells cells{r.name};
    for (const double v : r.iou) cells.push_back(number(v, 1));
    table.rows.push_back(std::move(cells));
  }
  return table;
}

/// Columns are padded, so that the text is a table on a terminal too.
std::string markdown_table(const Table& table) {
  std::vector<std::size_t> widths;
  for (const auto& cell : table.head) widths.push_back(std::max<std::size_t>(cell.size(), 3));
  for (const auto& row : table.rows) {
    for (std::size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], row[i].size());
  }
  const auto line = [&](const Cells& cells) {
    std::string text = "|";
    for (std::size_t i = 0; i < cells.size(); ++i) {
      text += i == 0 ? fmt::format(" {:<{}} |", cells[i], widths[i]) : fmt::format(" {:>{}} |", cells[i], widths[i]);
    }
    return text + "\n";
  };
  std::string text = line(table.head) + "|";
  for (std::size_t i = 0; i < widths.size(); ++i)
    text += i == 0 ? std::string(widths[i] + 2, '-') + "|" : std::string(widths[i] + 1, '-') + ":|";
  text += "\n";
  for (const auto& row : table.rows) text += line(row);
  return text;
}

std::string html_table(const Table& table) {
  std::string text = "<table>\n<tr>";
  for (const auto& cell : table.head) text += "<th>" + html_escape(cell) + "</th>";
  text += "</tr>\n";
  for (const auto& row : table.rows) {
    text += "<tr>";
    for (std::size_t i = 0; i < row.size(); ++i) {
      text += (i == 0 ? "<td>" : "<td class=\"number\">") + html_escape(row[i]) + "</td>";
    }
    text += "</tr>\n";
  }
  return text + "</table>\n";
}

std::string heading(const std::string& split, const std::string& weights) {
  return fmt::format("{}, {}", split,
                     weights == "last" ? "weights of the last step" : "best weights on the validation split");
}

/// Calls f(split, weights) for every table of the report.
template <class F>
void for_each_table(const SweepReport& report, F&& f) {
  for (const auto& split : report.splits) {
    f(split, std::string("last"));
    if (report.best) f(split, std::string("best"));
  }
}

std::vector<MethodRow> rows_of(const SweepReport& report, const std::string& split, const std::string& weights) {
  return summarise(report.records, report.methods, report.baseline, split, weights);
}

std::string state_line(const SweepReport& report) {
  std::size_t finished = 0;
  std::size_t failed = 0;
  for (const auto& r : report.records) {
    finished += r.state == "finished" ? 1U : 0U;
    failed += r.state == "failed" ? 1U : 0U;
  }
  return fmt::format("{} of {} finished{}", finished, format_count(report.planned, "run"),
                     failed > 0 ? fmt::format(", {} failed", failed) : "");
}

constexpr const char* kReading =
    "mIoU and IoU in percent. std: over the seeds (n - 1). Differences are between runs of equal seed. s/step: median "
    "wall time of a training step. extra MB: peak tensor memory during a step beyond the baseline's, the teacher included.";

std::vector<std::string> failures(const SweepReport& report) {
  std::vector<std::string> lines;
  for (const auto& r : report.records) {
    if (r.state == "failed") lines.push_back(fmt::format("{}, seed {}: {}", r.method, r.seed, r.reason));
  }
  return lines;
}

}  // namespace

std::vector<MethodRow> summarise(const std::vector<RunRecord>& records, const std::vector<std::string>& methods,
                                 const std::string& baseline, const std::string& split, const std::string& weights) {
  const auto find = [&](const std::string& method, std::int64_t seed) -> const SplitScore* {
    for (const auto& r : records) {
      if (r.method == method && r.seed == seed && r.state == "finished") return score_of(r, split, weights);
    }
    return nullptr;
  };
  const double base_bytes = median_of(cost_of(records, baseline).bytes);
  std::vector<MethodRow> rows;
  for (const auto& name : methods) {
    MethodRow row;
    row.name = name;
    std::vector<std::vector<double>> per_class;
    for (const auto& r : records) {
      const SplitScore* score = r.method == name ? find(name, r.seed) : nullptr;
      if (score == nullptr) continue;
      row.seeds.push_back(r.seed);
      row.miou.push_back(score->miou);
      per_class.resize(score->iou.size());
      for (std::size_t k = 0; k < score->iou.size(); ++k) {
        if (std::isfinite(score->iou[k])) per_class[k].push_back(score->iou[k]);
      }
      const SplitScore* base = name == baseline ? nullptr : find(baseline, r.seed);
      if (base != nullptr) row.differences.push_back(score->miou - base->miou);
    }
    for (const auto& values : per_class) row.iou.push_back(mean_of(values));
    const Cost cost = cost_of(records, name);
    row.seconds_per_step = median_of(cost.seconds);
    row.extra_bytes = median_of(cost.bytes) - base_bytes;
    rows.push_back(std::move(row));
  }
  return rows;
}

std::string sweep_markdown(const SweepReport& report) {
  std::string text = fmt::format("# {}\n\n", report.title);
  for (const auto& fact : report.facts) text += fmt::format("- {}\n", fact);
  text += fmt::format("- {}\n", state_line(report));
  for_each_table(report, [&](const std::string& split, const std::string& weights) {
    const auto rows = rows_of(report, split, weights);
    text += fmt::format("\n## {}\n\n{}\nIoU per class, mean over the seeds:\n\n{}", heading(split, weights),
                        markdown_table(main_table(rows, report.baseline)),
                        markdown_table(class_table(rows, report.class_names)));
  });
  text += fmt::format("\n{}\n", kReading);
  const auto failed = failures(report);
  if (!failed.empty()) text += "\n## Failed runs\n\n";
  for (const auto& line : failed) text += fmt::format("- {}\n", line);
  return text;
}

Chart sweep_chart(const SweepReport& report, const std::string& split, const std::string& weights) {
  std::vector<Bar> bars;
  for (const auto& row : rows_of(report, split, weights))
    bars.push_back({row.name, mean_of(row.miou), row.miou, row.differences});
  return bar_chart(fmt::format("mIoU on {} ({} weights)", split, weights), "difference to " + report.baseline, bars);
}

std::string sweep_html(const SweepReport& report) {
  std::string page = html_begin(report.title) + "<ul>\n";
  for (const auto& fact : report.facts) page += "<li>" + html_escape(fact) + "</li>\n";
  page += "<li>" + html_escape(state_line(report)) + "</li>\n</ul>\n";
  for_each_table(report, [&](const std::string& split, const std::string& weights) {
    const auto rows = rows_of(report, split, weights);
    page += fmt::format("<h2>{}</h2>\n{}{}<p>IoU per class, mean over the seeds:</p>\n{}",
                        html_escape(heading(split, weights)), html_table(main_table(rows, report.baseline)),
                        to_svg(sweep_chart(report, split, weights)), html_table(class_table(rows, report.class_names)));
  });
  page += fmt::format("<p>{} Dots are single runs, whiskers one standard deviation.</p>\n", kReading);
  const auto failed = failures(report);
  if (!failed.empty()) page += "<h2>Failed runs</h2>\n<ul>\n";
  for (const auto& line : failed) page += "<li>" + html_escape(line) + "</li>\n";
  if (!failed.empty()) page += "</ul>\n";
  page += "<h2>Objectives</h2>\n<table>\n";
  for (const auto& method : report.methods) {
    for (const auto& r : report.records) {
      if (r.method != method || r.objective.empty()) continue;
      std::string lines;
      for (const auto& line : r.objective) lines += html_escape(line) + "<br>";
      page += fmt::format("<tr><th>{}</th><td>{}</td></tr>\n", html_escape(method), lines);
      break;
    }
  }
  return page + "</table>\n" + html_end();
}

std::string sweep_json(const SweepReport& report) {
  std::vector<std::string> tables;
  for_each_table(report, [&](const std::string& split, const std::string& weights) {
    for (const auto& row : rows_of(report, split, weights)) {
      tables.push_back(JsonObject()
                           .add("split", split)
                           .add("weights", weights)
                           .add("method", row.name)
                           .add("seeds", std::span<const std::int64_t>(row.seeds))
                           .add("miou", mean_of(row.miou))
                           .add("miou_std", deviation_of(row.miou))
                           .add("difference", mean_of(row.differences))
                           .add("difference_std", deviation_of(row.differences))
                           .add("iou", std::span<const double>(row.iou))
                           .add("seconds_per_step", row.seconds_per_step)
                           .add("extra_bytes", row.extra_bytes)
                           .str());
    }
  });
  std::vector<std::string> runs;
  for (const auto& r : report.records) runs.push_back(to_json(r));
  return JsonObject()
             .add("title", report.title)
             .add("facts", std::span<const std::string>(report.facts))
             .add("classes", std::span<const std::string>(report.class_names))
             .add("baseline", report.baseline)
             .add_raw("table", json_array(tables))
             .add_raw("runs", json_array(runs))
             .str() +
         "\n";
}

}  // namespace limbeck::apps
