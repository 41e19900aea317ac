// Inputs of batch_norm for the harness: training and eval, all activations with and without a residual, channel counts
// that fill, miss and exceed vector registers. Maps of many rows and extreme means are in tests/test_batch_norm.cpp.
#include "ops/batch_norm.h"
#include "tests/cases/all_cases.h"

namespace limbeck::test {
namespace {

using ops::Activation;

struct Variant {
  std::string label;
  Shape shape;
  bool training = true;
  Activation act = Activation::kNone;
  bool residual = false;
  bool affine = true;
  double mean = 0.3;
  double spread = 1.5;
};

OpCase make_case(const Variant& v) {
  OpCase c;
  c.op = "batch_norm";
  c.label = v.label;
  c.inputs = [v](Generator& g) {
    const std::int64_t channels = v.shape[1];
    std::vector<Tensor> inputs{Tensor::empty(v.shape, DType::kF64), random_uniform(g, {channels}, 0.5, 1.5),
                               random_uniform(g, {channels}, -0.5, 0.5)};
    fill_normal_(inputs[0], g, v.mean, v.spread);
    if (v.residual) inputs.push_back(random_normal(g, v.shape));
    return inputs;
  };
  c.forward = [v](std::span<const Tensor> in) {
    const Tensor& x = in[0];
    // Fresh buffers for every call: a training step changes them. The eval variants need statistics that fit the data.
    const DType type = x.dtype() == DType::kF64 ? DType::kF64 : DType::kF32;
    const Tensor running_mean = Tensor::full({v.shape[1]}, v.mean, type, x.device());
    const Tensor running_var = Tensor::full({v.shape[1]}, v.spread * v.spread, type, x.device());
    return ops::batch_norm(x, v.affine ? in[1] : Tensor(), v.affine ? in[2] : Tensor(), running_mean, running_var,
                           {.training = v.training, .act = v.act}, v.residual ? in[3] : Tensor());
  };
  if (!v.affine) c.fixed = {1, 2};
  c.keep_f32 = {1, 2};
  c.kinks = v.act != Activation::kNone;
  c.f32_tolerance = 2e-5;
  return c;
}

}  // namespace

std::vector<OpCase> batch_norm_cases() {
  using enum Activation;
  std::vector<OpCase> cases;
  for (const Variant& v : std::vector<Variant>{
           {.label = "training, 3 channels", .shape = {2, 3, 5, 7}},
           {.label = "training, relu, 11 channels", .shape = {2, 11, 4, 3}, .act = kRelu},
           {.label = "training, relu6, 19 channels", .shape = {1, 19, 3, 5}, .act = kRelu6, .spread = 4.0},
           {.label = "training, residual, 21 channels", .shape = {2, 21, 3, 3}, .residual = true},
           {.label = "training, relu after residual", .shape = {2, 16, 3, 3}, .act = kRelu, .residual = true},
           {.label = "training, relu6 after residual", .shape = {2, 5, 3, 3}, .act = kRelu6, .residual = true},
           {.label = "training, relu, a large map", .shape = {2, 64, 24, 25}, .act = kRelu},
           {.label = "training, one pixel", .shape = {3, 40, 1, 1}, .act = kRelu},
           {.label = "training, two dimensions", .shape = {6, 33}},
           {.label = "training, without gamma and beta", .shape = {2, 4, 3, 3}, .affine = false},
           {.label = "training, mean of 30 deviations", .shape = {2, 6, 4, 3}, .mean = 30.0, .spread = 1.0},
           {.label = "training, more channels than lanes", .shape = {1, 1280, 3, 2}},
           {.label = "eval", .shape = {2, 11, 3, 4}, .training = false},
           {.label = "eval, relu", .shape = {1, 7, 1, 1}, .training = false, .act = kRelu},
           {.label = "eval, relu after residual",
           .shape = {2, 8, 3, 2},
           .training = false,
           .act = kRelu,
           .residual = true},
           {.label = "eval, relu6, fixed parameters",
           .shape = {2, 8, 3, 2},
           .training = false,
           .act = kRelu6,
           .affine = false,
           .spread = 4.0}}) {
    cases.push_back(make_case(v));
  }
  // A bf16 y rounds to 6 from below, so a slope taken from y differs there from that of the exact result: f32 only.
  for (OpCase& c : cases) {
    if (c.label == "training, relu6 after residual") c.bf16 = false;
  }
  return cases;
}

}  // namespace limbeck::test
