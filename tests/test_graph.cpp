// What this is: networks as graphs: captured, simplified, run, and compared with the modules they came from.
#include <doctest/doctest.h>

#include "core/autograd.h"
#include "models/zoo.h"
#include "nn/graph.h"
#include "nn/layers.h"
#include "ops/concat.h"
#include "ops/elementwise.h"
#include "ops/interpolate.h"
#include "ops/pool2d.h"
#include "ops/softmax.h"
#include "tests/harness/op_case.h"
#include "tests/harness/random_network.h"

using namespace limbeck;
using test::capture;
using test::random_input;

namespace {

template <class S>
int count(const nn::Graph& graph) {
  int n = 0;
  for (const nn::GraphNode& node : graph.nodes) n += std::holds_alternative<S>(node.step) ? 1 : 0;
  return n;
}

}  // namespace

TEST_CASE("every network: the graph, folded and fused, computes what the module computes, at any size") {
  for (const std::string& name : models::model_names()) {
    CAPTURE(name);
    const auto model = test::random_network(name);
    const nn::Graph plain = capture(*model);
    const nn::Graph folded = nn::fuse_epilogues(nn::fold_batch_norms(plain));
    CHECK(count<nn::BatchNormStep>(plain) > 10);
    CHECK(count<nn::BatchNormStep>(folded) == 0);
    CHECK(count<nn::ConvStep>(folded) == count<nn::ConvStep>(plain));
    // All networks activate behind a convolution, except that Xception also does in front of one.
    CHECK((count<nn::UnaryStep>(folded) == 0) == (name.find("xception") == std::string::npos));
    const NoGradGuard off;
    for (const Shape& shape : {Shape{1, 3, 65, 49}, Shape{2, 3, 33, 70}}) {
      const Tensor x = random_input(shape, 5);
      const Tensor y = model->forward(x).logits;
      // Two orders of the same f32 sums; a hundred layers of random weights amplify their rounding.
      const double bound = name.ends_with("resnet101") ? 5e-3 : 1e-3;
      CHECK(test::relative_error(nn::run(plain, x), y) < bound);
      CHECK(test::relative_error(nn::run(folded, x), y) < bound);
      CHECK(nn::infer_shapes(folded, shape)[static_cast<std::size_t>(folded.output)] == y.shape());
    }
  }
}

TEST_CASE("an auxiliary head and its nodes are not part of the graph of the logits") {
  const auto with = test::random_network(models::ModelSpec{.name = "deeplabv3_resnet18", .classes = 5, .aux = true});
  const auto without = test::random_network(models::ModelSpec{.name = "deeplabv3_resnet18", .classes = 5});
  CHECK(capture(*with).nodes.size() == capture(*without).nodes.size());
}

TEST_CASE("sizes: constants stay constants, sizes of maps follow the maps") {
  Generator g(1);
  nn::Conv2d conv({.in = 3, .out = 4, .kernel = 3, .stride = 2, .padding = 1}, g);
  conv.eval();
  const auto graph = nn::capture([&](const Tensor& x) {
    const Tensor small = conv(x);
    const Tensor fixed = ops::resize_bilinear(small, {7, 9}, true);
    return ops::concat({ops::resize_nearest(fixed, {small.size(2), small.size(3)}), small}, 1);
  });
  REQUIRE(graph.nodes.size() == 4);
  CHECK(std::get<nn::ResizeStep>(graph.nodes[1].step).size == nn::SizeRule{-1, {7, 9}});
  CHECK(std::get<nn::ResizeStep>(graph.nodes[2].step).size == nn::SizeRule{1, {0, 0}});
  CHECK(nn::infer_shapes(graph, {2, 3, 20, 30}).back() == Shape{2, 8, 10, 15});
}

TEST_CASE("a sum becomes a residual only where shapes agree and nobody else reads the convolution") {
  Generator g(1);
  nn::Conv2d a({.in = 3, .out = 3, .kernel = 1}, g);
  nn::Conv2d b({.in = 3, .out = 3, .kernel = 3, .padding = 1}, g);
  a.eval();
  b.eval();
  const auto nodes = [&](const std::function<Tensor(const Tensor&)>& forward) {
    const nn::Graph graph = nn::capture(forward);
    const nn::Graph fused = nn::fuse_epilogues(graph);
    const Tensor x = random_input({1, 3, 17, 19}, 2);
    CHECK(test::relative_error(nn::run(fused, x), nn::run(graph, x)) < 1e-6);
    return fused.nodes.size();
  };
  CHECK(nodes([&](const Tensor& x) { return ops::relu(ops::add(b(x), a(x))); }) == 2);
  CHECK(nodes([&](const Tensor& x) { return ops::relu6(ops::add(a(x), x)); }) == 1);
  CHECK(nodes([&](const Tensor& x) { return ops::add(a(x), ops::global_avg_pool2d(x)); }) ==
        3);  // repeated over the map
  CHECK(nodes([&](const Tensor& x) {
          const Tensor y = a(x);
          return ops::mul(ops::relu(y), y);
        }) == 3);  // y itself is needed
  CHECK(nodes([&](const Tensor& x) {
          const Tensor y = a(x);  // computed before its partner is
          const Tensor z = ops::leaky_relu(b(x), 0.1);
          return ops::add(y, z);
        }) == 3);
}

TEST_CASE("what cannot be a graph says why") {
  const auto message = [](const std::function<Tensor(const Tensor&)>& forward) {
    try {
      static_cast<void>(nn::capture(forward));
    } catch (const Error& e) {
      return std::string(e.what());
    }
    return std::string();
  };
  CHECK(message([](const Tensor& x) { return ops::relu(ops::relu(ops::softmax(x))); }).find("'relu'") !=
        std::string::npos);
  CHECK(message([](const Tensor& x) {
          return ops::resize_nearest(x, {x.size(2) / 3, 5});
        }).find("neither fixed") != std::string::npos);
  CHECK(message([](const Tensor& x) {
          return x.size(2) > 300 ? ops::relu(ops::relu(x)) : ops::relu(x);
        }).find("same ops") != std::string::npos);
  nn::BatchNorm2d bn(3);
  CHECK(message([&](const Tensor& x) { return bn(x); }).find("training mode") != std::string::npos);
}
