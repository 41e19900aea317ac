// Training on the GPU, real or emulated: a small network with every kind of layer agrees with the CPU over some steps, repeats
// bit for bit, and the state goes to a file and back.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "core/autocast.h"
#include "core/autograd.h"
#include "core/cuda.h"
#include "datasets/normalise.h"
#include "distill/distiller.h"
#include "distill/draws.h"
#include "models/zoo.h"
#include "nn/adamw.h"
#include "nn/clip.h"
#include "nn/ema.h"
#include "nn/sgd.h"
#include "ops/cross_entropy.h"
#include "ops/elementwise.h"
#include "tests/cuda/device.h"
#include "tests/cuda/tiny_training.h"
#include "tests/harness/op_case.h"

using namespace limbeck;
using test::kGpu;
using test::no_device;
using test::Outcome;

namespace {

/// One parameter per entry, with fixed numbers and gradients.
std::vector<Tensor> parameters(Device device) {
  Generator g(3);
  std::vector<Tensor> out;
  for (const Shape& shape : {Shape{5}, Shape{7, 3}, Shape{9000}, Shape{4, 3, 3, 3}}) {
    Tensor p = Tensor::empty(shape);
    fill_normal_(p, g, 0.0, 1.0);
    out.push_back(p.to(device));
    out.back().set_requires_grad(true);
  }
  return out;
}

/// The values of all parameters after three steps.
template <class Make>
std::vector<std::vector<double>> optimise(Device device, const Make& make) {
  const auto ps = parameters(device);
  std::vector<nn::ParameterGroup> groups(2);
  groups[0].weight_decay = 0.01;
  groups[1].lr_multiplier = 10;
  for (std::size_t i = 0; i < ps.size(); ++i) groups[i % 2].params.push_back({"p" + std::to_string(i), ps[i]});
  const auto optimizer = make(std::move(groups));
  Generator g(4);
  for (int step = 0; step < 3; ++step) {
    for (const Tensor& p : ps) {
      Tensor gradient = Tensor::empty(p.shape());
      fill_normal_(gradient, g, 0.0, 1.0);
      p.set_grad(gradient.to(device));
    }
    if (step == 1) ps[2].set_grad({});  // a parameter that takes no part
    optimizer->step(0.1);
  }
  std::vector<std::vector<double>> out;
  for (const Tensor& p : ps) out.push_back(p.detach().to_vector<double>());
  return out;
}

template <class Make>
void check_optimizer(const Make& make) {
  const auto cpu = optimise(kCpu, make);
  const auto gpu = optimise(kGpu, make);
  REQUIRE(cpu.size() == gpu.size());
  for (std::size_t i = 0; i < cpu.size(); ++i) {
    double worst = 0;
    for (std::size_t k = 0; k < cpu[i].size(); ++k) worst = std::max(worst, std::abs(cpu[i][k] - gpu[i][k]));
    CHECK(worst < 2e-6);
  }
  CHECK(optimise(kGpu, make) == gpu);
}

/// Distils a tiny MobileNetV2 from another one, on images with noise of this size.
Outcome train(Device device, bool bf16, int steps, double noise = 0) {
  const nn::ParameterDevice on(device);
  Generator g(1);
  const models::ModelSpec spec = test::tiny_network(0.25);
  distill::Distiller objective(models::make_model(spec, g), models::make_model(spec, g),
                               test::terms_of({test::kChannelKd, test::kPixelKd}));
  std::vector<nn::ParameterGroup> groups(1);
  groups[0].weight_decay = 1e-4;
  nn::assign_parameters(groups, objective, [](const nn::NamedTensor&) { return 0; });
  nn::Sgd optimizer(std::move(groups), {.momentum = 0.9});
  objective.train();

  Generator data(2);
  const Tensor clean = test::random_normal(data, {2, 3, 32, 32});
  Generator other(7);
  ops::add_(clean, test::random_normal(other, clean.shape()), noise);
  const Tensor images = clean.copy_as(DType::kF32).to(device);
  const Tensor labels = test::random_labels(data, {2, 32, 32}, 5).to(device);
  Outcome out;
  for (int k = 0; k < steps; ++k) {
    optimizer.zero_grad();
    distill::Objective o;
    {
      const AutocastGuard precision(bf16);
      o = objective.forward(images, labels, k, steps);
    }
    o.total.backward();
    for (const Tensor& p : optimizer.parameters()) {
      if (k > 0 || !p.grad().defined()) continue;
      const auto g = p.grad().to_vector<double>();
      out.gradients.insert(out.gradients.end(), g.begin(), g.end());
    }
    nn::clip_grad_norm_(optimizer.parameters(), 5.0);
    optimizer.step(0.002);
    out.losses.push_back(o.total.item());
  }
  out.weights = optimizer.parameters().front().detach().to_vector<double>();
  return out;
}

double distance(const std::vector<double>& a, const std::vector<double>& b) {
  REQUIRE(a.size() == b.size());
  double sum = 0;
  for (std::size_t i = 0; i < a.size(); ++i) sum += (a[i] - b[i]) * (a[i] - b[i]);
  return std::sqrt(sum);
}

double length(const std::vector<double>& a) { return distance(a, std::vector<double>(a.size(), 0.0)); }

/// Largest difference relative to 1 + |b|.
double worst(const std::vector<double>& a, const std::vector<double>& b) {
  REQUIRE(a.size() == b.size());
  double most = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    const double d = std::abs(a[i] - b[i]) / (1 + std::abs(b[i]));
    if (d > most || std::isnan(d)) most = d;  // a NaN stays: nothing is larger
  }
  return most;
}

/// Of an odd number of values; NaN counts as the largest.
double median(std::vector<double> values) {
  std::sort(values.begin(), values.end(),
            [](double a, double b) { return a < b || (std::isnan(b) && !std::isnan(a)); });
  return values[values.size() / 2];
}

}  // namespace

TEST_SUITE_BEGIN("cuda_training");

TEST_CASE("SGD and AdamW on the device are those of the CPU") {
  if (no_device()) return;
  for (const bool nesterov : {false, true}) {
    check_optimizer([=](auto groups) {
      return std::make_unique<nn::Sgd>(std::move(groups), nn::SgdOptions{.momentum = 0.9, .nesterov = nesterov});
    });
  }
  check_optimizer(
      [](auto groups) { return std::make_unique<nn::Sgd>(std::move(groups), nn::SgdOptions{.momentum = 0.0}); });
  check_optimizer([](auto groups) { return std::make_unique<nn::AdamW>(std::move(groups)); });
}

TEST_CASE("gradients clipped on the device without waiting are those of the CPU") {
  if (no_device()) return;
  for (const double most : {0.5, 1e6}) {
    const auto cpu = parameters(kCpu);
    const auto gpu = parameters(kGpu);
    for (std::size_t i = 0; i < cpu.size(); ++i) {
      cpu[i].set_grad(cpu[i].detach().copy());
      gpu[i].set_grad(gpu[i].detach().copy());
    }
    cpu[1].set_grad({});
    gpu[1].set_grad({});
    const double norm = nn::clip_grad_norm_(cpu, most);
    CHECK(nn::clip_grad_norm_on_device_(gpu, most).item() == doctest::Approx(norm).epsilon(1e-5));
    for (std::size_t i = 0; i < cpu.size(); ++i) {
      if (i != 1) CHECK(worst(gpu[i].grad().to_vector<double>(), cpu[i].grad().to_vector<double>()) <= 1e-6);
    }
  }
  const auto broken = parameters(kGpu);
  broken[0].set_grad(Tensor::full({5}, std::numeric_limits<double>::infinity(), DType::kF32, kGpu));
  CHECK_FALSE(std::isfinite(nn::clip_grad_norm_on_device_(broken, 1.0).item()));
}

TEST_CASE("distilling a small network agrees with the CPU and repeats bit for bit") {
  if (no_device()) return;
  // Note [corners]
  //   Some of ReLU6's inputs always lie within rounding of a corner, and batch norm over few pixels amplifies that: noise of 1e-7
  //   on the images moves even the reference's own gradients by 1 %, in one jump. Device and CPU can fall on two sides of
  //   it. A jump comes and goes with the images, a wrong kernel does not; hence the median over five nearly equal images.
  std::vector<double> gradients;
  std::vector<double> weights;
  std::vector<Outcome> cpu;
  std::vector<Outcome> gpu;
  for (const double noise : {0.0, 1e-6, -1e-6, 2e-6, 3e-6}) {
    cpu.push_back(train(kCpu, false, 3, noise));
    gpu.push_back(train(kGpu, false, 3, noise));
    gradients.push_back(distance(gpu.back().gradients, cpu.back().gradients) / length(cpu.back().gradients));
    weights.push_back(worst(gpu.back().weights, cpu.back().weights));
  }
  CHECK(median(gradients) < 1e-3);
  CHECK(median(weights) <= 1e-3);
  for (std::size_t k = 0; k < cpu[0].losses.size(); ++k) {
    CAPTURE(k);
    CHECK(std::abs(gpu[0].losses[k] - cpu[0].losses[k]) <= 1e-4 + 5 * std::abs(cpu[1].losses[k] - cpu[0].losses[k]));
  }
  const Outcome again = train(kGpu, false, 3);
  CHECK(again.losses == gpu[0].losses);
  CHECK(again.weights == gpu[0].weights);
}

TEST_CASE("the same in bf16 stays near f32") {
  if (no_device()) return;
  const Outcome wide = train(kCpu, false, 2);
  const Outcome low = train(kGpu, true, 2);
  CHECK(worst(low.losses, wide.losses) <= 0.05);
}

TEST_CASE("fifty steps on the device learn what fifty on the CPU learn") {
  if (no_device()) return;
  // Rounding makes single losses part (Note [corners]), and with an image that differs by 1e-6 even means of ten steps by a
  // twentieth on the CPU alone. So the medians of such means over three nearly equal images are compared.
  const auto learn = [](Device device) {
    std::vector<std::vector<double>> means(5);
    for (const double noise : {0.0, 1e-6, -1e-6}) {
      const std::vector<double> losses = train(device, false, 50, noise).losses;
      for (std::size_t i = 0; i < means.size(); ++i) {
        const auto at = losses.begin() + static_cast<std::ptrdiff_t>(10 * i);
        means[i].push_back(std::accumulate(at, at + 10, 0.0) / 10);
      }
    }
    std::vector<double> out;
    for (const auto& m : means) out.push_back(median(m));
    return out;
  };
  const std::vector<double> cpu = learn(kCpu);
  const std::vector<double> gpu = learn(kGpu);
  CHECK(cpu.back() < 0.95 * cpu.front());
  for (std::size_t i = 0; i < cpu.size(); ++i) {
    CAPTURE(i);
    CHECK(std::abs(gpu[i] - cpu[i]) <= 0.03 * cpu[i]);
  }
}

TEST_CASE("numbers drawn on the device are those of the CPU") {
  if (no_device()) return;
  Generator random(11, 5);
  random.set_offset(3);
  const Shape shape{3, 1, 17, 9};
  CHECK(distill::draw_uniform(shape, random, kGpu).to_vector<float>() ==
        distill::draw_uniform(shape, random, kCpu).to_vector<float>());
  for (const double keep : {0.0, 0.25, 1.0}) {
    const auto mask = distill::draw_mask(shape, keep, random, DType::kBF16, kGpu).to_vector<float>();
    CHECK(mask == distill::draw_mask(shape, keep, random, DType::kF32, kCpu).to_vector<float>());
    CHECK(std::accumulate(mask.begin(), mask.end(), 0.0) / static_cast<double>(mask.size()) ==
          doctest::Approx(keep).epsilon(0.2));
  }
}

TEST_CASE("pictures of bytes become the same numbers on the device and on the CPU") {
  if (no_device()) return;
  for (const auto& n : {datasets::Normalisation::imagenet(), datasets::Normalisation::bgr_mean()}) {
    for (const Shape& shape : {Shape{2, 3, 16, 24}, Shape{1, 3, 5, 7}, Shape{1, 3, 1, 1}, Shape{0, 3, 4, 4}}) {
      Generator random(4);
      std::vector<std::int64_t> levels(static_cast<std::size_t>(shape.numel()));
      for (auto& v : levels) v = static_cast<std::int64_t>(random.below(256));
      const Tensor bytes = Tensor::from(levels, shape).copy_as(DType::kU8);
      for (const DType dtype : {DType::kF32, DType::kBF16}) {
        const Tensor there = datasets::normalise(bytes.to(kGpu), n, dtype);
        CHECK(there.device() == kGpu);
        CHECK(there.to_vector<float>() == datasets::normalise(bytes, n, dtype).to_vector<float>());
      }
    }
  }
}

TEST_CASE("averages of weights on the device") {
  if (no_device()) return;
  std::vector<std::vector<double>> results;
  for (const Device device : {kCpu, kGpu}) {
    const nn::ParameterDevice on(device);
    Generator g(9);
    const auto model = models::make_model({.name = "mobilenet_v2_seg", .classes = 3, .width = 0.25}, g);
    nn::Ema ema(*model, {.decay = 0.9});
    const Tensor first = model->named_parameters().front().tensor.detach();
    first.fill_(2.0);
    ema.update();
    {
      const nn::EmaScope averages(ema);
      results.push_back(first.to_vector<double>());
    }
    CHECK(first.to_vector<double>()[0] == 2.0);
  }
  CHECK(worst(results[1], results[0]) <= 1e-6);
}

TEST_CASE("the gradient of a loss is that of the CPU with any factor, also where the graph is kept") {
  if (no_device()) return;
  Generator g(11);
  const Tensor logits = test::random_normal(g, {2, 5, 3, 4}).copy_as(DType::kF32);
  const Tensor labels = test::random_labels(g, {2, 3, 4}, 5);
  for (const double factor : {1.0, 3.0}) {
    std::vector<std::vector<double>> gradients;
    for (const Device device : {kCpu, kGpu}) {
      const Tensor x = logits.copy().to(device);
      x.set_requires_grad(true);
      const Tensor loss = ops::mul_scalar(ops::cross_entropy(x, labels.to(device)), factor);
      for (const bool kept : {true, false}) {
        x.set_grad({});
        backward(loss, {}, {.retain_graph = kept});
        gradients.push_back(x.grad().to_vector<double>());
      }
    }
    CHECK(gradients[0] == gradients[1]);
    CHECK(gradients[2] == gradients[3]);
    CHECK(worst(gradients[2], gradients[0]) <= 1e-6);
  }
}

TEST_SUITE_END();
