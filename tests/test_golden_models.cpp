// Names, shapes and order of parameters and buffers against torchvision's (tests/golden/make_models.py).
#include <doctest/doctest.h>

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "core/file_io.h"
#include "models/zoo.h"

using namespace limbeck;

TEST_SUITE_BEGIN("golden_models");

namespace {

using nlohmann::json;

void check_entries(const json& stored, const std::vector<NamedTensor>& entries) {
  CHECK(entries.size() == stored.size());
  for (std::size_t i = 0; i < std::min(entries.size(), stored.size()); ++i) {
    CHECK(entries[i].name == stored[i][0].get<std::string>());
    const auto sizes = stored[i][1].get<std::vector<std::int64_t>>();
    CHECK_MESSAGE(entries[i].tensor.shape() == Shape{std::span(sizes)}, entries[i].name);
  }
}

void check_model(const std::string& name, std::int64_t classes, bool aux) {
  CAPTURE(name);
  static const json file = json::parse(read_file(std::string(LIMBECK_GOLDEN_DIR) + "/models.json"));
  const json& stored = file.at(name);
  const nn::ParameterDevice shapes_only(kMeta);
  Generator g(1);
  const auto model = models::make_model({.name = name, .classes = classes, .aux = aux}, g);
  check_entries(stored.at("parameters"), model->named_parameters());
  check_entries(stored.at("buffers"), model->named_buffers());
  CHECK(model->parameter_count() == stored.at("parameter_count").get<std::int64_t>());
}

}  // namespace

TEST_CASE("resnet") {
  for (const char* name : {"resnet18", "resnet34", "resnet50", "resnet101"}) check_model(name, 1000, false);
}
TEST_CASE("mobilenet_v2") { check_model("mobilenet_v2", 1000, false); }
TEST_CASE("deeplabv3_resnet50 with auxiliary head") { check_model("deeplabv3_resnet50", 21, true); }

TEST_SUITE_END();
