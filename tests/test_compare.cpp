// What two runs differ in.
#include <doctest/doctest.h>

#include <cmath>
#include <fstream>
#include <string>

#include "apps/compare.h"
#include "apps/report.h"
#include "core/file_io.h"
#include "tests/harness/temp_dir.h"

using namespace limbeck;
using namespace limbeck::apps;

TEST_SUITE_BEGIN("compare");

TEST_CASE("a configuration is flattened to keys and texts") {
  const auto flat =
      flatten(Config::parse("a: 1\nb: {c: [1, 2], d: null}\nterms: [{loss: x}, {loss: y, tau: 4}]\n", "f.yaml"));
  CHECK(flat == std::map<std::string, std::string>{{"a", "1"},
                                                   {"b.c", "1, 2"},
                                                   {"b.d", "null"},
                                                   {"terms.0.loss", "x"},
                                                   {"terms.1.loss", "y"},
                                                   {"terms.1.tau", "4"}});
}

TEST_CASE("differences of configurations name the key and both values") {
  const auto d = config_differences(Config::parse("out: here\nlr: 1\nonly: 3\nsame: 4\n", "a.yaml"),
                                    Config::parse("out: there\nsame: 4\nlr: 2\nmore: {x: 5}\n", "b.yaml"));
  REQUIRE(d.size() == 3);
  CHECK(d[0].key == "lr");
  CHECK(d[0].a == "1");
  CHECK(d[0].b == "2");
  CHECK(d[1].key == "more.x");
  CHECK_FALSE(d[1].a.has_value());
  CHECK(d[2].key == "only");
  CHECK_FALSE(d[2].b.has_value());
}

TEST_CASE("the first step with another number is found; clocks and torn lines do not count") {
  const test::TempDir dir;
  std::ofstream(dir / "a")
      << "{\"iter\":1,\"loss\":2,\"steps_per_second\":1}\n{\"iter\":2,\"loss\":1.5,\"x\":null}\n"
         "{\"iter\":2,\"val_miou\":30,\"iou\":[1,null]}\n{\"iter\":3,\"loss\":1}\n{\"iter\":4,\"lo";
  std::ofstream(dir / "b")
      << "{\"iter\":1,\"loss\":2,\"steps_per_second\":9}\n{\"iter\":2,\"loss\":1.5,\"x\":null}\n"
         "{\"iter\":2,\"val_miou\":30,\"iou\":[1,null]}\n{\"iter\":3,\"loss\":1.25}\n{\"iter\":5,\"loss\":7}\n";
  const auto a = read_metrics(dir / "a");
  const auto b = read_metrics(dir / "b");
  CHECK(a.size() == 3);
  CHECK(std::isnan(a.at(2).at("iou.1")));
  const auto result = compare_metrics(a, b);
  CHECK(result.common_steps == 3);
  REQUIRE(result.first.has_value());
  CHECK(result.first->step == 3);
  CHECK(result.first->key == "loss");
  CHECK(result.first->a == 1);
  CHECK(result.first->b == 1.25);
  CHECK_FALSE(compare_metrics(a, a).first.has_value());
  CHECK(compare_metrics(a, {}).common_steps == 0);
  const auto last = last_values(b);
  CHECK(last.at("loss") == 7);
  CHECK(last.at("val_miou") == 30);
  CHECK_FALSE(last.contains("steps_per_second"));
  CHECK_THROWS_AS(static_cast<void>(read_metrics(dir / "none")), Error);
}

TEST_CASE("a report draws the numbers that are there, and no torn or foreign line") {
  const test::TempDir dir;
  std::ofstream(dir / "run.json") << "{\"best_miou\": 50}";
  std::ofstream(dir / "metrics.jsonl")
      << "{\"iter\":1,\"loss\":2}\n{\"iter\":2,\"loss\":null}\n{\"iter\":\"x\",\"loss\":9}\n"
         "{\"iter\":3,\"loss\":1}\n{\"iter\":4,\"lo";
  write_report(dir.path());
  const std::string page = read_file(dir / "report.html");
  CHECK(page.find("points=\"60.0,28.0 470.0,230.0 \"") !=
        std::string::npos);  // from the upper left to the lower right corner
}

TEST_SUITE_END();
