// What this is: spectral normalisation, which keeps the largest singular value of a weight near 1, and a convolution with it.
//   Discriminators use it to stay Lipschitz continuous.
// Read next: nn/spectral_norm.cpp, models/discriminator.h.
//
// Note [power iteration]
//   The largest singular value of W [O, R] is estimated by v = W^T u / |W^T u|, u = W v / |W v|, sigma = u . W v. The
//   vectors are buffers: one iteration per training pass is enough, since the weights move slowly. Eval passes leave them
//   alone, so that inference is a function of the file. In the gradient u and v are constants and sigma is not:
//   dL/dW = G / sigma - <G, W> / sigma^2 u v^T, G = dL/d(W / sigma).
#pragma once

#include <cstdint>
#include <string>

#include "nn/layers.h"

namespace limbeck::nn {

/// The weight divided by the estimate of its largest singular value; see Note [power iteration].
/// Formula:  y = W / sigma, W = weight as a matrix [O, R]; |x| is bounded below by eps in every division
/// Shapes:   weight [O, ...] with R = numel / O; u [O]; v [R]; returns the shape of weight
/// Types:    f32/f64(ref), never cast by autocast.
/// Gradient: of the weight. With `iterations` > 0, u and v are overwritten.
/// Error:    f32 1e-5 against f64 after the same number of iterations.
/// Throws:   u or v that do not fit.
/// Source:   Miyato et al., ICLR 2018, algorithm 1; the behaviour of torch.nn.utils.spectral_norm.
[[nodiscard]] Tensor spectral_normalize(const Tensor& weight, const Tensor& u, const Tensor& v, int iterations,
                                        double eps = 1e-12);

/// 2-D convolution with a spectrally normalised weight. Parameters weight_orig and bias, buffers weight_u and weight_v.
/// Formula:  y = (W / sigma(W)) * x + b; one power iteration per training pass
/// Shapes:   as Conv2d
/// Throws:   as Conv2d
/// Source:   names of torch.nn.utils.spectral_norm(Conv2d); u and v start with 15 iterations, as in torch's newer
///           parametrization, so that an untrained network works in eval mode too
class SpectralNormConv2d final : public UnaryModule {
 public:
  SpectralNormConv2d(const ConvArgs& args, Generator& generator);
  [[nodiscard]] std::string type() const override;
  [[nodiscard]] Tensor forward(const Tensor& x) override;
  [[nodiscard]] std::int64_t macs(const Shape& input, const Shape& output) const override;
  /// W / sigma(W) with u and v as they are; differentiable.
  [[nodiscard]] Tensor normalized_weight() const { return spectral_normalize(weight_, u_, v_, 0); }
  [[nodiscard]] const Tensor& weight() const noexcept { return weight_; }
  /// Undefined without bias.
  [[nodiscard]] const Tensor& bias() const noexcept { return bias_; }
  [[nodiscard]] const ops::Conv2dOptions& options() const noexcept { return options_; }
  [[nodiscard]] const Tensor& u() const noexcept { return u_; }
  [[nodiscard]] const Tensor& v() const noexcept { return v_; }

 private:
  Tensor weight_;
  Tensor bias_;
  Tensor u_;
  Tensor v_;
  ops::Conv2dOptions options_;
};

}  // namespace limbeck::nn
