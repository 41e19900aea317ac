// The tables of an ablation against numbers worked out by hand, the sweep file, and the record of a run.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "apps/statistics.h"
#include "apps/sweep.h"
#include "apps/sweep_table.h"
#include "tests/dataset_files.h"

using namespace limbeck;
using namespace limbeck::apps;

TEST_SUITE_BEGIN("sweep");

namespace {

RunRecord finished(const std::string& method, std::int64_t seed, double miou, std::vector<double> iou, double seconds,
                   double bytes) {
  RunRecord r;
  r.method = method;
  r.seed = seed;
  r.state = "finished";
  r.seconds_per_step = seconds;
  r.peak_bytes = bytes;
  r.objective = {"ce: weight 1"};
  r.scores = {{"val", "last", miou, 90, std::move(iou), 4, "whole image"}};
  return r;
}

SweepReport example() {
  SweepReport report;
  report.title = "a <sweep>";
  report.class_names = {"road", "sky"};
  report.methods = {"alone", "kd", "lost"};
  report.baseline = "alone";
  report.splits = {"val"};
  report.planned = 7;
  report.records = {finished("alone", 1, 50, {60, 40}, 0.5, 100e6),
                    finished("kd", 1, 53, {63, std::nan("")}, 0.7, 150e6),
                    finished("alone", 2, 54, {64, 44}, 0.7, 120e6), finished("kd", 2, 55, {66, 44}, 0.9, 160e6),
                    finished("kd", 3, 90, {90, 90}, 0.8, 170e6)};
  RunRecord failed;
  failed.method = "lost";
  failed.seed = 1;
  failed.state = "failed";
  failed.reason = "the loss is nan";
  report.records.push_back(failed);
  return report;
}

std::filesystem::path write(const test::TempFolder& dir, const std::string& name, const std::string& text) {
  std::ofstream(dir / name) << text;
  return dir / name;
}

constexpr const char* kBase =
    "base:\n  seed: 9\n  model: {name: mobilenet_v2_seg}\n  distill: {terms: [{loss: channel_kd}]}\n"
    "  train: {epochs: 3, lr: 0.1}\n"
    "common: {teacher: {name: big, init: there}, train: {steps: 20}}\n";

}  // namespace

TEST_CASE("differences are taken between runs of equal seed") {
  const SweepReport report = example();
  const auto rows = summarise(report.records, report.methods, "alone", "val", "last");
  REQUIRE(rows.size() == 3);
  CHECK(mean_of(rows[0].miou) == doctest::Approx(52));
  CHECK(deviation_of(rows[0].miou) == doctest::Approx(std::sqrt(8.0)));
  CHECK(rows[0].differences.empty());
  CHECK(rows[1].seeds == std::vector<std::int64_t>{1, 2, 3});
  CHECK(rows[1].differences == std::vector<double>{3, 1});  // seed 3 has no partner
  CHECK(deviation_of(rows[1].differences) == doctest::Approx(std::sqrt(2.0)));
  CHECK(rows[1].iou[0] == doctest::Approx(73));
  CHECK(rows[1].iou[1] == doctest::Approx(67));  // of the two seeds where the class occurs
  CHECK(rows[1].seconds_per_step == doctest::Approx(0.8));
  CHECK(rows[1].extra_bytes == doctest::Approx(50e6));  // 160 - (100 + 120) / 2
  CHECK(rows[2].seeds.empty());
  CHECK(std::isnan(rows[2].seconds_per_step));
  CHECK(summarise(report.records, report.methods, "alone", "test", "last")[0].miou.empty());
}

TEST_CASE("statistics of too few values are no numbers") {
  CHECK(std::isnan(mean_of({})));
  CHECK(std::isnan(deviation_of({1})));
  CHECK(std::isnan(median_of({std::nan("")})));
  CHECK(median_of({3, 1, std::nan(""), 2}) == 2);
  CHECK(median_of({4, 1, 3, 2}) == 2.5);
}

TEST_CASE("the tables say what was found and what was not") {
  const SweepReport report = example();
  const std::string text = sweep_markdown(report);
  const auto has = [](const std::string& all, const char* part) { return all.find(part) != std::string::npos; };
  CHECK(has(text, "5 of 7 runs finished, 1 failed"));
  CHECK(has(text, "| alone  |     2 | 52.00 |  2.83 |          |      |  0.600 |          |"));
  CHECK(has(text, "|    +2.00 | 1.41 |  0.800 |     50.0 |"));
  CHECK(has(text, "| lost   |     0 |     - |"));
  CHECK(has(text, "lost, seed 1: the loss is nan"));
  const std::string page = sweep_html(report);
  CHECK(has(page, "a &lt;sweep&gt;"));
  CHECK_FALSE(has(page, "a <sweep>"));
  CHECK(has(page, "<svg"));
  CHECK_FALSE(has(page, "http"));  // nothing is fetched
  CHECK_FALSE(has(page, "<script"));
  const auto json = nlohmann::json::parse(sweep_json(report));
  CHECK(json["table"][1]["difference"].get<double>() == doctest::Approx(2));
  CHECK(json["table"][2]["miou"].is_null());
  CHECK(json["runs"].size() == 6);
}

TEST_CASE("the bar plot has a bar per method, and the picture shows it") {
  const Chart chart = bar_chart("mIoU", "difference",
                                {{"alone", 50, {50}, {}}, {"kd", 40, {40}, {-10}}, {"none", std::nan(""), {}, {}}});
  const auto widest = [&](double row) {
    const auto is_bar = [](const auto& box) { return box.h == 12; };
    const double zero =
        std::find_if(chart.boxes.begin(), chart.boxes.end(), is_bar)->x;  // the other panel has another one
    double width = 0;
    for (const auto& box : chart.boxes) {
      if (is_bar(box) && box.y == row && box.x == zero) width = std::max(width, box.w);
    }
    return width;
  };
  CHECK(widest(38) > 0);
  CHECK(widest(60) == doctest::Approx(widest(38) * 0.8).epsilon(1e-6));  // from zero, so lengths compare
  CHECK(widest(82) == 0);
  const auto image = to_image(chart, 1);
  CHECK(image.w == std::lround(chart.width));
  const auto blue = [&](std::int64_t y) {
    int count = 0;
    for (std::int64_t x = 0; x < image.w; ++x) count += image.at(y, x)[0] == 31 && image.at(y, x)[2] == 180 ? 1 : 0;
    return count;
  };
  CHECK(std::abs(blue(45) - widest(38)) < 8);  // grid lines and dots cover a few pixels
  CHECK(blue(85) == 0);
}

TEST_CASE("a sweep file is joined from base, common part, method and command line") {
  const test::TempFolder dir;
  const auto file = write(
      dir, "sweep.yaml",
      std::string(kBase) +
          "seeds: [4, 5]\nmethods:\n  - {name: alone}\n  - {name: kd, terms: [{loss: pixel_kd}], train: {lr: 0.5}}\n");
  const SweepSpec spec = read_sweep(file.string(), {"train.batch=2", "splits=[val, test]", "teacher.min_miou=40"});
  CHECK(spec.seeds == std::vector<std::int64_t>{4, 5});
  CHECK(spec.splits == std::vector<std::string>{"val", "test"});
  CHECK(spec.baseline == "alone");
  REQUIRE(spec.methods.size() == 2);
  const auto& alone = spec.methods[0];
  CHECK_FALSE(alone.distillation);
  CHECK_FALSE(alone.config.has("teacher.name"));  // nor is there a key nobody would ask for
  CHECK_FALSE(alone.config.has("seed"));
  CHECK(alone.config.get<int>("train.steps") == 20);
  CHECK(alone.config.get<int>("train.epochs") == 0);  // the common length replaces the base's
  CHECK(alone.config.get<double>("train.lr") == 0.1);
  CHECK(alone.config.get<int>("train.batch") == 2);
  const auto& kd = spec.methods[1];
  CHECK(kd.distillation);
  CHECK(kd.config.get<double>("train.lr") == 0.5);
  CHECK(kd.config.get<double>("teacher.min_miou") == 40);
  const auto terms = kd.config.sections("distill.terms");
  REQUIRE(terms.size() == 1);
  CHECK(terms[0].get<std::string>("loss") == "pixel_kd");
}

TEST_CASE("mistakes in a sweep file are named with their line") {
  const test::TempFolder dir;
  const auto refuse = [&](const std::string& text, const std::vector<std::string>& parts) {
    const auto file = write(dir, "sweep.yaml", text);
    try {
      static_cast<void>(read_sweep(file.string(), {}));
      FAIL("accepted: " << text);
    } catch (const ConfigError& e) {
      for (const auto& part : parts) CHECK_MESSAGE(std::string(e.what()).find(part) != std::string::npos, e.what());
    }
  };
  const std::string base = kBase;
  refuse(base, {"methods", "at least one"});
  refuse(base + "methods: [{name: a}, {name: a}]\n", {"sweep.yaml:7", "second method 'a'"});
  refuse(base + "methods: [{name: .}]\n", {"name of a folder"});
  refuse(base + "methods: [{name: a}]\nseeds: [1, 1]\n", {"sweep.yaml:8", "twice"});
  refuse(base + "methods: [{name: a}]\nsed: [1]\n", {"sweep.yaml:8: unknown key 'sed', did you mean 'seeds'"});
  refuse("base: camvid/studnet\nmethods: [{name: a}]\n", {"sweep.yaml:1", "did you mean 'camvid/student'"});
}

TEST_CASE("the record of a run comes back as it was written") {
  const test::TempFolder dir;
  RunRecord record = finished("kd", 7, 12.25, {std::nan(""), 3.5}, std::nan(""), 1e6);
  record.config = "a: 1\nb: \"x\"\n";
  record.seconds = 3.5;
  write_record(dir / "result.json", record);
  const auto back = read_record(dir / "result.json");
  REQUIRE(back.has_value());
  CHECK(back->method == "kd");
  CHECK(back->seed == 7);
  CHECK(back->state == "finished");
  CHECK(back->config == record.config);
  CHECK(back->seconds == 3.5);
  CHECK(std::isnan(back->seconds_per_step));
  REQUIRE(back->scores.size() == 1);
  CHECK(back->scores[0].miou == 12.25);
  CHECK(std::isnan(back->scores[0].iou[0]));
  CHECK(back->scores[0].iou[1] == 3.5);
  CHECK_FALSE(read_record(dir / "nothing.json").has_value());
  std::ofstream(dir / "torn.json") << "{\"method\": 3";
  CHECK_THROWS_AS(static_cast<void>(read_record(dir / "torn.json")), Error);
}

TEST_CASE("the first difference of two configurations is shown") {
  CHECK(first_difference("a: 1\nb: 2\n", "a: 1\nb: 2\n").empty());
  CHECK(first_difference("a: 1\nb: 2\n", "a: 1\nb: 3\n") == "line 2: 'b: 3' instead of 'b: 2'");
  CHECK(first_difference("a: 1\n", "a: 1\nb: 3\n") == "line 2: 'b: 3' instead of '(end)'");
}

TEST_SUITE_END();
