// The kept bf16 values of weights: always those of the weights, however these were written.
#include <doctest/doctest.h>

#include "core/autocast.h"
#include "core/autograd.h"
#include "core/cuda.h"
#include "core/rounded_copy.h"
#include "core/step_graph.h"
#include "nn/adamw.h"
#include "nn/sgd.h"
#include "ops/conv2d.h"
#include "tests/cuda/device.h"
#include "tests/harness/op_case.h"

using namespace limbeck;
using test::kGpu;
using test::no_device;

namespace {

Tensor weights(const Shape& shape, std::uint64_t seed) {
  Generator g(seed);
  Tensor w = Tensor::empty(shape);
  fill_normal_(w, g, 0.0, 1.0);
  return w.to(kGpu);
}

/// What lies in the copy now; asking does not renew it.
std::vector<double> kept(const Tensor& w) {
  const auto view = Tensor::empty(w.shape(), DType::kBF16, kGpu);
  cuda::copy_view(kGpu, {rounded_target(w), DType::kBF16, w.shape(), w.strides()}, view.view());
  return view.to_vector<double>();
}
std::vector<double> expected(const Tensor& w) { return w.detach().copy_as(DType::kBF16).to_vector<double>(); }

}  // namespace

TEST_SUITE_BEGIN("rounded_copy");

TEST_CASE("a copy is kept, and made anew at its place when the weights were written to") {
  if (no_device()) return;
  const Tensor w = weights({7, 5, 3, 3}, 1);
  CHECK(rounded_target(w) == nullptr);
  const Tensor copy = rounded_copy(w);
  CHECK(copy.dtype() == DType::kBF16);
  CHECK(copy.to_vector<double>() == expected(w));
  CHECK(rounded_copy(w).view().data == copy.view().data);
  CHECK(rounded_copy(w.detach()).view().data == copy.view().data);
  w.copy_(weights({7, 5, 3, 3}, 2));
  CHECK(copy.to_vector<double>() != expected(w));
  CHECK(rounded_copy(w).view().data == copy.view().data);
  CHECK(copy.to_vector<double>() == expected(w));
  const Tensor part = w.alias({3, 5, 3, 3}, w.strides(), 45);
  CHECK(rounded_copy(part).view().data != copy.view().data);
  CHECK(rounded_copy(part).to_vector<double>() == expected(part));
  CHECK_THROWS_WITH_AS((void)rounded_copy(copy), doctest::Contains("expected f32"), Error);
}

TEST_CASE("optimizers write it with the weights") {
  if (no_device()) return;
  const std::vector<Shape> shapes{{5}, {7, 3}, {9000}, {4, 3, 3, 3}};
  for (const bool adamw : {false, true}) {
    std::vector<Tensor> all;
    nn::ParameterGroup group;
    for (std::size_t i = 0; i < shapes.size(); ++i) {
      all.push_back(weights(shapes[i], i));
      all.back().set_requires_grad(true);
      all.back().set_grad(weights(shapes[i], i + 10));
      group.params.push_back({"p" + std::to_string(i), all.back()});
    }
    for (const std::size_t i : {0, 2, 3}) (void)rounded_copy(all[i]);
    std::unique_ptr<nn::Optimizer> optimizer;
    if (adamw) optimizer = std::make_unique<nn::AdamW>(std::vector{group});
    if (!adamw) optimizer = std::make_unique<nn::Sgd>(std::vector{group}, nn::SgdOptions{.momentum = 0.9});
    for (int step = 0; step < 2; ++step) {
      optimizer->step(0.1);
      for (const std::size_t i : {0, 2, 3}) CHECK(kept(all[i]) == expected(all[i]));
      CHECK(rounded_target(all[1]) == nullptr);
    }
  }
}

TEST_CASE("a replay reads the weights as they are, whoever has written them") {
  if (no_device() || !StepGraph::obstacle(kGpu).empty()) return;
  const NoGradGuard off;
  const AutocastGuard low;
  const Tensor x = weights({2, 6, 5, 5}, 1).copy_as(DType::kBF16);
  const Tensor w = weights({8, 6, 3, 3}, 2);
  const Tensor y = Tensor::zeros({2, 8, 3, 3}, DType::kBF16, kGpu);
  const auto work = [&] { y.copy_(ops::conv2d(x, w)); };
  const auto plain = [&] { return ops::conv2d(x, w.detach().copy()).to_vector<double>(); };
  work();
  StepGraph graph(std::make_shared<GraphMemory>(kGpu));
  REQUIRE(graph.rehearse(0, work).empty());
  REQUIRE(graph.record(1, work).empty());
  CHECK(y.to_vector<double>() == plain());
  for (std::uint64_t seed = 3; seed < 6; ++seed) {
    w.copy_(weights({8, 6, 3, 3}, seed));
    graph.replay(static_cast<std::int64_t>(seed));
    CHECK(y.to_vector<double>() == plain());
  }
}

TEST_CASE("what was recorded and not done leaves no copy that looks current") {
  if (no_device() || !StepGraph::obstacle(kGpu).empty()) return;
  const NoGradGuard off;
  const AutocastGuard low;
  const Tensor x = weights({1, 6, 5, 5}, 1).copy_as(DType::kBF16);
  const Tensor w = weights({8, 6, 3, 3}, 2);
  (void)ops::conv2d(x, w);
  w.copy_(weights({8, 6, 3, 3}, 3));
  StepGraph graph(std::make_shared<GraphMemory>(kGpu));
  const std::string why = graph.record(0, [&] {
    (void)ops::conv2d(x, w);
    StepGraph::current()->refuse("does something else");
  });
  CHECK(!why.empty());
  CHECK(rounded_copy(w).to_vector<double>() == expected(w));
}

TEST_SUITE_END();
