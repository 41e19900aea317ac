// What this is: nn/spectral_norm.h, composed from ordinary ops; the tape then knows the gradient through sigma.
#include "nn/spectral_norm.h"

#include <limits>

#include "core/autocast.h"
#include "core/autograd.h"
#include "ops/copy.h"
#include "ops/elementwise.h"
#include "ops/reduce.h"

namespace limbeck::nn {
namespace {

constexpr int kFirstIterations = 15;

/// x / max(|x|, eps)
Tensor unit(const Tensor& x, double eps) {
  const Tensor norm = ops::sqrt(ops::sum(ops::square(x)));
  return ops::div(x, ops::clamp(norm, eps, std::numeric_limits<double>::infinity()));
}

/// Iterations of v = unit(W^T u), u = unit(W v), written into u and v.
void iterate(const Tensor& matrix, const Tensor& u, const Tensor& v, int iterations, double eps) {
  const NoGradGuard off;
  const std::int64_t rows = matrix.size(0);
  const std::int64_t columns = matrix.size(1);
  for (int i = 0; i < iterations; ++i) {
    v.copy_(unit(ops::sum(ops::mul(matrix, ops::reshape(u, {rows, 1})), Shape{0}), eps));
    u.copy_(unit(ops::sum(ops::mul(matrix, ops::reshape(v, {1, columns})), Shape{1}), eps));
  }
}

}  // namespace

Tensor spectral_normalize(const Tensor& weight, const Tensor& u, const Tensor& v, int iterations, double eps) {
  LIMBECK_CHECK(weight.ndim() >= 2 && weight.numel() > 0, "spectral_norm", "weight {}, expected [O, ...]",
                weight.shape());
  const std::int64_t rows = weight.size(0);
  const std::int64_t columns = weight.numel() / rows;
  LIMBECK_CHECK(u.shape() == Shape{rows} && v.shape() == Shape{columns}, "spectral_norm",
                "u {} and v {} for a weight {}, expected [{}] and [{}]", u.shape(), v.shape(), weight.shape(), rows,
                columns);
  const AutocastGuard full(false);
  const Tensor matrix = ops::reshape(weight, {rows, columns});
  if (!weight.device().is_meta()) iterate(matrix.detach(), u, v, iterations, eps);
  Tensor outer;  // a copy of both vectors: the next pass overwrites u and v, perhaps before this one's backward
  {
    const NoGradGuard off;
    outer = ops::mul(ops::reshape(u, {rows, 1}), ops::reshape(v, {1, columns}));
  }
  const Tensor sigma = ops::sum(ops::mul(matrix, outer));
  return ops::div(weight, sigma);
}

SpectralNormConv2d::SpectralNormConv2d(const ConvArgs& a, Generator& g)
    : options_{.stride = {a.stride, a.stride},
               .padding = {a.padding, a.padding},
               .dilation = {a.dilation, a.dilation},
               .groups = a.groups} {
  Conv2d plain(a, g);  // checks the arguments and fills the weights
  weight_ = plain.weight().detach();
  bias_ = plain.bias().defined() ? plain.bias().detach() : Tensor();
  const Device device = weight_.device();
  u_ = Tensor::empty({a.out}, DType::kF32, device);
  v_ = Tensor::empty({weight_.numel() / a.out}, DType::kF32, device);
  if (!device.is_meta()) {
    fill_normal_(u_, g, 0.0, 1.0);
    fill_normal_(v_, g, 0.0, 1.0);
    iterate(ops::reshape(weight_, {a.out, v_.numel()}), u_, v_, kFirstIterations, 1e-12);
  }
  register_parameter("weight_orig", weight_);
  register_parameter("bias", bias_);
  register_buffer("weight_u", u_);
  register_buffer("weight_v", v_);
}

std::string SpectralNormConv2d::type() const {
  const auto kernel = weight_.size(2);
  return fmt::format("SpectralNormConv2d {}x{} s{}", kernel, kernel, options_.stride[0]);
}

Tensor SpectralNormConv2d::forward(const Tensor& x) {
  return ops::conv2d(x, spectral_normalize(weight_, u_, v_, is_training() ? 1 : 0), bias_, options_);
}

std::int64_t SpectralNormConv2d::macs(const Shape&, const Shape& output) const {
  return output.numel() * (weight_.numel() / weight_.size(0));
}

}  // namespace limbeck::nn
