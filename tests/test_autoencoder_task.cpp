// The task of the verb `autoencoder`: statistics of the reconstruction, the tie to the teacher, and that it learns.
#include <doctest/doctest.h>

#include <cmath>

#include "apps/autoencoder_task.h"
#include "apps/heat_map.h"
#include "apps/train_run.h"
#include "core/rng.h"
#include "distill/teacher_code.h"
#include "models/zoo.h"
#include "nn/optim.h"
#include "ops/copy.h"
#include "tests/harness/op_case.h"
#include "tests/harness/temp_dir.h"

using namespace limbeck;
using namespace limbeck::apps;
using limbeck::test::check_throws;

TEST_SUITE_BEGIN("autoencoder_task");

namespace {

Settings tiny_settings() {
  Settings s;
  s.verb = Verb::kAutoencoder;
  s.model.spec = {.name = "mobilenet_v2_seg", .output_stride = 16, .width = 0.1};
  s.autoencoder.code = 16;
  s.data.val.kind = "scenes";
  s.data.val.split = "val";
  s.data.val.samples = 2;
  s.data.val.height = 48;
  s.data.val.width = 64;
  s.data.transform.normalisation = parse_normalisation("imagenet");
  s.train.pictures = 1;
  return s;
}

std::shared_ptr<models::Model> tiny_teacher(std::uint64_t seed) {
  Generator g(seed);
  auto teacher =
      models::make_model({.name = "deeplabv3_mobilenet_v2", .classes = 11, .output_stride = 8, .width = 0.25}, g);
  teacher->eval();
  return teacher;
}

}  // namespace

TEST_CASE("reconstruction statistics against numbers worked out by hand") {
  // Two channels with the means 2 and 10 and the variances 1 and 4.
  const Tensor map = Tensor::from(std::vector<float>{1, 3, 8, 12}, {1, 2, 1, 2});
  const Tensor restored = Tensor::from(std::vector<float>{1, 2, 8, 9}, {1, 2, 1, 2});
  const Tensor code = Tensor::from(std::vector<float>{0, 2, 0, 0}, {1, 4, 1, 1});
  ReconstructionStats stats;
  stats.add(map, restored, code);
  CHECK(stats.error() == doctest::Approx(10.0 / 4));
  CHECK(stats.relative_error() == doctest::Approx(10.0 / (2 * 1 + 2 * 4)));
  CHECK(stats.zeros() == doctest::Approx(0.75));
  stats.add(map, map, code);  // a perfect second map halves both errors
  CHECK(stats.error() == doctest::Approx(10.0 / 8));
  CHECK(stats.relative_error() == doctest::Approx(0.5));
  // The channel means alone leave all of the variance.
  ReconstructionStats means;
  means.add(map, Tensor::from(std::vector<float>{2, 2, 10, 10}, {1, 2, 1, 2}), code);
  CHECK(means.relative_error() == doctest::Approx(1.0));
}

TEST_CASE("a heat map runs from dark to light") {
  const Tensor map = Tensor::from(std::vector<float>{0, 0, 3, 3, 4, 4, 0, 0}, {1, 4, 1, 2});
  const Tensor energy = channel_energy(map);
  CHECK(energy.shape() == Shape{1, 1, 1, 2});
  CHECK(energy.to_vector<float>()[0] == doctest::Approx(2.5F));  // sqrt((0 + 9 + 16 + 0) / 4)
  const Tensor ramp = Tensor::from(std::vector<float>{0, 1, 2, 5}, {1, 1, 1, 4});
  const datasets::Image image = heat_map(ramp, 2.0, 1, 4);
  const auto light = [&](std::int64_t x) { return image.at(0, x)[0] + image.at(0, x)[1] + image.at(0, x)[2]; };
  CHECK(light(0) < light(1));
  CHECK(light(1) < light(2));
  CHECK(light(2) == light(3));  // above the largest value
}

TEST_CASE("strides come from the taps, or from the settings") {
  Settings s = tiny_settings();
  const auto teacher = tiny_teacher(1);
  CHECK(build_autoencoder(s, *teacher)->options().strides == std::array<std::int64_t, 3>{2, 1, 1});  // 16 behind 8
  CHECK(build_autoencoder(s, *teacher)->options().code_channels() == 16);
  s.autoencoder.strides = {2, 2, 1};
  CHECK(build_autoencoder(s, *teacher)->options().strides == std::array<std::int64_t, 3>{2, 2, 1});
  s.autoencoder.strides = {};
  s.autoencoder.released_code = true;
  CHECK(build_autoencoder(s, *teacher)->options().strides == std::array<std::int64_t, 3>{1, 1, 1});
  s.autoencoder.tap = "asp";
  check_throws<ConfigError>([&] { static_cast<void>(build_autoencoder(s, *teacher)); },
                            {"no tap 'asp'", "did you mean 'aspp'", "head"});
  s = tiny_settings();
  s.model.spec.name.clear();
  check_throws<ConfigError>([&] { static_cast<void>(build_autoencoder(s, *teacher)); }, {"autoencoder.strides"});
}

TEST_CASE("the autoencoder learns, the teacher does not, and the file names its teacher") {
  const Settings s = tiny_settings();
  const auto teacher = tiny_teacher(1);
  const std::string before = distill::teacher_fingerprint(*teacher);
  AutoencoderTask task(s, teacher, build_autoencoder(s, *teacher), datasets::make_dataset(s.data.val));
  Generator g(5);
  const Tensor images = ops::cast(test::random_normal(g, {2, 3, 48, 64}), DType::kF32);
  std::vector<nn::ParameterGroup> groups(1);
  groups[0].params = task.trained().named_parameters();
  const auto optimizer = nn::make_optimizer({.name = "sgd", .momentum = 0.9}, std::move(groups));
  double first = 0;
  double last = 0;
  for (int step = 0; step < 12; ++step) {
    optimizer->zero_grad();
    const auto objective = task.forward(images, {}, step, 12);
    REQUIRE(objective.terms.size() == 1);
    last = objective.total.item();
    if (step == 0) first = last;
    objective.total.backward();
    optimizer->step(0.05);
  }
  CHECK(last < 0.7 * first);
  CHECK(distill::teacher_fingerprint(*teacher) == before);

  const test::TempDir folder;
  const Score score = task.validate(folder.path());
  CHECK(std::isfinite(score.value));
  CHECK(score.value <= 100);
  CHECK(score.summary.find("of the code is zero") != std::string::npos);
  CHECK(std::filesystem::exists(folder.path() / "val_000.png"));

  models::save_autoencoder(dynamic_cast<models::Autoencoder&>(task.result()), folder.path() / "ae.safetensors",
                           task.metadata());
  const auto code = distill::load_teacher_code(folder.path() / "ae.safetensors", *teacher);
  CHECK(code->tap == "aspp");
  check_throws<WeightsError>(
      [&] { static_cast<void>(distill::load_teacher_code(folder.path() / "ae.safetensors", *tiny_teacher(2))); },
      {"from another teacher"});
}

TEST_SUITE_END();
