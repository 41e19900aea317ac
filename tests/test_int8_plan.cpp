// A network in 8 bits: ranges from histograms, and every node of a plan against the same step in floats on the same numbers.
#include "nn/int8_plan.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "core/autograd.h"
#include "core/dispatch.h"
#include "core/memory.h"
#include "core/parallel.h"
#include "ops/byte_maps.h"
#include "ops/elementwise.h"
#include "ops/interpolate.h"
#include "ops/pool2d.h"
#include "ops/reduce.h"
#include "tests/harness/errors.h"
#include "tests/harness/op_case.h"
#include "tests/harness/random_network.h"

using namespace limbeck;
using test::contains;
using test::message_of;
using test::random_input;

TEST_SUITE_BEGIN("int8_plan");

namespace {

nn::Calibration calibrated(const nn::Graph& graph, const std::vector<Shape>& shapes) {
  nn::Calibrator calibrator(nn::inference_graph(graph));
  std::uint64_t seed = 5;
  for (const Shape& shape : shapes) calibrator.add(random_input(shape, seed++));
  return calibrator.finish();
}

double mean_square_error(const std::vector<float>& values, const ops::Quantisation& q) {
  const Tensor x = Tensor::from(values, {static_cast<std::int64_t>(values.size())});
  const auto back = ops::dequantise(ops::quantise(x, q), q).to_vector<float>();
  double sum = 0;
  for (std::size_t i = 0; i < values.size(); ++i)
    sum += std::pow(static_cast<double>(values[i]) - static_cast<double>(back[i]), 2);
  return sum / static_cast<double>(values.size());
}

ops::Quantisation best_of(const std::vector<float>& values) {
  nn::Histogram histogram;
  histogram.add(values);
  return histogram.best();
}

/// The weights that 8 bits make of these.
Tensor rounded_weights(const Tensor& w) {
  const Tensor y = w.copy_as(DType::kF32);
  const std::int64_t size = y.numel() / y.size(0);
  for (std::int64_t o = 0; o < y.size(0); ++o) {
    float* row = y.data<float>() + o * size;
    double most = 0;
    for (std::int64_t i = 0; i < size; ++i) most = std::max(most, std::abs(static_cast<double>(row[i])));
    const double scale = most > 0 ? static_cast<double>(static_cast<float>(most) / 127.0F) : 1;
    for (std::int64_t i = 0; i < size; ++i)
      row[i] = static_cast<float>(std::nearbyint(static_cast<double>(row[i]) / scale) * scale);
  }
  return y;
}

/// Largest difference of two f32 tensors.
double largest_difference(const Tensor& a, const Tensor& b) {
  const auto x = a.to_vector<float>(), y = b.to_vector<float>();
  double most = 0;
  for (std::size_t i = 0; i < x.size(); ++i)
    most = std::max(most, std::abs(static_cast<double>(x[i]) - static_cast<double>(y[i])));
  return most;
}

double largest(const Tensor& a) {
  double most = 0;
  for (const float v : a.to_vector<float>()) most = std::max(most, std::abs(static_cast<double>(v)));
  return most;
}

/// Runs the plan on x, and checks every node on the very numbers that it was given.
void check_nodes(const nn::Graph& captured, const nn::Calibration& ranges, const Tensor& x) {
  const nn::Int8Plan plan(captured, ranges);
  const nn::Graph& graph = plan.graph();
  std::vector<Tensor> real(graph.nodes.size() + 1);  // what each value stands for
  real[0] = nn::byte_values(graph)[0] ? ops::dequantise(ops::quantise(x, ranges.values[0]), ranges.values[0]) : x;
  std::size_t bytes = 0;
  const Tensor y = plan(x, [&](std::size_t v, const Tensor& kept, const ops::Quantisation* how) {
    const nn::GraphNode& node = graph.nodes[v - 1];
    CAPTURE(v);
    CAPTURE(node.name);
    nn::Step step = node.step;
    if (auto* conv = std::get_if<nn::ConvStep>(&step)) conv->weight = rounded_weights(conv->weight);
    std::vector<Tensor> inputs;
    for (const nn::ValueId i : node.inputs) inputs.push_back(real[static_cast<std::size_t>(i)]);
    Shape like;
    if (const auto* resize = std::get_if<nn::ResizeStep>(&step); resize != nullptr && resize->size.like >= 0)
      like = real[static_cast<std::size_t>(resize->size.like)].shape();
    Tensor expected = nn::run_step(step, inputs, like);
    if (how == nullptr) {
      real[v] = kept;
      CHECK(largest_difference(kept, expected) <= 1e-4 * largest(expected) + 1e-6);
      return;
    }
    ++bytes;
    CHECK(kept.dtype() == DType::kU8);
    real[v] = ops::dequantise(kept, *how);
    expected = ops::clamp(expected, static_cast<double>(how->low()), static_cast<double>(how->high()));
    CHECK(largest_difference(real[v], expected) <= 0.5 * static_cast<double>(how->scale) + 1e-4 * largest(expected));
  });
  CHECK(bytes > 0);
  CHECK(y.dtype() == DType::kF32);
}

}  // namespace

TEST_CASE("a histogram finds the range with the smallest error: zero is held, zeros do not count") {
  Generator g(3);
  std::vector<float> normal, skewed, sparse;
  for (int i = 0; i < 20000; ++i) {
    const float v = static_cast<float>(test::random_normal(g, {1}).item());
    normal.push_back(v);
    skewed.push_back(v > 0 ? v : 0.1F * v);
    sparse.push_back(i % 10 == 0 ? std::abs(v) : 0.0F);
  }
  std::vector<float> tails;
  for (const float v : normal) tails.push_back(v * v * v);
  for (const auto& values : {normal, skewed, sparse, tails}) {
    const ops::Quantisation q = best_of(values);
    const double found = mean_square_error(values, q);
    const auto [low, high] = std::minmax_element(values.begin(), values.end());
    double least = 1e300;
    for (int a = 0; a <= 24; ++a) {
      for (int b = 1; b <= 24; ++b)
        least = std::min(least, mean_square_error(values, ops::quantisation_of(static_cast<double>(*low) * a / 24,
                                                                               static_cast<double>(*high) * b / 24)));
    }
    CHECK(found < 1.05 * least);
    CHECK(found <= mean_square_error(values, ops::quantisation_of(*low, *high)) * 1.01);
  }
  CHECK(best_of(sparse).zero == 0);
  CHECK(best_of({0.0F, 0.0F}) == ops::Quantisation{});
  CHECK(best_of({-3.0F, -1.0F}).zero == 255);
  CHECK(contains(message_of([] {
                   static_cast<void>(best_of({1.0F, std::numeric_limits<float>::quiet_NaN()}));
                 }),
                 "NaN"));
  CHECK(contains(message_of([] { static_cast<void>(best_of({std::numeric_limits<float>::infinity()})); }), "infinite"));

  // Piece by piece, in any order, is the same as all at once.
  nn::Histogram pieces, all, left, right;
  all.add(tails);
  const std::span<const float> s(tails);
  pieces.add(s.subspan(15000));
  pieces.add(s.subspan(0, 15000));
  left.add(s.subspan(0, 15000));
  right.add(s.subspan(15000));
  left.add(right);
  CHECK(pieces.best() == all.best());
  CHECK(left.best() == all.best());
}

TEST_CASE("every network: each node computes what the same step computes in floats on the same numbers") {
  for (const std::string& name : models::model_names()) {
    const bool more_of_the_same = name.ends_with("resnet34") || name.ends_with("resnet50") ||
                                  name.ends_with("resnet101") || name.ends_with("xception65");
    if (more_of_the_same || models::is_classification(name)) continue;
    CAPTURE(name);
    const auto model = test::random_network(name);
    const nn::Graph graph = test::capture(*model);
    const NoGradGuard off;
    check_nodes(graph, calibrated(graph, {{1, 3, 33, 33}}), random_input({1, 3, 33, 49}, 9));
  }
}

TEST_CASE("a plan is near the network, the same for any number of threads and kernel, and serves any size") {
  const auto model = test::random_network("deeplabv3_resnet18");
  const nn::Graph graph = test::capture(*model);
  const nn::Int8Plan plan(graph, calibrated(graph, {{1, 3, 65, 49}, {1, 3, 64, 64}}));
  const NoGradGuard off;
  const int threads = max_threads();
  for (const Shape& shape : {Shape{1, 3, 65, 49}, Shape{2, 3, 40, 70}, Shape{1, 3, 65, 49}}) {
    const Tensor x = random_input(shape, 11);
    const Tensor y = plan(x), exact = model->forward(x).logits;
    double signal = 0, noise = 0;
    const auto a = y.to_vector<float>(), b = exact.to_vector<float>();
    for (std::size_t i = 0; i < a.size(); ++i) {
      signal += std::pow(static_cast<double>(b[i]), 2);
      noise += std::pow(static_cast<double>(a[i]) - static_cast<double>(b[i]), 2);
    }
    CHECK(std::sqrt(noise / signal) < 0.3);
    set_threads(3);
    CHECK(plan(x).to_vector<float>() == a);
    set_threads(threads);
  }
  const Tensor x = random_input({1, 3, 33, 33}, 12);
  const nn::Graph small = test::capture(*test::random_network("mobilenet_v2_seg"));
  const nn::Int8Plan depthwise(small, calibrated(small, {{1, 3, 33, 33}}));
  const Tensor fast = depthwise(x);
  const ReferenceGuard loops;
  CHECK(depthwise(x).to_vector<float>() == fast.to_vector<float>());
}

TEST_CASE("the output may be read by a convolution, and steps without bytes get floats") {
  Generator g(1);
  nn::Conv2d a({.in = 3, .out = 8, .kernel = 3, .padding = 1}, g), b({.in = 8, .out = 8, .kernel = 1}, g);
  a.eval();
  b.eval();
  const auto forward = [&](const Tensor& x) {
    const Tensor y = ops::sigmoid(a(x));  // floats between two convolutions
    return std::vector<Tensor>{ops::mul(y, ops::global_avg_pool2d(b(y)))};
  };
  const auto one = [&](const Tensor& x) { return forward(x)[0]; };
  const nn::Graph graph = nn::capture(one);
  check_nodes(graph, calibrated(graph, {{1, 3, 9, 9}}), random_input({1, 3, 9, 11}, 5));
  nn::Graph early = nn::inference_graph(graph);
  early.output = 2;  // the sigmoid, which the second convolution reads
  nn::Calibrator calibrator(nn::inference_graph(early));
  calibrator.add(random_input({1, 3, 9, 9}, 5));
  const Tensor x = random_input({1, 3, 9, 11}, 6);
  const NoGradGuard off;
  CHECK(test::relative_error(nn::Int8Plan(early, calibrator.finish())(x), ops::sigmoid(a(x))) < 0.03);
}

TEST_CASE("steps on bytes: maximum and bilinear resize are those of floats") {
  Generator g(2);
  for (const std::int64_t channels : {1, 5, 64}) {
    const Tensor x = ops::quantise(random_input({2, channels, 9, 11}, 3), {0.02F, 128});
    const Tensor floats = x.copy_as(DType::kF32);
    for (const ops::Pool2dOptions& o :
         {ops::Pool2dOptions{}, ops::Pool2dOptions{.kernel = {3, 3}, .stride = {2, 2}, .padding = {1, 1}},
          ops::Pool2dOptions{.kernel = {3, 2}, .stride = {2, 1}, .ceil_mode = true}}) {
      const Tensor y = ops::max_pool2d_bytes(x, o);
      CHECK(y.dtype() == DType::kU8);
      CHECK(y.to_vector<float>() == ops::max_pool2d(floats, o).to_vector<float>());
    }
    for (const bool align : {false, true}) {
      for (const std::array<std::int64_t, 2> size : {std::array<std::int64_t, 2>{33, 20}, {4, 5}, {9, 11}, {1, 1}}) {
        const Tensor y = ops::resize_bilinear_bytes(x, size, align);
        CHECK(largest_difference(y.copy_as(DType::kF32), ops::resize_bilinear(floats, size, align)) <= 0.5 + 1e-4);
      }
    }
  }
  const Tensor one = Tensor::full({1, 4, 1, 1}, 77, DType::kU8);
  for (const float v : ops::resize_bilinear_bytes(one, {5, 6}, true).to_vector<float>()) CHECK(v == 77.0F);
  const Tensor f = Tensor::full({1, 4, 2, 2}, 1.0), u = Tensor::full({1, 4, 2, 2}, 1, DType::kU8);
  CHECK(contains(message_of([&] { static_cast<void>(ops::max_pool2d_bytes(f, {})); }), "expected u8"));
  CHECK(contains(message_of([&] { static_cast<void>(ops::max_pool2d_bytes(u, {.kernel = {3, 3}})); }), "does not fit"));
  CHECK(contains(message_of([&] { static_cast<void>(ops::resize_bilinear_bytes(u, {0, 3}, false)); }), "0x3"));
}

TEST_CASE("the steady state asks the system for no memory") {
  const nn::Graph graph = test::capture(*test::random_network("mobilenet_v2_seg"));
  const nn::Int8Plan plan(graph, calibrated(graph, {{1, 3, 65, 49}}));
  const Tensor x = random_input({1, 3, 65, 49}, 4);
  for (int i = 0; i < 3; ++i) static_cast<void>(plan(x));
  const auto before = CpuAllocator::get().stats().system_allocations;
  for (int i = 0; i < 5; ++i) static_cast<void>(plan(x));
  CHECK(CpuAllocator::get().stats().system_allocations == before);
}

TEST_CASE("ranges of another network, taps, no pictures, a diverged network: refused") {
  const auto model = test::random_network("mobilenet_v2_seg");
  const nn::Graph graph = test::capture(*model);
  nn::Calibration ranges = calibrated(graph, {{1, 3, 33, 33}});
  CHECK(ranges.pictures == 1);
  const nn::Graph other = test::capture(*test::random_network("deeplabv3_resnet18"));
  CHECK(contains(message_of([&] { nn::Int8Plan(other, ranges); }), "not those of this network"));
  nn::Graph tapped = graph;
  tapped.taps.push_back(3);
  CHECK(contains(message_of([&] { nn::Int8Plan(tapped, ranges); }), "1 taps"));
  ranges.values[4].scale = 0;
  CHECK(contains(message_of([&] { nn::Int8Plan(graph, ranges); }), "scale 0"));
  CHECK(contains(message_of([&] { static_cast<void>(nn::Calibrator(nn::inference_graph(graph)).finish()); }),
                 "no pictures"));
  const NoGradGuard off;
  model->named_parameters()[10].tensor.fill_(std::numeric_limits<double>::quiet_NaN());
  const std::string text = message_of([&] { static_cast<void>(calibrated(test::capture(*model), {{1, 3, 33, 33}})); });
  CHECK(contains(text, "backbone.features"));
  CHECK(contains(text, "NaN"));
}

TEST_SUITE_END();
