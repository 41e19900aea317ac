// Modules that torchvision does not have against PyTorch (tests/golden/make_modules.py): output, every gradient, buffers
// after the pass, and the output of an eval pass; the gradient penalty, which needs a second derivative. f64 must agree to rounding, f32 to a tolerance of its type.
#include <doctest/doctest.h>

#include <functional>
#include <memory>

#include "core/autograd.h"
#include "core/file_io.h"
#include "distill/gradient_penalty.h"
#include "models/discriminator.h"
#include "tests/harness/golden_check.h"

using namespace limbeck;
using namespace limbeck::test;

TEST_SUITE_BEGIN("golden_modules");

namespace {

using nlohmann::json;

const json& fixture(std::string_view name) {
  static const json file = json::parse(read_file(std::string(LIMBECK_GOLDEN_DIR) + "/modules.json"));
  return file.at(std::string(name));
}

Tensor values_of(const std::string& name, const Shape& shape, double low, double high) {
  return Tensor::from(golden_uniform(name, shape.numel(), low, high), shape);
}

/// What fill() of the script does.
void fill(nn::Module& module) {
  const NoGradGuard off;
  for (const auto& [key, p] : module.named_parameters())
    p.copy_(Tensor::from(golden_parameter(key, p.shape()), p.shape()));
  for (const auto& [key, b] : module.named_buffers()) {
    if (key.ends_with("running_mean")) b.copy_(values_of(key, b.shape(), -0.2, 0.2));
    if (key.ends_with("running_var")) b.copy_(values_of(key, b.shape(), 0.5, 1.5));
    if (key.ends_with("weight_u") || key.ends_with("weight_v")) b.copy_(values_of(key, b.shape(), -1.0, 1.0));
  }
}

Shape shape_of(const json& list) {
  const auto sizes = list.get<std::vector<std::int64_t>>();
  return Shape{std::span(sizes)};
}

using Forward = std::function<Tensor(const Tensor&)>;

struct Tolerance {
  double output, gradients;
};

void check_module(const std::string& name, nn::Module& module, const Forward& forward, bool training, DType dtype,
                  const Tolerance& tolerance) {
  CAPTURE(name);
  const json& stored = fixture(name);
  module.convert_(dtype);
  fill(module);
  module.train(training);
  const Shape shape = shape_of(stored.at("shape"));
  const auto exact = golden_uniform("input", shape.numel(), -2.0, 2.0);
  const Tensor x = Tensor::from(std::vector<float>(exact.begin(), exact.end()), shape).copy_as(dtype);
  x.set_requires_grad(true);
  const Tensor y = forward(x);
  REQUIRE(y.shape() == shape_of(stored.at("output_shape")));
  backward(y, values_of("seed", y.shape(), -1.0, 1.0).copy_as(dtype));
  check_summaries({{"output", stored.at("output")}}, {{"output", y}}, tolerance.output);
  std::map<std::string, Tensor> gradients{{"input", x.grad()}};
  for (const auto& [key, p] : module.named_parameters()) {
    REQUIRE_MESSAGE(p.grad().defined(), key);
    gradients[key] = p.grad();
  }
  check_summaries(stored.at("gradients"), gradients, tolerance.gradients);
  std::map<std::string, Tensor> buffers;
  for (const auto& [key, b] : module.named_buffers()) {
    if (is_floating(b.dtype())) buffers[key] = b;
  }
  check_summaries(stored.at("buffers"), buffers, tolerance.output);
  module.eval();
  const NoGradGuard off;
  check_summaries({{"eval", stored.at("eval")}}, {{"eval", forward(x)}}, tolerance.output);
}

template <class M, class... Args>
void check_unary(const std::string& name, bool training, const Tolerance& f32, Args... args) {
  for (const DType dtype : {DType::kF64, DType::kF32}) {
    INFO("type ", std::string(name_of(dtype)));
    Generator g(1);
    M module(args..., g);
    check_module(
        name, module, [&](const Tensor& x) { return module(x); }, training, dtype,
        dtype == DType::kF64 ? Tolerance{1e-10, 1e-9} : f32);
  }
}

}  // namespace

TEST_CASE("a convolution with spectral norm") {
  check_unary<nn::SpectralNormConv2d>("spectral_norm", true, {1e-5, 1e-4},
                                      nn::ConvArgs{.in = 5, .out = 6, .kernel = 4, .stride = 2, .padding = 1});
}

TEST_CASE("self-attention") {
  check_unary<models::SelfAttention>("self_attention", true, {1e-5, 1e-4}, std::int64_t{16});
}

TEST_CASE("discriminator") { check_unary<models::Discriminator>("discriminator", true, {1e-4, 2e-2}, std::int64_t{5}); }

TEST_CASE("gradient penalty of the discriminator: PyTorch's double backward") {
  const json& stored = fixture("gradient_penalty");
  const Shape shape = shape_of(stored.at("shape"));
  for (const DType dtype : {DType::kF64, DType::kF32}) {
    INFO("type ", std::string(name_of(dtype)));
    Generator g(1);
    models::Discriminator module(shape[1], g);
    module.convert_(dtype);
    fill(module);
    const auto exact = golden_uniform("input", shape.numel(), -2.0, 2.0);
    const Tensor x = Tensor::from(std::vector<float>(exact.begin(), exact.end()), shape).copy_as(dtype);
    const double penalty = distill::add_gradient_penalty(module, x, 1.0).item();
    const double expected = stored.at("penalty").get<double>();
    CHECK(std::abs(penalty - expected) <= (dtype == DType::kF64 ? 1e-10 : 1e-4) * expected);
    std::map<std::string, Tensor> gradients;
    for (const auto& [key, p] : module.named_parameters()) {
      CHECK(p.requires_grad());
      if (key == "last.0.bias") {
        CHECK(!p.grad().defined());  // it moves the scores, not their slope
        continue;
      }
      REQUIRE_MESSAGE(p.grad().defined(), key);
      gradients[key] = p.grad();
    }
    check_summaries(stored.at("gradients"), gradients, dtype == DType::kF64 ? 1e-9 : 2e-2);
    std::map<std::string, Tensor> buffers;
    for (const auto& [key, b] : module.named_buffers()) {
      if (is_floating(b.dtype())) buffers[key] = b;
    }
    check_summaries(stored.at("buffers"), buffers, dtype == DType::kF64 ? 1e-10 : 1e-4);
    // Added to what is there, with its weight.
    const Tensor last = module.parameters().at(module.parameters().size() - 2);
    const Tensor once = last.grad().copy();
    fill(module);
    distill::add_gradient_penalty(module, x, 2.0);
    CHECK(golden_norm(last.grad()) == doctest::Approx(3 * golden_norm(once)).epsilon(1e-4));
  }
}

TEST_SUITE_END();
