// Weights in 8 bits as tensors: there and back, the network that they stand for, and what is refused.
#include "nn/int8_weights.h"

#include <doctest/doctest.h>

#include <functional>
#include <limits>
#include <string>

#include "core/autograd.h"
#include "nn/int8_plan.h"
#include "tests/harness/errors.h"
#include "tests/harness/op_case.h"
#include "tests/harness/random_network.h"

using namespace limbeck;
using test::contains;
using test::message_of;
using test::random_input;

TEST_SUITE_BEGIN("int8_weights");

namespace {

bool same(const nn::Int8Weights& a, const nn::Int8Weights& b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(), [](const auto& x, const auto& y) {
    return x.first == y.first && x.second.shape == y.second.shape && x.second.values == y.second.values &&
           x.second.scale == y.second.scale && x.second.bias == y.second.bias;
  });
}

struct Two : nn::Module {
  Two() : with({.in = 3, .out = 4, .kernel = 1}, g), without({.in = 4, .out = 4, .kernel = 1, .bias = false}, g) {
    register_module("with", with);
    register_module("without", without);
    eval();
  }
  Tensor forward(const Tensor& x, bool twice) {
    const Tensor y = without(with(x));
    return twice ? without(y) : y;
  }
  Generator g{1};
  nn::Conv2d with, without;
};

}  // namespace

TEST_CASE("filters become bytes and a scale each; what they stand for is half a step away at most") {
  const Tensor w = random_input({5, 4, 3, 3}, 1);
  for (std::int64_t i = 0; i < w.numel() / 5; ++i) w.data<float>()[i + 2 * w.numel() / 5] = 0.0F;  // a filter of zeros
  const ops::FiltersI8 f = ops::filters_i8(w, {});
  CHECK(f.bias == std::vector<float>(5, 0.0F));
  CHECK(f.scale[2] == 1.0F);
  const std::size_t size = f.values.size() / 5;
  for (std::size_t o = 0; o < 5; ++o) {
    int most = 0;
    for (std::size_t i = 0; i < size; ++i) {
      const int q = f.values[o * size + i];
      most = std::max(most, std::abs(q));
      const double off = static_cast<double>(w.data<float>()[o * size + i]) - q * static_cast<double>(f.scale[o]);
      CHECK(std::abs(off) <= 0.5000001 * static_cast<double>(f.scale[o]));
    }
    CHECK(most == (o == 2 ? 0 : 127));
  }
}

TEST_CASE("there and back: equal weights, equal bits in a plan, and a network with the rounded weights") {
  for (const char* name : {"mobilenet_v2_seg", "deeplabv3_resnet18", "pspnet_resnet18", "deeplabv3plus_mobilenet_v2"}) {
    CAPTURE(name);
    const auto model = test::random_network(name);
    const nn::Graph graph = test::capture(*model);
    const nn::Int8Weights weights = nn::int8_weights(graph);
    const nn::Int8Weights back = nn::from_state(nn::to_state(weights));
    CHECK(same(back, weights));

    const Tensor x = random_input({1, 3, 65, 49}, 4);
    nn::Calibrator calibrator(nn::inference_graph(graph));
    calibrator.add(x);
    const nn::Calibration ranges = calibrator.finish();
    const auto other = test::random_network(name, 9);
    const nn::Int8Plan plan(graph, ranges), foreign(test::capture(*other), ranges, &back);
    CHECK(foreign(x).to_vector<float>() == plan(x).to_vector<float>());

    // The same rounding, done to the folded graph.
    nn::Graph rounded = nn::inference_graph(graph);
    for (nn::GraphNode& node : rounded.nodes) {
      auto* conv = std::get_if<nn::ConvStep>(&node.step);
      if (conv == nullptr) continue;
      const ops::FiltersI8& f = weights.at(node.name);
      conv->weight = Tensor::empty(f.shape);
      const std::size_t size = f.values.size() / f.scale.size();
      for (std::size_t i = 0; i < f.values.size(); ++i)
        conv->weight.data<float>()[i] = f.scale[i / size] * static_cast<float>(f.values[i]);
    }
    const NoGradGuard off;
    nn::restore(test::capture(*other), back);
    CHECK(test::relative_error(other->forward(x).logits, nn::run(rounded, x)) < 1e-4);
  }
}

TEST_CASE(
    "a convolution with a bias of its own keeps it, one without has no place for one, one that runs twice has no name") {
  Two two;
  const Tensor x = random_input({1, 3, 5, 6}, 2);
  const NoGradGuard off;
  const nn::Graph graph = nn::capture([&](const Tensor& t) { return two.forward(t, false); });
  nn::Int8Weights weights = nn::int8_weights(graph);
  REQUIRE(weights.size() == 2);
  CHECK(weights.at("with").bias == two.with.bias().to_vector<float>());
  const Tensor before = two.forward(x, false);
  nn::restore(graph, weights);
  CHECK(test::relative_error(two.forward(x, false), before) < 0.03);
  CHECK(two.with.bias().to_vector<float>() == weights.at("with").bias);
  weights.at("without").bias[1] = 0.5F;
  CHECK(contains(message_of([&] { nn::restore(graph, weights); }), "'without.bias' is not zero"));
  const nn::Graph twice = nn::capture([&](const Tensor& t) { return two.forward(t, true); });
  CHECK(contains(message_of([&] { static_cast<void>(nn::int8_weights(twice)); }), "without runs twice"));
}

TEST_CASE("what is damaged, missing, too much or of another network is refused by name") {
  const auto model = test::random_network("mobilenet_v2_seg");
  const nn::Graph graph = test::capture(*model);
  const nn::Int8Weights weights = nn::int8_weights(graph);
  const std::string first = "backbone.features.0.0";
  const auto refused = [&](const std::function<void(nn::StateDict&)>& damage) {
    nn::StateDict state = nn::to_state(weights);
    damage(state);
    CHECK_THROWS_AS(static_cast<void>(nn::from_state(state)), WeightsError);
    return message_of([&] { static_cast<void>(nn::from_state(state)); });
  };
  constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();
  CHECK(contains(refused([&](auto& s) { s.erase(first + ".scale"); }), "'backbone.features.0.0.scale' is missing"));
  CHECK(contains(refused([&](auto& s) { s.erase(first + ".bias"); }), "'backbone.features.0.0.bias' is missing"));
  CHECK(contains(refused([&](auto& s) { s.erase(first + ".weight"); }), "'backbone.features.0.0.bias' is unexpected"));
  CHECK(
      contains(refused([&](auto& s) { s.emplace("extra.scale", Tensor::zeros({1})); }), "'extra.scale' is unexpected"));
  CHECK(contains(refused([&](auto& s) { s.emplace("step", Tensor::zeros({1})); }), "'step' is unexpected"));
  CHECK(contains(refused([&](auto& s) {
                   s.at(first + ".weight") = Tensor::zeros({16, 3, 3, 3});
                 }),
                 "is f32 [16, 3, 3, 3], expected u8"));
  CHECK(contains(refused([&](auto& s) { s.at(first + ".weight") = Tensor::full({16}, 1, DType::kU8); }), "shape [16]"));
  CHECK(contains(refused([&](auto& s) { s.at(first + ".scale") = Tensor::zeros({3}); }), "f32 [3], expected f32 [16]"));
  CHECK(contains(refused([&](auto& s) { s.at(first + ".scale").template data<float>()[2] = 0; }), "scale' holds 0"));
  CHECK(
      contains(refused([&](auto& s) { s.at(first + ".scale").template data<float>()[2] = kNaN; }), "scale' holds nan"));
  CHECK(contains(refused([&](auto& s) { s.at(first + ".bias").template data<float>()[2] = kNaN; }), "bias' holds nan"));
  CHECK(
      contains(refused([&](auto& s) { s.at(first + ".weight").template data<std::uint8_t>()[5] = 0; }), "the byte 0"));

  const auto misfit = [&](const nn::Int8Weights& w) {
    CHECK_THROWS_AS(nn::check_fit(graph, w), WeightsError);
    return message_of([&] { nn::restore(graph, w); });
  };
  nn::Int8Weights less = weights, more = weights, wide = weights;
  less.erase("classifier");
  more.emplace("head", weights.at("classifier"));
  wide.at("classifier") = weights.at(first);
  CHECK(contains(misfit(less), "'classifier.weight' is missing"));
  CHECK(contains(misfit(more), "'head.weight' is unexpected"));
  CHECK(contains(misfit(wide), "'classifier.weight' has shape [16, 3, 3, 3], expected [5, "));
  const auto classifier = test::random_network("resnet18");
  CHECK(contains(message_of([&] { static_cast<void>(nn::int8_weights(test::capture(*classifier))); }),
                 "fc has weights of its own"));
}

TEST_SUITE_END();
