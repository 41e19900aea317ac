// Classification from pictures in folders to scores: training, distilling, scoring, and what is refused.
#include <nlohmann/json.hpp>

#include "apps/scoring.h"
#include "apps/train_run.h"
#include "core/log.h"
#include "datasets/kept.h"
#include "tests/dataset_files.h"

using namespace limbeck;
using namespace limbeck::apps;
using namespace limbeck::test;

namespace {

/// A disc, a square or a cross of its own colour, which varies, somewhere on a noisy ground.
datasets::Image shape_image(int shape, std::uint64_t seed) {
  constexpr std::int64_t kSize = 36;
  datasets::Image image = noise_image(kSize, kSize, seed);
  Generator g(seed, 5);
  const double cx = g.uniform(13, 23);
  const double cy = g.uniform(13, 23);
  const double r = g.uniform(8, 11);
  std::array<double, 3> colour{60, 60, 60};
  for (double& c : colour) c += g.uniform(0, 50);
  colour[static_cast<std::size_t>(shape)] += g.uniform(90, 140);
  for (std::int64_t y = 0; y < kSize; ++y) {
    for (std::int64_t x = 0; x < kSize; ++x) {
      const double dx = std::abs(static_cast<double>(x) - cx);
      const double dy = std::abs(static_cast<double>(y) - cy);
      const bool inside = shape == 0   ? dx * dx + dy * dy < r * r
                          : shape == 1 ? std::max(dx, dy) < r
                                       : std::min(dx, dy) < r / 3 && std::max(dx, dy) < r;
      for (std::size_t c = 0; c < 3; ++c) {
        std::uint8_t& v = image.at(y, x)[c];
        v = inside ? static_cast<std::uint8_t>(colour[c]) : static_cast<std::uint8_t>(80 + v / 4);
      }
    }
  }
  return image;
}

constexpr std::array<const char*, 3> kShapes{"circle", "square", "cross"};

/// 40 pictures per class for training, 20 for validation.
void write_shapes(const TempFolder& folder) {
  for (int shape = 0; shape < 3; ++shape) {
    for (int i = 0; i < 60; ++i) {
      const char* name = kShapes[static_cast<std::size_t>(shape)];
      write_image(folder / fmt::format("data/{}/{}/{:02}.png", i < 40 ? "train" : "val", name, i),
                  shape_image(shape, static_cast<std::uint64_t>(100 * shape + i)));
    }
  }
}

Config config_of(const TempFolder& folder, const std::string& rest) {
  return Config::parse(
      fmt::format("task: classify\n"
                  "data: {{kind: image_folder, root: {}, area: [0.6, 1], crop: 32, eval_short_side: 36, "
                  "eval_crop: 32, workers: 1, keep_in_memory: true}}\n{}",
                  (folder.path() / "data").string(), rest),
      "classify.yaml");
}

TrainOutcome run(const TempFolder& folder, const char* name, Verb verb, const Config& config) {
  const Settings settings = read_settings(config, verb);
  config.check_all_used();
  return run_training(settings, folder.path() / name, RunFolder::kNew, config.dump());
}

}  // namespace

TEST_CASE("classification: a network learns, a student is distilled from it, both are scored from their folders") {
  const TempFolder folder;
  write_shapes(folder);
  const auto trained = run(folder, "teacher", Verb::kTrain,
                           config_of(folder,
                                     "model: {name: resnet18}\n"
                                     "train: {steps: 60, batch: 16, lr: 0.02, pictures: 3, log_every: 30}\n"));
  CHECK(trained.last_score > 90);
  CHECK(std::filesystem::exists(folder.path() / "teacher/pictures/val_002.png"));
  const auto facts = nlohmann::json::parse(std::ifstream(folder.path() / "teacher/run.json"));
  CHECK(facts.at("best_top1").get<double>() == doctest::Approx(trained.best_score));
  CHECK(facts.at("validation") ==
        "centre crop 32x32, picture and labels with shorter side 36, single scale, no flip, f32");

  const Config config = config_of(
      folder,
      fmt::format(
          "model: {{name: mobilenet_v1, width: 0.25}}\n"
          "teacher: {{name: resnet18, init: {}, min_top1: 90}}\n"
          "train: {{steps: 80, batch: 16, lr: 0.05, warmup: 10, clip_norm: 5, pictures: 0, log_every: 40}}\n"
          "distill:\n  terms:\n"
          "    - {{name: ct, loss: channel_transform, reduction: mean, student: features.13, teacher: layer4}}\n"
          "    - {{name: kd, loss: pixel_kd, tau: 4}}\n",
          (folder.path() / "teacher").string()));
  const auto distilled = run(folder, "student", Verb::kDistill, config);
  CHECK(distilled.last_score > 90);

  const ScoredModel scored = score_model(folder.path() / "student", read_data(config));
  const auto json = nlohmann::json::parse(scored.json());
  CHECK(json.at("top1").get<double>() == doctest::Approx(distilled.best_score));
  CHECK(json.at("top3").get<double>() == 100);  // there are only three
  CHECK(json.at("per_class_acc").contains("cross"));
  CHECK(json.at("images") == 60);
  CHECK_CONTAINS(scored.text(), "top-1");

  // The gate, and a network for the other task.
  Config strict = config.copy();
  strict.override_with("teacher.min_top1=100");
  strict.override_with("teacher.init=" + (folder.path() / "weak").string());
  run(folder, "weak", Verb::kTrain,
      config_of(folder, "model: {name: resnet18}\ntrain: {steps: 1, batch: 4, lr: 0.0, pictures: 0}\n"));
  CHECK_CONTAINS(error_of<WeightsError>([&] { run(folder, "x", Verb::kDistill, strict); }),
                 "teacher.min_top1 asks for");
  CHECK_FALSE(std::filesystem::exists(folder.path() / "x"));
}

TEST_CASE("classification: networks and data sets of the other task are refused before anything is written") {
  const TempFolder folder;
  write_shapes(folder);
  const std::string train = "train: {steps: 1, batch: 2}\n";
  const auto refused = [&](const Config& config, Verb verb = Verb::kTrain) {
    const std::string text = error_of<ConfigError>([&] { run(folder, "x", verb, config); });
    CHECK_FALSE(std::filesystem::exists(folder.path() / "x"));
    return text;
  };
  CHECK_CONTAINS(refused(config_of(folder, "model: {name: mobilenet_v2_seg}\n" + train)), "paints masks");
  Config segment = config_of(folder, "model: {name: resnet18}\n" + train);
  segment.override_with("task=segment");
  CHECK_CONTAINS(refused(segment), "set `task: classify`");
  CHECK_CONTAINS(refused(Config::parse("{task: classify, model: {name: resnet18}, data: {kind: scenes, scene_train: 4, "
                                       "scene_val: 2}, train: {steps: 1}}",
                                       "t")),
                 "set `task: segment`");
  CHECK_CONTAINS(refused(Config::parse("{model: {name: resnet18}, data: {kind: scenes, scene_train: 8, scene_val: 2}, "
                                       "train: {steps: 1}}",
                                       "t")),
                 "classifies whole pictures");
  CHECK_CONTAINS(refused(config_of(folder, "teacher: {name: resnet18, init: x}\n" + train), Verb::kAutoencoder),
                 "expected segment");
  // Kept in memory, a data set is still what it was.
  datasets::DatasetSpec spec;
  spec.kind = "image_folder";
  spec.root = folder.path() / "data";
  CHECK(datasets::keep_in_memory(datasets::make_dataset(spec))->target() == datasets::Target::kImage);
}
