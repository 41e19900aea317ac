// A program for tests/golden/check_onnx.py and check_weights.py: writes networks with random weights as files for other programs,
// with inputs and the outputs that limbeck computes.
//   export_zoo --list          names, one per line; the last is a network of operators that the zoo does not use
//   export_zoo NAME DIR        fixed.onnx, free.onnx, expected.safetensors; of the zoo's networks also model.pth, model.safetensors
// expected.safetensors holds fixed.x, fixed.y, free.x, free.y.
#include <fmt/core.h>

#include <cstring>
#include <filesystem>

#include "apps/export.h"
#include "core/autograd.h"
#include "core/safetensors.h"
#include "datasets/palettes.h"
#include "datasets/transforms.h"
#include "ops/concat.h"
#include "ops/elementwise.h"
#include "ops/interpolate.h"
#include "ops/pool2d.h"
#include "tests/harness/random_network.h"

using namespace limbeck;

namespace {

constexpr const char* kOperators = "operators";
const Shape kFixed{2, 3, 65, 81};
const Shape kOther{1, 3, 97, 52};

Tensor noise(const Shape& shape) {
  Generator g(11);
  const Tensor x = Tensor::empty(shape);
  fill_normal_(x, g, 0.0, 1.0);
  return x;
}

/// Everything an export may contain and the zoo does not.
Tensor all_operators(const Tensor& x) {
  const Tensor a = ops::leaky_relu(x, 0.1);
  const Tensor pooled = ops::max_pool2d(a, {.kernel = {3, 3}, .stride = {2, 2}, .padding = {1, 1}});
  const Tensor mean = ops::avg_pool2d(
      ops::tanh(a), {.kernel = {3, 3}, .stride = {2, 2}, .padding = {1, 1}, .count_include_pad = false});
  const Tensor gate = ops::sigmoid(ops::global_avg_pool2d(pooled));
  const Tensor mixed = ops::mul(ops::sub(pooled, ops::mul_scalar(mean, 0.5)), gate);
  std::vector<Tensor> parts{mixed};
  for (const std::int64_t bins : {1, 2, 3, 6}) {
    parts.push_back(ops::resize_bilinear(ops::adaptive_avg_pool2d(mixed, {bins, bins}), {mixed.size(2), mixed.size(3)},
                                         bins % 2 == 0));
  }
  const Tensor joined = ops::clamp(ops::concat(parts, 1), -0.8, 0.9);
  const Tensor wide = ops::resize_nearest(ops::pad2d(joined, {.left = 1, .right = 2, .top = 0, .bottom = 1}, 0.25),
                                          {x.size(2), x.size(3)});
  return ops::add(ops::maximum(wide, ops::neg(wide)),
                  ops::add_scalar(ops::minimum(ops::abs(wide), ops::relu6(wide)), 0.125));
}

apps::ModelCard card_of(const models::Model& model) {
  apps::ModelCard card;
  card.spec = model.spec();
  card.classes = datasets::numbered_classes(card.spec.classes);
  card.align_corners = card.spec.name.find("plus") != std::string::npos;
  return card;
}

void export_network(const std::string& name, const std::filesystem::path& out) {
  models::ModelSpec spec = test::random_network(name)->spec();
  spec.bn_eps = 1e-3;  // not torchvision's
  const auto model = test::random_network(spec);
  const apps::ModelCard card = card_of(*model);
  const bool map = !models::is_classification(name);
  apps::OnnxExport fixed{.batch = kFixed[0],
                         .height = kFixed[2],
                         .width = kFixed[3],
                         .output = map ? apps::ExportOutput::kResized : apps::ExportOutput::kLogits};
  apps::export_onnx(out / "fixed.onnx", *model, card, fixed);
  apps::OnnxExport free{.opset = 13,
                        .fold = false,
                        .height = kFixed[2],
                        .width = kFixed[3],
                        .dynamic_batch = true,
                        .dynamic_size = true,
                        .normalise = true,
                        .output = apps::ExportOutput::kLogits};
  apps::export_onnx(out / "free.onnx", *model, card, free);

  const Tensor x = noise(kFixed);
  Tensor y = model->forward(x).logits;
  if (map) y = ops::resize_bilinear(y, {x.size(2), x.size(3)}, card.align_corners);
  const Tensor bytes = ops::clamp(ops::add_scalar(ops::mul_scalar(noise(kOther), 60.0), 128.0), 0.0, 255.0);
  const auto scaling = datasets::Normalisation::parse(card.normalisation);
  const auto channels = [](const std::array<float, 3>& v) {
    return Tensor::from(std::vector<float>(v.begin(), v.end()), {1, 3, 1, 1});
  };
  const Tensor scaled = ops::add(ops::mul(bytes, channels(scaling.scale)), channels(scaling.shift));
  const std::vector<NamedTensor> expected{
      {"fixed.x", x}, {"fixed.y", y}, {"free.x", bytes}, {"free.y", model->forward(scaled).logits}};
  save_safetensors(out / "expected.safetensors", expected);
  apps::export_weights(out / "model.pth", *model, card, true);
  apps::export_weights(out / "model.safetensors", *model, card, false);
}

void export_operators(const std::filesystem::path& out) {
  const nn::Graph graph = nn::capture(all_operators);
  apps::write_onnx(out / "fixed.onnx", graph, {.input = kFixed});
  apps::write_onnx(out / "free.onnx", graph,
                   {.opset = 13, .input = kFixed, .dynamic_batch = true, .dynamic_size = true});
  const Tensor x = noise(kFixed), other = noise(kOther);
  const std::vector<NamedTensor> expected{
      {"fixed.x", x}, {"fixed.y", all_operators(x)}, {"free.x", other}, {"free.y", all_operators(other)}};
  save_safetensors(out / "expected.safetensors", expected);
}

}  // namespace

int main(int argc, char** argv) {
  try {
    if (argc == 2 && std::strcmp(argv[1], "--list") == 0) {
      for (const std::string& name : models::model_names()) fmt::print("{}\n", name);
      fmt::print("{}\n", kOperators);
      return 0;
    }
    if (argc != 3) {
      fmt::print(stderr, "usage: export_zoo --list | export_zoo NAME DIR\n");
      return 2;
    }
    const NoGradGuard off;
    if (std::strcmp(argv[1], kOperators) == 0) {
      export_operators(argv[2]);
    } else {
      export_network(argv[1], argv[2]);
    }
    return 0;
  } catch (const std::exception& e) {
    fmt::print(stderr, "export_zoo: {}\n", e.what());
    return 1;
  }
}
