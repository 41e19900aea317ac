// The cost table and its JSON form.
#include <doctest/doctest.h>

#include <nlohmann/json.hpp>

#include "core/memory.h"
#include "models/summary.h"
#include "tests/harness/temp_dir.h"

using namespace limbeck;
using models::Summary;
using test::check_throws;

TEST_SUITE_BEGIN("summary");

TEST_CASE("totals agree with the published cost and with the sum of the rows") {
  const Summary s = models::summarize({.name = "ka_student_mobilenet_v2", .classes = 21}, {1, 3, 513, 513});
  CHECK(s.params == 2'113'557);
  CHECK(s.macs == 2'740'709'056);
  CHECK(s.outputs.size() == 1);
  CHECK(s.outputs[0] == Shape{1, 21, 33, 33});
  std::int64_t params = 0;
  std::int64_t macs = 0;
  for (const auto& layer : s.layers) {
    params += layer.params;
    macs += layer.macs;
    CHECK(!layer.name.empty());
  }
  CHECK(params == s.params);
  CHECK(macs == s.macs);
  CHECK(s.layers.front().name == "backbone.features.0.0");
  CHECK(s.layers.back().name == "classifier");
  // Two batches cost twice as much; parameters stay.
  const Summary two = models::summarize({.name = "ka_student_mobilenet_v2", .classes = 21}, {2, 3, 513, 513});
  CHECK(two.macs == 2 * s.macs);
  CHECK(two.params == s.params);
}

TEST_CASE("a summary of the largest network at Cityscapes size allocates almost nothing") {
  CpuAllocator::get().reset_peak();
  const auto before = CpuAllocator::get().stats().peak;
  const Summary s = models::summarize({.name = "deeplabv3plus_resnet101", .classes = 19}, {1, 3, 1024, 2048});
  CHECK(CpuAllocator::get().stats().peak - before < (1U << 20U));
  CHECK(s.params == 59'343'795);
}

TEST_CASE("the table has a row per layer, a total, and can be grouped") {
  const Summary s = models::summarize({.name = "resnet18", .classes = 1000}, {1, 3, 224, 224});
  const std::string text = models::summary_table(s);
  for (const char* part : {"layer1.0.conv1", "Conv2d 3x3", "[1, 64, 56, 56]", "BatchNorm2d + add + ReLU", "11,689,512",
                           "1,814,073,344", "11.69 M parameters", "1.814 GMACs"}) {
    CHECK_MESSAGE(text.find(part) != std::string::npos, part);
  }
  CHECK(static_cast<std::size_t>(std::count(text.begin(), text.end(), '\n')) == s.layers.size() + 4);
  const std::string grouped = models::summary_table(s, 1);
  CHECK(grouped.find("layer3 ") != std::string::npos);
  CHECK(grouped.find("layer3.0") == std::string::npos);
  CHECK(grouped.find("2,099,712") != std::string::npos);  // layer3: 4 convolutions, 5 batch norms, one 1x1
  CHECK(grouped.find("1,814,073,344") != std::string::npos);
  CHECK(std::count(grouped.begin(), grouped.end(), '\n') < 16);
}

TEST_CASE("the JSON form is valid and complete") {
  const Summary s =
      models::summarize({.name = "deeplabv3_resnet50", .classes = 21, .output_stride = 8, .aux = true}, {1, 3, 65, 65});
  const auto j = nlohmann::json::parse(models::summary_json(s));
  CHECK(j.at("model") == "deeplabv3_resnet50");
  CHECK(j.at("params") == 42'004'074);
  CHECK(j.at("outputs").size() == 2);
  CHECK(j.at("outputs")[1] == std::vector<int>{1, 21, 9, 9});
  CHECK(j.at("layers").size() == s.layers.size());
  CHECK(j.at("layers")[0].at("type") == "Conv2d 7x7 s2");
  CHECK(j.at("macs") == s.macs);
}

TEST_CASE("a wrong input is a configuration error") {
  check_throws<ConfigError>(
      [] {
        static_cast<void>(models::summarize({.name = "resnet18"}, {1, 1, 224, 224}));
      },
      {"[1, 1, 224, 224]"});
  check_throws<ConfigError>(
      [] {
        static_cast<void>(models::summarize({.name = "resnet"}, {1, 3, 224, 224}));
      },
      {"unknown network"});
}

TEST_SUITE_END();
