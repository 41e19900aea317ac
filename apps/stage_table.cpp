#include "apps/stage_table.h"

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>
#include <utility>

#include "apps/html.h"
#include "apps/scoring.h"
#include "core/error.h"
#include "core/file_io.h"
#include "core/log.h"

namespace limbeck::apps {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;
using Rows = std::vector<std::vector<std::string>>;  // the first one is the heading

Json read_json(const fs::path& file) {
  Json json = Json::parse(read_file(file), nullptr, false);
  if (!json.is_object()) fail("run", "{} is not valid JSON; remove it and run again", file.string());
  return json;
}

/// One finished stage as the table sees it.
struct Row {
  const Stage* stage;
  Json run;                            // run.json
  std::map<std::string, Json> scores;  // split -> eval_SPLIT.json; empty for an autoencoder
};

/// The record of the run; of a weight file from elsewhere only its network is known.
Json read_run(const fs::path& root, const Stage& stage) {
  const fs::path file = stage.result(root) / "run.json";
  if (stage.from.empty() || fs::exists(file)) return read_json(file);
  Json run = Json::object();
  if (stage.verb != Verb::kAutoencoder) run["model"] = stage.resolved(root).get<std::string>("model.name");
  return run;
}

Row read_row(const fs::path& root, const Stage& stage, const std::vector<std::string>& splits) {
  Row row{&stage, read_run(root, stage), {}};
  if (stage.verb == Verb::kAutoencoder) return row;
  for (const std::string& split : splits) {
    const fs::path file = root / stage.name / fmt::format("eval_{}.json", split);
    if (!fs::exists(file)) {
      log_info("{}: scoring on {}", stage.name, split);
      Config config = stage.resolved(root);
      config.override_with("data.val_split=" + split);
      write_file_atomic(file, score_model(stage.result(root), read_data(config)).json() + "\n");
    }
    row.scores.emplace(split, read_json(file));
  }
  return row;
}

/// Two decimals; empty where the number is missing (a class that is not in the split).
std::string percent(const Json& value) {
  return value.is_number() ? fmt::format("{:.2f}", value.get<double>()) : std::string();
}

/// Empty where the record does not say.
std::string count_of(const Json& run, const char* key) {
  return run.contains(key) ? std::to_string(run[key].get<std::int64_t>()) : std::string();
}

/// What a task calls its scores, and the keys under which eval_SPLIT.json has them.
struct ScoreNames {
  const char *score, *score_key, *second, *second_key, *of_class, *class_key;
};
constexpr ScoreNames kSegment{"mIoU", "miou", "pixel accuracy", "pixel_acc", "class", "per_class_iou"};
constexpr ScoreNames kClassify{"top-1", "top1", "top-5", "top5", "class accuracy", "per_class_acc"};

const ScoreNames& names_of(const std::vector<Row>& rows) {
  for (const Row& row : rows) {
    if (!row.scores.empty()) return row.scores.begin()->second.contains("top1") ? kClassify : kSegment;
  }
  return kSegment;
}

/// Score of a row, and what it has more than the stage it is like: the same network without the teacher.
std::string score_cell(const Row& row, const std::vector<Row>& rows, const std::string& split, const char* key) {
  const double score = row.scores.at(split).value(key, 0.0);
  const auto like =
      std::find_if(rows.begin(), rows.end(), [&](const Row& r) { return r.stage->name == row.stage->like; });
  if (like == rows.end() || like->scores.empty()) return fmt::format("{:.2f}", score);
  return fmt::format("{:.2f} ({:+.2f} to {})", score, score - like->scores.at(split).value(key, 0.0),
                     like->stage->name);
}

Rows network_table(const std::vector<Row>& rows, const std::vector<std::string>& splits) {
  const ScoreNames& names = names_of(rows);
  Rows table{{"stage", "network", "parameters", "steps"}};
  for (const auto& split : splits) {
    table[0].push_back(fmt::format("{} {}", names.score, split));
    table[0].push_back(fmt::format("{} {}", names.second, split));
  }
  for (const Row& row : rows) {
    if (row.scores.empty()) continue;
    table.push_back(
        {row.stage->name, row.run.value("model", ""), count_of(row.run, "parameters"), count_of(row.run, "steps")});
    for (const auto& split : splits) {
      table.back().push_back(score_cell(row, rows, split, names.score_key));
      table.back().push_back(percent(row.scores.at(split)[names.second_key]));
    }
  }
  return table;
}

/// IoU (accuracy) of every class on one split, a column per network.
Rows class_table(const std::vector<Row>& rows, const std::string& split) {
  const ScoreNames& names = names_of(rows);
  Rows table{{fmt::format("{} ({})", names.of_class, split)}};
  for (const Row& row : rows) {
    if (row.scores.empty()) continue;
    table[0].push_back(row.stage->name);
    std::size_t line = 1;
    for (const auto& [name, iou] : row.scores.at(split)[names.class_key].items()) {
      if (line == table.size()) table.push_back({name});
      table[line++].push_back(percent(iou));
    }
  }
  return table;
}

std::string to_markdown(const Rows& table) {
  std::string text;
  for (std::size_t i = 0; i < table.size(); ++i) {
    text += fmt::format("| {} |\n", fmt::join(table[i], " | "));
    if (i > 0) continue;
    for (std::size_t k = 0; k < table[0].size(); ++k) text += "|---";
    text += "|\n";
  }
  return text;
}

std::string to_html(const Rows& table) {
  std::string text = "<table>\n";
  for (std::size_t i = 0; i < table.size(); ++i) {
    text += "<tr>";
    for (const auto& cell : table[i]) text += fmt::format("<{0}>{1}</{0}>", i == 0 ? "th" : "td", html_escape(cell));
    text += "</tr>\n";
  }
  return text + "</table>\n";
}

std::vector<std::string> autoencoder_lines(const std::vector<Row>& rows) {
  std::vector<std::string> lines;
  for (const Row& row : rows) {
    if (row.stage->verb != Verb::kAutoencoder || !row.run.contains("best_explained")) continue;
    lines.push_back(fmt::format("{}: its code keeps {:.2f} % of the variance of the teacher's tap '{}'.",
                                row.stage->name, row.run.value("best_explained", 0.0),
                                row.run.value("teacher_tap", "")));
  }
  return lines;
}

std::string pictures_of(const fs::path& root, const Stage& stage) {
  constexpr std::size_t kMost = 2;
  std::vector<fs::path> files;
  const fs::path folder = stage.result(root) / "pictures";
  if (fs::is_directory(folder)) {
    for (const auto& entry : fs::directory_iterator(folder)) {
      if (entry.path().extension() == ".png") files.push_back(entry.path());
    }
  }
  std::sort(files.begin(), files.end());
  const std::string name = html_escape(stage.name);
  std::string html = stage.from.empty() ? fmt::format("<h3><a href=\"{0}/report.html\">{0}</a></h3>\n", name)
                                        : fmt::format("<h3>{}, taken from {}</h3>\n", name, html_escape(stage.from));
  for (std::size_t i = 0; i < std::min(files.size(), kMost); ++i)
    html += html_png(files[i].filename().string(), read_file(files[i]));
  return html;
}

}  // namespace

std::string write_stage_table(const fs::path& root, const StagedConfig& staged) {
  std::vector<Row> rows;
  for (const Stage& stage : staged.stages) rows.push_back(read_row(root, stage, staged.splits));
  const Rows networks = network_table(rows, staged.splits);
  const auto lines = autoencoder_lines(rows);

  std::string markdown = to_markdown(networks);
  for (const auto& line : lines) markdown += "\n" + line + "\n";
  write_file_atomic(root / "table.md", markdown);

  std::string page = html_begin(root.filename().string()) + to_html(networks);
  for (const auto& line : lines) page += "<p>" + html_escape(line) + "</p>\n";
  page += "<h2>Classes</h2>\n";
  for (const auto& split : staged.splits) page += to_html(class_table(rows, split));
  page += "<h2>Stages</h2>\n";
  for (const Stage& stage : staged.stages) page += pictures_of(root, stage);
  write_file_atomic(root / "report.html", page + html_end());
  return markdown;
}

}  // namespace limbeck::apps
