// What this is: ONNX files: written, read back, run by limbeck's kernels, compared; and files that must be refused. What ONNX Runtime
//   says about the same networks: tests/golden/check_onnx.py.
#include <doctest/doctest.h>

#include <algorithm>
#include <fstream>
#include <iterator>
#include <utility>

#include "apps/export.h"
#include "core/file_io.h"
#include "datasets/convert.h"
#include "datasets/palettes.h"
#include "datasets/scenes.h"
#include "models/frozen_model.h"
#include "nn/calibration.h"
#include "ops/elementwise.h"
#include "tests/harness/op_case.h"
#include "tests/harness/random_network.h"
#include "tests/harness/temp_dir.h"

using namespace limbeck;
using test::check_throws;

namespace {

apps::ModelCard card_of(const models::Model& model) {
  apps::ModelCard card;
  card.spec = model.spec();
  card.classes = datasets::numbered_classes(card.spec.classes);
  return card;
}

std::vector<datasets::Image> pictures(std::int64_t h, std::int64_t w) {
  return {datasets::make_scene({.seed = 3, .height = h, .width = w}, 0).image};
}

/// Random networks have pixels whose two largest scores are almost the same, so a few of some thousand may change their class.
bool agrees(const apps::Proof& p) {
  return p.pixels > 0 && p.agreement >= 0.999 && p.max_difference <= 5e-4 * p.max_logit;
}

/// The cases below are about a build with libonnx.
bool skip() {
  if (!apps::onnx_available()) MESSAGE("skipped: this build has no libonnx");
  return !apps::onnx_available();
}

}  // namespace

TEST_CASE("every network: read back, the file computes what the network computes") {
  if (skip()) return;
  const test::TempDir dir;
  for (const std::string& name : models::model_names()) {
    if (name.ends_with("resnet101") || name.ends_with("resnet34") || name.ends_with("xception65"))
      continue;  // more of the same
    CAPTURE(name);
    const auto model = test::random_network(name);
    const apps::ModelCard card = card_of(*model);
    const auto file = dir.path() / "m.onnx";
    const bool map = !models::is_classification(name);
    apps::OnnxExport what{
        .height = 64, .width = 80, .output = map ? apps::ExportOutput::kResized : apps::ExportOutput::kLogits};
    apps::export_onnx(file, *model, card, what);
    const apps::Proof fixed = apps::prove_onnx(file, *model, card, what, pictures(64, 80));
    CHECK(agrees(fixed));
    what = {.opset = 13,
            .fold = false,
            .batch = 2,
            .height = 64,
            .width = 80,
            .dynamic_size = true,
            .normalise = true,
            .output = apps::ExportOutput::kIds};
    apps::export_onnx(file, *model, card, what);
    const apps::Proof free = apps::prove_onnx(file, *model, card, what, pictures(72, 56));
    CHECK(agrees(free));
    CHECK(free.pixels == (map ? 2 * 72 * 56 : 2));
    const apps::OnnxProgram program(file);
    CHECK(program.outputs() == std::vector<std::string>{"ids"});
    CHECK(program.metadata().at("model") == name);
    CHECK(program.metadata().at("mean") == "[0.485,0.456,0.406]");
    CHECK(program.metadata().at("std") == "[0.229,0.224,0.225]");
    CHECK(program.metadata().at("class_names").find("class 4") != std::string::npos);
  }
}

TEST_CASE("a network that pads before its expansions, with free sizes") {
  if (skip()) return;
  const test::TempDir dir;
  const auto file = dir.path() / "m.onnx";
  models::ModelSpec spec{.name = "mobilenet_v2_seg", .classes = 5, .width = 0.35};
  const auto usual = test::random_network(spec);
  spec.padding = "before_expansion";
  const auto model = test::random_network(spec);
  const auto card = card_of(*model);
  for (const bool fold : {true, false}) {
    const apps::OnnxExport what{.fold = fold, .height = 64, .width = 80, .dynamic_size = true};
    apps::export_onnx(file, *model, card, what);
    CHECK(agrees(apps::prove_onnx(file, *model, card, what, pictures(72, 56))));
    CHECK(apps::OnnxProgram(file).metadata().at("padding") == "before_expansion");
    usual->load_state_dict(model->state_dict());
    CHECK(!apps::prove_onnx(file, *usual, card_of(*usual), what, pictures(72, 56)).passed());
  }
}

TEST_CASE("a network that wants blue first gets it") {
  if (skip()) return;
  const test::TempDir dir;
  const auto file = dir.path() / "m.onnx";
  const auto model = test::random_network("mobilenet_v2_seg");
  apps::ModelCard card = card_of(*model);
  card.normalisation = "bgr_mean";
  const apps::OnnxExport what{.height = 64, .width = 64, .normalise = true};
  apps::export_onnx(file, *model, card, what);
  CHECK(apps::prove_onnx(file, *model, card, what, pictures(64, 64)).passed());
  CHECK(apps::OnnxProgram(file).metadata().at("channels") == "BGR");
  card.normalisation = "symmetric";
  CHECK(!apps::prove_onnx(file, *model, card, what, pictures(64, 64)).passed());
}

TEST_CASE("a file that holds other numbers does not pass") {
  if (skip()) return;
  const test::TempDir dir;
  const auto file = dir.path() / "m.onnx";
  const auto model = test::random_network("mobilenet_v2_seg", 1);
  const auto other = test::random_network("mobilenet_v2_seg", 2);
  const apps::OnnxExport what{.height = 64, .width = 64};
  apps::export_onnx(file, *model, card_of(*model), what);
  CHECK(apps::prove_onnx(file, *model, card_of(*model), what, pictures(64, 64)).passed());
  CHECK(!apps::prove_onnx(file, *other, card_of(*model), what, pictures(64, 64)).passed());
  CHECK(!apps::Proof{}.passed());  // nothing compared is nothing proved
}

namespace {

nn::Calibration ranges_for(models::Model& model, const apps::ModelCard& card, std::int64_t h, std::int64_t w) {
  nn::Calibrator calibrator(nn::inference_graph(models::logits_graph(model)));
  const auto scaling = datasets::Normalisation::parse(card.normalisation);
  for (std::uint64_t k = 0; k < 2; ++k)
    calibrator.add(datasets::to_tensor(datasets::make_scene({.seed = 3, .height = h, .width = w}, k).image, scaling));
  return calibrator.finish();
}

}  // namespace

TEST_CASE("in 8 bits the file computes what the int8 plan computes") {
  if (skip()) return;
  const test::TempDir dir;
  const auto file = dir.path() / "m.onnx";
  // Shortcuts, dilated and depthwise convolutions, image pooling, concats, resizes of bytes.
  // A deep network of random numbers makes much of the first number that is rounded differently.
  const std::vector<std::pair<std::string, double>> networks{{"mobilenet_v2_seg", 0.5},
                                                             {"ka_student_mobilenet_v2", 0.5},
                                                             {"pspnet_mobilenet_v2", 0.5},
                                                             {"deeplabv3_resnet18", 1.0}};
  for (const auto& [name, limit] : networks) {
    CAPTURE(name);
    const auto model = test::random_network(name);
    const auto card = card_of(*model);
    const nn::Calibration ranges = ranges_for(*model, card, 64, 80);
    apps::OnnxExport what{.height = 64, .width = 80, .ranges = &ranges};
    apps::export_onnx(file, *model, card, what);
    const apps::Proof proof = apps::prove_onnx(file, *model, card, what, pictures(64, 80));
    CHECK(proof.int8);
    CHECK(proof.share_of_int8() < limit);
    if (limit < apps::kAllowedOfInt8) CHECK(proof.passed());
    CHECK(apps::OnnxProgram(file).metadata().at("precision") == "int8");
    std::string absent;
    if (const auto runtime = apps::prove_in_onnx_runtime(file, *model, card, what, pictures(64, 80), absent)) {
      CHECK(runtime->share_of_int8() < limit);
    } else {
      MESSAGE("skipped: no ONNX Runtime: ", absent);
    }
    // Free sizes, and the input scaled inside.
    what.normalise = what.dynamic_size = what.dynamic_batch = true;
    what.opset = 13;
    apps::export_onnx(file, *model, card, what);
    CHECK(apps::prove_onnx(file, *model, card, what, pictures(72, 56)).share_of_int8() < limit);
    // Filters of one convolution that count something else are found, and so are numbers in f32.
    nn::Int8Weights wrong = nn::int8_weights(models::logits_graph(*model));
    for (float& scale : std::next(wrong.begin(), 3)->second.scale) scale *= 1.5F;
    what.filters = &wrong;
    CHECK(!apps::prove_onnx(file, *model, card, what, pictures(72, 56)).passed());
    what.filters = nullptr;
    what.ranges = nullptr;
    apps::export_onnx(file, *model, card, what);
    what.ranges = &ranges;
    CHECK(!apps::prove_onnx(file, *model, card, what, pictures(72, 56)).passed());
    what.fold = false;
    check_throws<ConfigError>([&] { apps::export_onnx(file, *model, card, what); }, {"batch norm"});
  }
}

TEST_CASE("ONNX Runtime, where it is installed, says the same") {
  if (skip()) return;
  const test::TempDir dir;
  const auto file = dir.path() / "m.onnx";
  const auto model = test::random_network("mobilenet_v2_seg", 1);
  const auto other = test::random_network("mobilenet_v2_seg", 2);
  const auto card = card_of(*model);
  for (const auto output : {apps::ExportOutput::kResized, apps::ExportOutput::kIds}) {
    const apps::OnnxExport what{.batch = 2, .height = 64, .width = 80, .normalise = true, .output = output};
    apps::export_onnx(file, *model, card, what);
    std::string absent;
    const auto proof = apps::prove_in_onnx_runtime(file, *model, card, what, pictures(64, 80), absent);
    if (!proof) {
      MESSAGE("skipped: no ONNX Runtime: ", absent);
      return;
    }
    CHECK(proof->run_by.starts_with("ONNX Runtime "));
    CHECK(agrees(*proof));
    CHECK(proof->pixels == 2 * 64 * 80);
    CHECK(!apps::prove_in_onnx_runtime(file, *other, card, what, pictures(64, 80), absent)->passed());
    apps::Proof both = apps::prove_onnx(file, *model, card, what, pictures(64, 80));
    both.also(*proof);
    CHECK(agrees(both));
    CHECK(both.run_by.starts_with("limbeck, ONNX Runtime "));
  }
  write_file_atomic(file, "not a network");
  std::string absent;
  check_throws<Error>(
      [&] { static_cast<void>(apps::prove_in_onnx_runtime(file, *model, card, {}, pictures(64, 64), absent)); },
      {"m.onnx", "ONNX Runtime does not run it"});
}

TEST_CASE("what cannot be written or read says why") {
  if (skip()) return;
  const test::TempDir dir;
  const auto file = dir.path() / "m.onnx";
  const auto model = test::random_network("mobilenet_v2_seg");
  const auto card = card_of(*model);
  check_throws<ConfigError>([&] { apps::export_onnx(file, *model, card, {.opset = 12}); }, {"opset 12", "13 to 17"});
  check_throws<ConfigError>([&] { apps::export_onnx(file, *model, card, {.opset = 18}); }, {"opset 18"});
  CHECK(!std::filesystem::exists(file));
  apps::export_onnx(file, *model, card, {.height = 64, .width = 64});
  const std::string bytes = read_file(file);
  const auto damaged = [&](const std::string& text) {
    const auto path = dir.path() / "damaged.onnx";
    write_file_atomic(path, text);
    return [path] {
      const apps::OnnxProgram program(path);
      static_cast<void>(program.run(Tensor::zeros({1, 3, 64, 64}), {"logits"}));
    };
  };
  check_throws<WeightsError>(damaged(bytes.substr(0, bytes.size() / 2)), {"damaged.onnx"});
  check_throws<WeightsError>(damaged("not a network"), {"damaged.onnx"});
  check_throws<WeightsError>(damaged(""), {"damaged.onnx", "0 inputs"});
  std::string renamed = bytes;
  renamed.replace(renamed.find("\x22\x04"
                               "Conv") +
                      2,
                  4, "Conx");  // the type of a node: field 4, four letters
  check_throws<WeightsError>(damaged(renamed), {"Conx", "does not run"});
  std::string lost = bytes;
  lost.replace(lost.find("value3"), 6, "valueX");
  check_throws<WeightsError>(damaged(lost), {"damaged.onnx", "value"});
  const apps::OnnxProgram program(file);
  check_throws<WeightsError>(
      [&] {
        static_cast<void>(program.run(Tensor::zeros({1, 4, 64, 64}), {"logits"}));
      },
      {"Conv"});
  check_throws<WeightsError>(
      [&] {
        static_cast<void>(program.run(Tensor::zeros({1, 3, 64, 64}), {"scores"}));
      },
      {"'scores'"});
}
