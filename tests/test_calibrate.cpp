// Ranges in weight files, the fast way in 8 bits from such a file, and what `calibrate` reports.
#include "apps/calibrate.h"

#include <doctest/doctest.h>

#include <string>

#include "apps/evaluate.h"
#include "apps/limbeck_c.h"
#include "core/safetensors.h"
#include "datasets/palettes.h"
#include "datasets/scenes.h"
#include "models/weights.h"
#include "tests/harness/errors.h"
#include "tests/harness/random_network.h"
#include "tests/harness/temp_dir.h"

using namespace limbeck;
using test::contains;
using test::message_of;

TEST_SUITE_BEGIN("calibrate");

namespace {

apps::Pictures scenes(std::size_t count) {
  return {"scenes", count,
          [](std::size_t i) { return datasets::make_scene({.seed = 4, .height = 48, .width = 56}, i); }, true};
}

apps::ModelCard card_of(const models::Model& model) {
  apps::ModelCard card;
  card.spec = model.spec();
  card.classes = datasets::numbered_classes(card.spec.classes);
  return card;
}

apps::InferenceOptions scaled() {
  apps::InferenceOptions options;
  options.normalisation = datasets::Normalisation::imagenet();
  return options;
}

std::string saved(const test::TempDir& dir, const models::Model& model, const std::string& entry) {
  auto metadata = apps::to_metadata(card_of(model));
  if (!entry.empty()) metadata["int8"] = entry;
  const auto path = dir.path() / "network.safetensors";
  models::save_weights(model, path, metadata);
  return path.string();
}

models::ModelSpec eleven() { return {.name = "mobilenet_v2_seg", .classes = 11, .width = 0.35}; }

/// What the C interface makes of a picture of 56x48.
std::vector<std::uint8_t> ids_in_c(const std::string& path, const datasets::Image& image) {
  limbeck_model* handle = nullptr;
  REQUIRE(limbeck_load(path.c_str(), &handle) == LIMBECK_OK);
  std::vector<std::uint8_t> ids(48 * 56);
  CHECK(limbeck_segment(handle, image.rgb.data(), image.rgb.size(), 48, 56, ids.data(), ids.size()) == LIMBECK_OK);
  limbeck_free(handle);
  return ids;
}

}  // namespace

TEST_CASE("ranges survive being written, and a file with them computes in 8 bits, in C too") {
  const test::TempDir dir;
  const auto model = test::random_network(eleven());
  const nn::Calibration ranges = apps::find_ranges(*model, scenes(3), scaled());
  CHECK(ranges.pictures == 3);
  const std::string path = saved(dir, *model, apps::to_json(ranges));
  const apps::LoadedModel loaded = apps::load_model(path);
  REQUIRE(loaded.ranges.has_value());
  CHECK(loaded.ranges->values == ranges.values);
  CHECK(loaded.ranges->checksum == ranges.checksum);
  CHECK(loaded.ranges->pictures == 3);

  const datasets::Image image = scenes(1).load(0).image;
  const auto mask = apps::predict_mask(apps::network_of(loaded, apps::Precision::kInt8), image, scaled());
  CHECK(mask == apps::predict_mask(apps::frozen_int8(*model, ranges), image, scaled()));
  CHECK(ids_in_c(path, image) == mask.ids);
  // Other precisions do not see the ranges, and neither does who only wants the weights.
  CHECK(apps::predict_mask(apps::network_of(loaded, apps::Precision::kF32), image, scaled()) ==
        apps::predict_mask(apps::frozen(*model), image, scaled()));
  const auto fresh = test::random_network(eleven(), 8);
  CHECK_NOTHROW(models::load_weights(*fresh, path));
}

TEST_CASE("a file with weights in 8 bits: a third of the size, the same masks, in C too; training refuses it") {
  const test::TempDir dir;
  const auto model = test::random_network(eleven());
  const nn::Calibration ranges = apps::find_ranges(*model, scenes(2), scaled());
  const std::string plain = saved(dir, *model, apps::to_json(ranges));
  auto metadata = apps::to_metadata(card_of(*model));
  metadata["int8"] = apps::to_json(ranges);
  const std::string path = (dir / "bytes.safetensors").string();
  apps::save_int8(*model, path, metadata);
  CHECK(std::filesystem::file_size(path) < 0.4 * static_cast<double>(std::filesystem::file_size(plain)));

  const apps::LoadedModel loaded = apps::load_model(path);
  REQUIRE(loaded.bytes.has_value());
  const datasets::Image image = scenes(1).load(0).image;
  const auto mask = apps::predict_mask(apps::network_of(loaded, apps::Precision::kInt8), image, scaled());
  CHECK(mask == apps::predict_mask(apps::network_of(apps::load_model(plain), apps::Precision::kInt8), image, scaled()));
  CHECK(ids_in_c(path, image) == mask.ids);
  // In f32 it computes with what the bytes stand for.
  const auto fresh = test::random_network(eleven(), 8);
  nn::restore(test::capture(*fresh), *loaded.bytes);
  CHECK(apps::predict_mask(apps::network_of(loaded, apps::Precision::kF32), image, scaled()) ==
        apps::predict_mask(apps::frozen(*fresh), image, scaled()));
  CHECK(contains(message_of([&] { static_cast<void>(models::load_weights(*fresh, path)); }),
                 "bytes.safetensors: its weights are in 8 bits"));

  // Metadata that describe another network, and damaged tensors: one error that names file and tensor.
  const auto refused = [&](const std::map<std::string, std::string>& entries, const auto& damage) {
    SafetensorsFile file = load_safetensors(path);
    std::vector<NamedTensor> tensors;
    for (auto& e : file.entries) tensors.push_back({e.name, e.tensor});
    damage(tensors);
    const std::string bad = (dir / "bad.safetensors").string();
    for (const auto& [key, value] : entries) file.metadata[key] = value;
    save_safetensors(bad, tensors, file.metadata);
    CHECK_THROWS_AS(static_cast<void>(apps::load_model(bad)), WeightsError);
    const std::string text = message_of([&] { static_cast<void>(apps::load_model(bad)); });
    CHECK(contains(text, "bad.safetensors"));
    return text;
  };
  const auto nothing = [](std::vector<NamedTensor>&) {};
  CHECK(contains(refused({{"width", "64"}}, nothing), "'backbone.features.0.0.weight' has shape [16, 3, 3, 3]"));
  CHECK(contains(refused({{"model", "deeplabv3_resnet101"}, {"width", "1"}, {"width_divisor", "8"}}, nothing),
                 "missing"));
  CHECK(contains(refused({}, [](auto& t) { t.erase(t.begin()); }), "is missing"));
  CHECK(contains(refused({}, [](auto& t) { t.push_back({"more", Tensor::zeros({1})}); }), "'more' is unexpected"));
  // A network with weights besides convolutions does not become bytes.
  const auto classifier = test::random_network("resnet18");
  CHECK(contains(message_of([&] { apps::save_int8(*classifier, dir / "x.safetensors", {}); }), "weights of its own"));
}

TEST_CASE("without ranges, with damaged ones or those of another network: one error that names the file") {
  const test::TempDir dir;
  const auto model = test::random_network(eleven());
  const apps::LoadedModel bare = apps::load_model(saved(dir, *model, ""));
  CHECK_FALSE(bare.ranges.has_value());
  const std::string text = message_of([&] { static_cast<void>(apps::network_of(bare, apps::Precision::kInt8)); });
  CHECK(contains(text, "network.safetensors"));
  CHECK(contains(text, "limbeck calibrate"));
  const auto refused = [&](const std::string& entry) {
    const std::string path = saved(dir, *model, entry);
    CHECK_THROWS_AS(static_cast<void>(apps::load_model(path)), WeightsError);
    return message_of([&] { static_cast<void>(apps::load_model(path)); });
  };
  CHECK(contains(refused("{"), "metadata 'int8' is malformed"));
  CHECK(contains(refused("[]"), "malformed"));
  CHECK(contains(refused(R"({"version":2})"), "version 2"));
  CHECK(contains(refused(R"({"version":1,"pictures":3,"graph":1,"scale":[1,2],"zero":[0]})"), "2 scales and 1 zeros"));
  CHECK(contains(refused(R"({"version":1,"pictures":3,"graph":1,"scale":[-1],"zero":[0]})"), "scale -1"));
  CHECK(contains(refused(R"({"version":1,"pictures":3,"graph":1,"scale":[1],"zero":[256]})"), "zero 256"));
  CHECK(contains(refused(R"({"version":1,"pictures":3,"graph":1,"scale":["a"],"zero":[0]})"), "malformed"));
  const auto other = test::random_network("deeplabv3_resnet18");
  const nn::Calibration foreign = apps::find_ranges(*other, scenes(1), scaled());
  const apps::LoadedModel mixed = apps::load_model(saved(dir, *model, apps::to_json(foreign)));
  CHECK_THROWS_AS(static_cast<void>(apps::network_of(mixed, apps::Precision::kInt8)), WeightsError);
  CHECK(contains(message_of([&] { static_cast<void>(apps::network_of(mixed, apps::Precision::kInt8)); }),
                 "not those of this network"));
}

TEST_CASE("the report: scores as evaluate() gives them, agreement with f32, an error for every convolution") {
  const test::TempDir dir;
  const auto model = test::random_network(eleven());
  const nn::Calibration ranges = apps::find_ranges(*model, scenes(2), scaled());
  const apps::LoadedModel loaded = apps::load_model(saved(dir, *model, apps::to_json(ranges)));
  const auto scores = apps::compare_precisions(loaded, scenes(3), scaled());
  REQUIRE(scores.size() == 3);
  CHECK(scores[0].agreement == 1.0);
  for (const apps::PrecisionScore& s : scores) {
    datasets::ConfusionMatrix matrix(11);
    double same = 0;
    for (std::size_t i = 0; i < 3; ++i) {
      const datasets::Sample sample = scenes(3).load(i);
      apps::InferenceOptions options = scaled();
      options.precision = s.precision;
      const auto mask = apps::predict_mask(apps::network_of(loaded, s.precision), sample.image, options);
      const auto exact = apps::predict_mask(apps::network_of(loaded, apps::Precision::kF32), sample.image, scaled());
      for (std::size_t k = 0; k < mask.ids.size(); ++k) same += mask.ids[k] == exact.ids[k] ? 1 : 0;
      matrix.update(sample.mask, mask);
    }
    CHECK(s.metrics.miou == matrix.compute().miou);
    CHECK(s.agreement == doctest::Approx(same / (3 * 48 * 56)));
  }
  const auto errors = apps::layer_errors(*model, ranges, scenes(2), scaled());
  const auto graph = nn::inference_graph(test::capture(*model));
  std::size_t convolutions = 0;
  for (const auto& node : graph.nodes) convolutions += std::holds_alternative<nn::ConvStep>(node.step) ? 1 : 0;
  REQUIRE(errors.size() == convolutions);
  CHECK(errors.front().name == "backbone.features.0.0");
  CHECK(errors.front().what == "conv2d 3x3 3->16");
  CHECK(errors.front().error > 1e-4);  // rounding
  CHECK(errors.front().error < 0.03);
  CHECK(errors.back().name == "classifier");
}

TEST_CASE("pictures are spread evenly") {
  const apps::Pictures some = apps::spread(scenes(10), 4);
  CHECK(some.count == 4);
  for (std::size_t i = 0; i < 4; ++i) CHECK(some.load(i).image == scenes(10).load(i * 10 / 4).image);
  CHECK(apps::spread(scenes(3), 64).count == 3);
}

TEST_CASE("precisions by name") {
  CHECK(apps::parse_precision("int8", "x") == apps::Precision::kInt8);
  CHECK_THROWS_AS(static_cast<void>(apps::parse_precision("int4", "--precision")), ConfigError);
  CHECK(contains(message_of([] { static_cast<void>(apps::parse_precision("int4", "--precision")); }),
                 "f32, bf16 or int8"));
}

TEST_SUITE_END();
