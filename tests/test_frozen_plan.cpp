// What this is: a network fixed for inference against the module it was made from.
#include <doctest/doctest.h>

#include "core/autocast.h"
#include "core/autograd.h"
#include "core/dispatch.h"
#include "core/parallel.h"
#include "models/frozen_model.h"
#include "nn/frozen_plan.h"
#include "ops/conv2d_engine.h"
#include "ops/copy.h"
#include "ops/elementwise.h"
#include "ops/interpolate.h"
#include "ops/packed_conv2d.h"
#include "ops/slice.h"
#include "tests/harness/op_case.h"
#include "tests/harness/random_network.h"
#include "tests/harness/temp_dir.h"

using namespace limbeck;

using test::capture;
using test::random_input;

TEST_CASE("every network: the plan computes what the module computes, at sizes that take turns, in less memory") {
  for (const std::string& name : models::model_names()) {
    if (name.ends_with("resnet101") || name.ends_with("resnet34") || name.ends_with("xception65"))
      continue;  // more of the same
    CAPTURE(name);
    const auto model = test::random_network(name);
    const nn::Graph graph = capture(*model);
    nn::FrozenPlan exact(graph, DType::kF32, ops::F32Math::kExact), plan(graph);
    const NoGradGuard off;
    for (const Shape& shape : {Shape{1, 3, 65, 49}, Shape{2, 3, 96, 70}, Shape{1, 3, 65, 49}}) {
      const Tensor x = random_input(shape, 5);
      const Tensor truth = model->forward(x).logits;
      const Tensor y = exact(x);
      CHECK(test::relative_error(y, truth) < 1e-3);
      CHECK(test::relative_error(plan(x), truth) < 1e-2);
      const Tensor again = exact(random_input(shape, 6));  // what was returned is not the plan's memory
      CHECK(test::relative_error(y, truth) < 1e-3);
      CHECK(test::relative_error(again, y) > 1e-3);
    }
    const auto memory = plan.memory({1, 3, 96, 96});
    // The layers of MobileNetV1 are few and narrow, so that the decoder at stride 4 sets the block.
    const std::size_t least = name == "deeplabv3plus_mobilenet_v1" ? 2 : 3;
    CHECK(memory.block * least < memory.values);
  }
}

TEST_CASE("the plan of a network that pads before its expansions") {
  const NoGradGuard off;
  for (const std::int64_t output_stride : {16, 8}) {
    const auto model = test::random_network(models::ModelSpec{.name = "deeplabv3plus_mobilenet_v2",
                                                              .classes = 5,
                                                              .output_stride = output_stride,
                                                              .width = 0.35,
                                                              .dilation = "jf",
                                                              .padding = "before_expansion"});
    const nn::Graph graph = capture(*model);
    nn::FrozenPlan exact(graph, DType::kF32, ops::F32Math::kExact), low(graph, DType::kBF16);
    for (const Shape& shape : {Shape{1, 3, 65, 49}, Shape{2, 3, 160, 130}}) {
      const Tensor x = random_input(shape, 5);
      const Tensor truth = model->forward(x).logits;
      CHECK(test::relative_error(exact(x), truth) < 1e-3);
      const AutocastGuard bf16(true);
      const double module = test::relative_error(ops::cast(model->forward(x).logits, DType::kF32), truth);
      CHECK(test::relative_error(low(x), truth) < 2 * module + 1e-3);
    }
  }
}

TEST_CASE("a plan in bf16 agrees with the module under autocast") {
  for (const char* name : {"mobilenet_v2_seg", "deeplabv3_resnet18", "pspnet_mobilenet_v2"}) {
    CAPTURE(name);
    const auto model = test::random_network(name);
    nn::FrozenPlan plan(capture(*model), DType::kBF16);
    const NoGradGuard off;
    const Tensor x = random_input({1, 3, 65, 81}, 5);
    const Tensor y = plan(x);
    CHECK(y.dtype() == DType::kF32);
    const Tensor exact = model->forward(x).logits;
    const AutocastGuard bf16(true);
    const double module = test::relative_error(ops::cast(model->forward(x).logits, DType::kF32), exact);
    CHECK(test::relative_error(y, exact) < 2 * module + 1e-3);
  }
}

TEST_CASE("a plan keeps the weights it was made from") {
  const auto model = test::random_network("mobilenet_v2_seg");
  nn::FrozenPlan plan(capture(*model));
  const Tensor x = random_input({1, 3, 33, 33}, 5);
  const NoGradGuard off;
  const Tensor before = model->forward(x).logits;
  for (const auto& p : model->named_parameters()) p.tensor.fill_(0.01);
  CHECK(test::relative_error(plan(x), before) < 1e-2);
  CHECK(test::relative_error(model->forward(x).logits, before) > 0.1);
}

TEST_CASE("taps are what the module's taps are, before and after activations, and are not the plan's memory") {
  for (const char* name : {"mobilenet_v2_seg", "deeplabv3_resnet18", "pspnet_resnet18"}) {
    CAPTURE(name);
    const auto model = test::random_network(name);
    const std::vector<std::string> taps = model->tap_names();
    REQUIRE(taps.size() > 3);
    models::FrozenModel frozen(*model, taps);
    const NoGradGuard off;
    for (const bool bf16 : {false, true}) {
      const Tensor x = random_input({2, 3, 65, 81}, 5);
      const models::Output exact = model->forward(x, taps);
      const AutocastGuard precision(bf16);
      const models::Output y = frozen(x);
      CHECK(frozen.planned());
      static_cast<void>(frozen(random_input({2, 3, 65, 81}, 6)));
      const models::Output module = model->forward(x, taps);
      const auto check = [&](const Tensor& tap, const Tensor& same, const Tensor& truth) {
        CHECK(tap.shape() == truth.shape());
        const double bound = bf16 ? 2 * test::relative_error(ops::cast(same, DType::kF32), truth) + 1e-3 : 1e-2;
        CHECK(test::relative_error(ops::cast(tap, DType::kF32), truth) < bound);
      };
      check(y.logits, module.logits, exact.logits);
      REQUIRE(y.taps.size() == taps.size());
      for (const auto& tap : taps) {
        CAPTURE(tap);
        CHECK(y.taps.at(tap).dtype() == (bf16 ? DType::kBF16 : DType::kF32));
        check(y.taps.at(tap), module.taps.at(tap), exact.taps.at(tap));
      }
    }
  }
}

TEST_CASE("a frozen model follows its weights, and leaves to the module what no plan can do") {
  const auto model = test::random_network("mobilenet_v2_seg");
  models::FrozenModel frozen(*model);
  const Tensor x = random_input({1, 3, 33, 33}, 5);
  const NoGradGuard off;
  const Tensor before = frozen(x).logits;
  for (const auto& p : model->named_parameters()) p.tensor.fill_(0.01);
  const Tensor after = frozen(x).logits;
  CHECK(frozen.planned());
  CHECK(test::relative_error(after, before) > 0.1);
  CHECK(test::relative_error(after, model->forward(x).logits) < 1e-2);

  model->train();
  static_cast<void>(frozen(x));
  CHECK_FALSE(frozen.planned());
  model->eval();
  {
    const ReferenceGuard exact;
    static_cast<void>(frozen(x));
    CHECK_FALSE(frozen.planned());
  }
  static_cast<void>(frozen(x));
  CHECK(frozen.planned());

  /// Crops its input to an even height: a size that no graph can follow.
  class Cropping final : public models::Model {
   public:
    models::Output forward(const Tensor& images, std::span<const std::string>) override {
      return {ops::relu(ops::slice(images, 2, 0, images.size(2) / 2 * 2)), {}, {}};
    }
    std::vector<std::string> tap_names() const override { return {}; }
  } cropping;
  cropping.eval();
  models::FrozenModel layers(cropping);
  CHECK(layers(x).logits.shape() == Shape{1, 3, 32, 33});
  CHECK_FALSE(layers.planned());
}

TEST_CASE("inverted residuals and separable convolutions run strip by strip, whatever stride, dilation and threads") {
  struct Case {
    std::int64_t kernel, stride, dilation, height, width;
    bool widen, residual;
  };
  for (const Case& c :
       {Case{3, 1, 1, 45, 64, true, true}, Case{3, 2, 1, 45, 61, true, false}, Case{3, 1, 2, 31, 50, true, true},
        Case{5, 1, 1, 40, 40, true, false}, Case{3, 1, 1, 97, 64, false, true}, Case{3, 2, 1, 96, 67, false, false},
        Case{3, 1, 12, 16, 16, true, false}, Case{3, 1, 1, 1, 3, true, true}}) {
    CAPTURE(c.kernel);
    CAPTURE(c.stride);
    CAPTURE(c.dilation);
    CAPTURE(c.height);
    CAPTURE(c.widen);
    Generator g(1);
    const std::int64_t wide = 200, narrow = c.widen ? 24 : wide;
    nn::Conv2d widen({.in = narrow, .out = wide, .kernel = 1}, g);
    nn::Conv2d filter({.in = wide,
                       .out = wide,
                       .kernel = c.kernel,
                       .stride = c.stride,
                       .padding = c.kernel / 2 * c.dilation,
                       .dilation = c.dilation,
                       .groups = wide},
                      g);
    nn::Conv2d back({.in = wide, .out = narrow, .kernel = 1}, g);
    for (auto* conv : {&widen, &filter, &back}) conv->eval();
    const auto forward = [&](const Tensor& x) {
      const Tensor y = c.widen ? ops::relu6(widen(x)) : x;
      const Tensor z = back(ops::relu(filter(y)));
      return c.residual ? ops::add(x, z) : z;
    };
    const NoGradGuard off;
    const Tensor x = random_input({2, narrow, c.height, c.width}, 5);
    const Tensor exact = forward(x);
    nn::FrozenPlan plan(nn::capture(forward, narrow));
    // Of the maps, only the one that is handed out exists; except in a build that does not know the matrix units it runs on.
    if (ops::amx_fits({1, 1, 1, 1}, {}) || !ops::has_matrix_units()) CHECK(plan.memory(x.shape()).block == 0);
    const int threads = max_threads();
    set_threads(1);
    const Tensor one = plan(x);
    set_threads(3);
    const Tensor three = plan(x);
    set_threads(threads);
    CHECK(test::relative_error(one, exact) < 2e-5);
    CHECK(one.to_vector<float>() == three.to_vector<float>());
    CHECK(test::relative_error(nn::FrozenPlan(nn::capture(forward, narrow), DType::kBF16)(x), exact) < 2e-2);
  }
}

TEST_CASE("a batch gives the same bits as its images, whatever the threads") {
  for (const char* name : {"mobilenet_v2_seg", "deeplabv3plus_mobilenet_v2"}) {
    CAPTURE(name);
    const auto model = test::random_network(name);
    const nn::Graph graph = capture(*model);
    const NoGradGuard off;
    const Tensor x = random_input({4, 3, 64, 48}, 5);
    const int threads = max_threads();
    for (const DType type : {DType::kF32, DType::kBF16}) {
      nn::FrozenPlan plan(graph, type);
      set_threads(1);
      const std::vector<float> together = plan(x).to_vector<float>();
      std::vector<float> one_by_one;
      for (std::int64_t n = 0; n < 4; ++n) {
        const auto y = plan(ops::slice(x, 0, n, n + 1)).to_vector<float>();
        one_by_one.insert(one_by_one.end(), y.begin(), y.end());
      }
      set_threads(2);
      const std::size_t block = plan.memory(x.shape()).block;
      nn::FrozenPlan fresh(graph, type);  // whose weights are not packed yet
      const std::vector<float> first = fresh(x).to_vector<float>();
      const std::vector<float> split = plan(x).to_vector<float>();
      const std::vector<float> three = plan(ops::slice(x, 0, 0, 3)).to_vector<float>();
      set_threads(threads);
      CHECK(together == one_by_one);
      CHECK(together == split);
      CHECK(together == first);
      CHECK(std::equal(three.begin(), three.end(), together.begin()));
      if (ops::amx_fits({1, 1, 1, 1}, {})) CHECK(block <= 2 * plan.memory({1, 3, 64, 48}).block);
    }
  }
}

TEST_CASE("steps with nothing to do do not lend out memory that is used again") {
  Generator g(1);
  nn::Conv2d a({.in = 3, .out = 3, .kernel = 3, .padding = 1}, g), b({.in = 3, .out = 3, .kernel = 3, .padding = 1}, g);
  a.eval();
  b.eval();
  const auto forward = [&](const Tensor& x) {
    const Tensor kept = ops::resize_bilinear(a(x), {40, 40}, false);  // nothing to do for an input of 40x40
    Tensor y = kept;
    for (int k = 0; k < 4; ++k) y = b(y);
    return ops::add(ops::leaky_relu(kept, 0.5), y);
  };
  nn::FrozenPlan plan(nn::capture(forward));
  const NoGradGuard off;
  for (const std::int64_t size : {40, 31}) {
    const Tensor x = random_input({1, 3, size, size}, 5);
    CHECK(test::relative_error(plan(x), forward(x)) < 5e-4);
  }
}

TEST_CASE("a packed convolution into given memory refuses what does not fit") {
  const ops::PackedConv2d conv(Tensor::full({4, 3, 1, 1}, 0.5), {}, {}, ops::Activation::kNone, DType::kF32);
  const Tensor x = random_input({1, 3, 5, 5}, 1);
  const Tensor y = Tensor::empty({1, 4, 5, 5});
  const std::uint32_t version = y.version();
  conv.run_into(x, {}, y);
  CHECK(test::relative_error(y, conv(x)) == 0.0);
  CHECK(y.version() != version);
  test::check_throws<Error>([&] { conv.run_into(x, {}, Tensor::empty({1, 4, 5, 6})); }, {"[1, 4, 5, 5]"});
  test::check_throws<Error>([&] { conv.run_into(x, {}, Tensor::empty({1, 4, 5, 5}, DType::kBF16)); }, {"f32"});
  test::check_throws<Error>([&] { conv.run_into(x, {}, {}); }, {"nothing"});
  test::check_throws<Error>([&] { nn::FrozenPlan plan(nn::Graph{}, DType::kF64); }, {"f64"});
}
