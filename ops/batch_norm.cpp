// What this is: the glue of batch_norm: checks, the order of the steps, the autograd node.
// Read next: ops/batch_norm_kernels.h.
#include "ops/batch_norm.h"

#include <array>

#include "core/autograd.h"
#include "ops/batch_norm_kernels.h"
#include "ops/copy.h"
#include "ops/observer.h"

namespace limbeck::ops {
namespace {

constexpr const char* kName = "batch_norm";

TensorView view_or_none(const Tensor& t) { return t.defined() ? t.view() : TensorView{}; }

void check_channels(const Tensor& t, const char* what, const Tensor& x) {
  if (!t.defined()) return;
  const DType expected = x.dtype() == DType::kF64 ? DType::kF64 : DType::kF32;
  LIMBECK_CHECK(t.shape() == Shape({x.size(1)}), kName, "{} has shape {}, expected [{}] for an input of shape {}", what,
                t.shape(), x.size(1), x.shape());
  LIMBECK_CHECK(t.dtype() == expected, kName,
                "{} is {}, expected {} for a {} input; parameters and running statistics "
                "are never narrower than f32",
                what, name_of(t.dtype()), name_of(expected), name_of(x.dtype()));
}

void check_arguments(const Tensor& x, const Tensor& gamma, const Tensor& beta, const Tensor& running_mean,
                     const Tensor& running_var, const BatchNormOptions& options, const Tensor& residual) {
  check_float(kName, x);
  LIMBECK_CHECK(x.ndim() == 2 || x.ndim() == 4, kName, "got an input of shape {}, expected [N,C,H,W] or [N,C]",
                x.shape());
  LIMBECK_CHECK(x.numel() > 0, kName, "got an empty input of shape {}", x.shape());
  LIMBECK_CHECK(options.eps >= 0.0, kName, "got eps {}, expected eps >= 0", options.eps);
  check_channels(gamma, "gamma", x);
  check_channels(beta, "beta", x);
  check_channels(running_mean, "running_mean", x);
  check_channels(running_var, "running_var", x);
  LIMBECK_CHECK(running_mean.defined() == running_var.defined(), kName,
                "got only one of running_mean and running_var, expected both or none");
  LIMBECK_CHECK(options.training || running_mean.defined(), kName,
                "eval mode without running statistics; pass running_mean and running_var, or set training");
  LIMBECK_CHECK(!residual.defined() || residual.shape() == x.shape(), kName,
                "residual has shape {}, expected that of the input, {}", residual.shape(), x.shape());
}

/// Replaces the moments of this rank by those of all ranks and returns the number of values per channel over all ranks.
double combine_ranks(const Tensor& moments, double count, const BatchNormOptions& options) {
  if (!options.sum_over_ranks || moments.device().is_meta()) return count;
  LIMBECK_CHECK(moments.device().is_cpu(), kName, "synchronised batch norm on {}, expected the CPU",
                moments.device().to_string());
  const std::int64_t channels = moments.size(1);
  const Tensor sums = Tensor::empty({3, channels}, DType::kF64);  // sum, sum of squares, count
  auto* s = sums.data<double>();
  auto* m = moments.data<double>();
  for (std::int64_t c = 0; c < channels; ++c) {
    const double mean = m[c];
    s[c] = count * mean;
    s[channels + c] = count * (m[channels + c] + mean * mean);
    s[2 * channels + c] = count;
  }
  options.sum_over_ranks(sums);
  const double total = s[2 * channels];
  for (std::int64_t c = 0; c < channels; ++c) {
    const double mean = s[c] / total;
    m[c] = mean;
    m[channels + c] = std::max(0.0, s[channels + c] / total - mean * mean);
  }
  return total;
}

struct BatchNormNode final : Node {
  SavedTensor x;  // undefined where the gradient does not need it
  SavedTensor y;  // only for an activation after a residual
  SavedTensor coefficients;
  DType parameter_dtype = DType::kF32;
  double count = 0.0;
  BatchNormOptions options;

  const char* name() const override { return kName; }
  void release() override {
    x.reset();
    y.reset();
    coefficients.reset();
  }

  void backward(std::span<const Tensor> gy, std::span<Tensor> gx) override {
    enum : std::size_t { kX, kGamma, kBeta, kResidual };
    const Tensor& xs = x.unpack(kName);
    const Tensor& ys = y.unpack(kName);
    const Tensor& k = coefficients.unpack(kName);
    Tensor g = gy[0].dense();
    Activation act = options.act;
    const Device device = g.device();

    const bool masks = act != Activation::kNone && needs_input_grad(kResidual);
    const Tensor masked = masks ? Tensor::empty_like(g) : Tensor();
    const bool through_statistics = options.training && needs_input_grad(kX);
    Tensor sums;
    // The parameters get the sums of this rank only: the gradients of all ranks are added later, as for any parameter.
    for (const std::size_t i : {kGamma, kBeta}) {
      if (needs_input_grad(i)) gx[i] = Tensor::empty({k.size(1)}, parameter_dtype, device);
    }
    if (through_statistics || needs_input_grad(kGamma) || needs_input_grad(kBeta)) {
      sums = Tensor::empty({2, k.size(1)}, DType::kF64, device);
      kBatchNormSums(device, g.dtype(), g.view(), xs.view(), view_or_none(ys), k.view(), act, view_or_none(masked),
                     sums.view(), view_or_none(gx[kBeta]), view_or_none(gx[kGamma]));
    } else if (masks) {
      kBatchNormMask(device, g.dtype(), g.view(), ys.view(), act, masked.view());
    }
    if (masks) {  // the masked gradient is at hand now: no need to mask a second time
      g = masked;
      act = Activation::kNone;
    }
    if (needs_input_grad(kX)) {
      if (through_statistics && options.sum_over_ranks) options.sum_over_ranks(sums);
      gx[kX] = Tensor::empty_like(g);
      kBatchNormGradient(device, g.dtype(), g.view(), view_or_none(xs), view_or_none(ys), k.view(), act,
                         through_statistics ? sums.view() : TensorView{}, count, gx[kX].view());
    }
    if (needs_input_grad(kResidual)) gx[kResidual] = g;
  }
};

}  // namespace

Tensor batch_norm(const Tensor& x, const Tensor& gamma, const Tensor& beta, const Tensor& running_mean,
                  const Tensor& running_var, const BatchNormOptions& options, const Tensor& residual_any) {
  check_arguments(x, gamma, beta, running_mean, running_var, options, residual_any);
  const Tensor residual = residual_any.defined() ? cast(residual_any, x.dtype()) : Tensor();
  const Device device = x.device();
  const DType dtype = x.dtype();
  const DType parameter_dtype = dtype == DType::kF64 ? DType::kF64 : DType::kF32;
  const Tensor xd = x.dense();
  const Tensor rd = residual.defined() ? residual.dense() : Tensor();

  const std::int64_t channels = x.size(1);
  double count = static_cast<double>(x.numel() / channels);
  const Tensor k = Tensor::empty({kBatchNormRows, channels}, parameter_dtype, device);
  if (options.training) {
    const Tensor moments = Tensor::empty({2, channels}, DType::kF64, device);
    kBatchNormMoments(device, dtype, xd.view(), moments.view());
    count = combine_ranks(moments, count, options);
    LIMBECK_CHECK(count > 1.0, kName,
                  "training with one value per channel (input of shape {}), its variance is not defined; use a batch "
                  "size > 1 (drop a short last batch) or eval mode",
                  x.shape());
    kBatchNormStatistics(
        device, dtype, moments.view(),
        {view_or_none(running_mean), view_or_none(running_var), options.momentum, count / (count - 1.0)},
        view_or_none(gamma), view_or_none(beta), options.eps, k.view());
    if (running_mean.defined()) {
      running_mean.bump_version();
      running_var.bump_version();
    }
  } else {
    kBatchNormCoefficients(device, dtype, running_mean.view(), running_var.view(), view_or_none(gamma),
                           view_or_none(beta), options.eps, k.view());
  }
  const Tensor y = Tensor::empty(x.shape(), dtype, device);
  kBatchNormApply(device, dtype, xd.view(), view_or_none(rd), k.view(), options.act, y.view());

  if (auto node = record<BatchNormNode>({&x, &gamma, &beta, &residual})) {
    const bool masks = options.act != Activation::kNone;
    if (options.training || node->needs_input_grad(1) || node->needs_input_grad(2) || (masks && !residual.defined())) {
      node->x = xd;
    }
    if (masks && residual.defined()) node->y = y;
    node->coefficients = k;
    node->parameter_dtype = parameter_dtype;
    node->count = count;
    node->options = options;
    node->attach(y);
  }
  observe(kName, {&x, &gamma, &beta, &running_mean, &running_var, &residual_any}, y,
          BatchNormCall{options.eps, options.act, options.training});
  return y;
}

}  // namespace limbeck::ops
