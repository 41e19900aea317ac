// Whole networks against PyTorch and torchvision (tests/golden/make_networks.py): ResNet-18 and MobileNetV2, batch norm
// in training mode, one pass in detail and ten steps of each optimizer.
//   f64   reference kernels: everything must agree to rounding, which pins the mathematics of the graph and the updates
//   f32   fast kernels: a rounding difference may flip a ReLU, so gradients agree to about 1 % and the losses of the
//         later steps to what PyTorch's own f32 run shows ("f32_deviation" in the file)
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "core/autograd.h"
#include "core/file_io.h"
#include "models/zoo.h"
#include "nn/optim.h"
#include "ops/cross_entropy.h"
#include "tests/harness/golden_check.h"

using namespace limbeck;
using namespace limbeck::test;

TEST_SUITE_BEGIN("golden_networks");

namespace {

using nlohmann::json;

const json& fixture() {
  static const json file = json::parse(read_file(std::string(LIMBECK_GOLDEN_DIR) + "/networks.json"));
  return file;
}

std::shared_ptr<models::Model> build(const std::string& name, std::int64_t classes, DType dtype) {
  Generator g(1);
  auto model = models::make_model({.name = name, .classes = classes, .head_dropout = 0.0}, g);
  model->convert_(dtype);
  const NoGradGuard no_grad;
  for (const auto& [key, p] : model->named_parameters())
    p.copy_(Tensor::from(golden_parameter(key, p.shape()), p.shape()));
  model->train();
  return model;
}

struct Batch {
  Tensor images, labels;
};

Batch make_batch(const json& net, DType dtype) {
  const auto sizes = net.at("shape").get<std::vector<std::int64_t>>();
  const Shape shape{std::span(sizes)};
  const auto exact = golden_uniform("input", shape.numel(), -2.0, 2.0);
  std::vector<std::int64_t> labels;
  for (const double v : golden_uniform("labels", shape[0], 0.0, net.at("classes").get<double>())) {
    labels.push_back(static_cast<std::int64_t>(std::floor(v)));
  }
  const std::vector<float> rounded(exact.begin(), exact.end());
  return {Tensor::from(rounded, shape).copy_as(dtype), Tensor::from(labels, {shape[0]})};
}

struct Tolerance {
  double logits, gradients, running;
};

void check_pass(const std::string& name, DType dtype, const Tolerance& tolerance) {
  CAPTURE(name);
  const json& net = fixture().at("networks").at(name);
  const auto model = build(name, net.at("classes").get<std::int64_t>(), dtype);
  const Batch batch = make_batch(net, dtype);
  const Tensor logits = model->forward(batch.images).logits;
  const Tensor loss = ops::cross_entropy(logits, batch.labels);
  loss.backward();
  CHECK(golden_deviation(logits.to_vector<double>(), net.at("logits").get<std::vector<double>>()) <= tolerance.logits);
  CHECK(std::abs(loss.item() - net.at("loss").get<double>()) <= tolerance.logits * net.at("loss").get<double>());
  std::map<std::string, Tensor> gradients, running;
  for (const auto& [key, p] : model->named_parameters()) {
    REQUIRE(p.grad().defined());
    gradients[key] = p.grad();
  }
  for (const auto& [key, b] : model->named_buffers()) {
    if (is_floating(b.dtype())) {
      running[key] = b;
    } else {
      CHECK(b.item() == 1);  // num_batches_tracked
    }
  }
  check_summaries(net.at("gradients"), gradients, tolerance.gradients);
  check_summaries(net.at("running"), running, tolerance.running);
  model->eval();
  const NoGradGuard no_grad;  // takes the path with batch norm folded into the convolutions
  const auto eval_logits = model->forward(batch.images).logits.to_vector<double>();
  CHECK(golden_deviation(eval_logits, net.at("eval_logits").get<std::vector<double>>()) <= tolerance.logits);
}

struct Training {
  std::vector<double> losses;
  std::shared_ptr<models::Model> model;
};

Training train(const std::string& name, const std::string& optimizer, DType dtype, int steps) {
  const json& net = fixture().at("networks").at(name);
  Training run{{}, build(name, net.at("classes").get<std::int64_t>(), dtype)};
  const Batch batch = make_batch(net, dtype);
  const bool adamw = optimizer == "adamw";
  const nn::OptimizerOptions options{
      .name = adamw ? "adamw" : "sgd", .momentum = 0.9, .nesterov = optimizer == "nesterov"};
  std::vector<nn::ParameterGroup> groups(1);
  groups[0].params = run.model->named_parameters();
  groups[0].weight_decay = adamw ? 1.0 : 0.01;
  const auto update = nn::make_optimizer(options, std::move(groups));
  for (int i = 0; i < steps; ++i) {
    update->zero_grad();
    const Tensor loss = ops::cross_entropy(run.model->forward(batch.images).logits, batch.labels);
    loss.backward();
    update->step(net.at(optimizer).at("lr").get<double>());
    run.losses.push_back(loss.item());
  }
  return run;
}

/// Distance of the parameters' projections from the stored ones, relative to how far each parameter moved in ten steps.
double final_deviation(const json& net, const std::string& optimizer, const std::string& when,
                       const models::Model& model) {
  const auto null_gradients = net.at("null_gradients").get<std::vector<std::string>>();
  double worst = 0;
  for (const auto& [key, p] : model.named_parameters()) {
    // Rounding noise decides where AdamW moves a parameter without influence.
    if (std::find(null_gradients.begin(), null_gradients.end(), key) != null_gradients.end()) continue;
    const double want = net.at(optimizer).at(when).at(key).get<double>();
    const double d =
        std::abs(golden_projection(key, p) - want) / net.at(optimizer).at("movement").at(key).get<double>();
    worst = std::max(worst, std::isfinite(d) ? d : 1e300);
  }
  return worst;
}

void check_f64_steps(const std::string& name, const std::string& optimizer) {
  CAPTURE(name);
  CAPTURE(optimizer);
  const json& net = fixture().at("networks").at(name);
  const Training run = train(name, optimizer, DType::kF64, 3);
  auto want = net.at(optimizer).at("losses").get<std::vector<double>>();
  want.resize(3);
  CHECK(golden_deviation(run.losses, want) <= 1e-9);
  CHECK(final_deviation(net, optimizer, "after_3", *run.model) <= 1e-6);
}

void check_f32_steps(const std::string& name, const std::string& optimizer) {
  CAPTURE(name);
  CAPTURE(optimizer);
  const json& net = fixture().at("networks").at(name);
  const auto want = net.at(optimizer).at("losses").get<std::vector<double>>();
  const auto rounding = net.at("f32_deviation").at(optimizer).at("losses").get<std::vector<double>>();
  const Training run = train(name, optimizer, DType::kF32, static_cast<int>(want.size()));
  double seen = 1e-5;
  for (std::size_t i = 0; i < want.size(); ++i) {
    CAPTURE(i);
    seen = std::max(seen, rounding[i]);  // once the runs have parted they may meet again by chance
    CHECK(std::abs(run.losses[i] - want[i]) <= std::max(20 * seen, 5e-4 * static_cast<double>(i)) * want[i]);
  }
}

}  // namespace

TEST_CASE("the formula agrees with the one in Python") {
  const json& f = fixture().at("formula");
  CHECK(fmt::format("{:x}", fnv1a64("a")) == f.at("fnv1a64").get<std::string>());
  CHECK(golden_uniform("a", 3, 0, 1) == f.at("a").get<std::vector<double>>());
  CHECK(golden_parameter("c.weight", {2, 1, 1, 1}) == f.at("conv").get<std::vector<float>>());
}

TEST_CASE("one pass in f64: resnet18") { check_pass("resnet18", DType::kF64, {1e-10, 1e-9, 1e-10}); }
TEST_CASE("one pass in f64: mobilenet_v2") { check_pass("mobilenet_v2", DType::kF64, {1e-10, 1e-9, 1e-10}); }
TEST_CASE("one pass in f32: resnet18") { check_pass("resnet18", DType::kF32, {1e-4, 5e-2, 1e-4}); }
TEST_CASE("one pass in f32: mobilenet_v2") { check_pass("mobilenet_v2", DType::kF32, {5e-4, 5e-2, 5e-4}); }

TEST_CASE("three steps in f64: sgd") { check_f64_steps("mobilenet_v2", "sgd"); }
TEST_CASE("three steps in f64: nesterov") { check_f64_steps("mobilenet_v2", "nesterov"); }
TEST_CASE("three steps in f64: adamw") { check_f64_steps("mobilenet_v2", "adamw"); }

TEST_CASE("ten steps in f32: resnet18") {
  for (const char* optimizer : {"sgd", "nesterov", "adamw"}) check_f32_steps("resnet18", optimizer);
}
TEST_CASE("ten steps in f32: mobilenet_v2") {
  for (const char* optimizer : {"sgd", "nesterov", "adamw"}) check_f32_steps("mobilenet_v2", optimizer);
}

TEST_SUITE_END();
