// What this is: the discriminator of structured knowledge distillation, which tells teacher score maps from a student's, and
//   the self-attention block in it. It exists only during training.
// What it is not: the adversarial losses (distill/).
// Read next: nn/spectral_norm.h, models/discriminator.cpp.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "nn/layers.h"
#include "nn/spectral_norm.h"

namespace limbeck::models {

// Note [tangents]
//   A gradient penalty needs d/dtheta of grad_x D(x), a second derivative, which the tape does not give. But for fixed v,
//   <grad_x D(x), v> = d/dh D(x + h v) at h = 0, and that directional derivative can be carried through the network side by
//   side with the values, by rules written in ordinary ops (a convolution's is the same convolution without its bias). What
//   comes out is a function on the tape, and its ordinary gradient is the second derivative, exactly.

/// A value and its directional derivative; see Note [tangents].
struct Dual {
  Tensor value;
  Tensor tangent;
};

/// Every position looks at all others; starts as the identity, because gamma starts at 0.
/// Formula: y = x + gamma * sum_j a_ij v_j, a_ij = softmax_j(q_i . k_j); q, k, v 1x1 convolutions of x with bias, to C/8,
///          C/8 and C channels; i, j positions
/// Shapes:  x [N, C, H, W], C a multiple of 8; returns the same. Memory N (HW)^2 numbers.
/// Throws:  ConfigError for other channel counts.
/// Source:  Zhang et al., ICML 2019 (SAGAN), section 3. Names: query_conv, key_conv, value_conv, gamma
class SelfAttention final : public nn::UnaryModule {
 public:
  SelfAttention(std::int64_t channels, Generator& generator);
  [[nodiscard]] std::string type() const override { return "SelfAttention"; }
  [[nodiscard]] Tensor forward(const Tensor& x) override;
  /// The same for a value with its tangent.
  [[nodiscard]] Dual forward(const Dual& x);

 private:
  nn::Conv2d query_;
  nn::Conv2d key_;
  nn::Conv2d value_;
  Tensor gamma_;
};

/// A critic of raw score maps: batch norm; four 4x4 stride-2 convolutions with spectral norm to 64, 128, 256 and 512
/// channels, each with LeakyReLU(0.1); self-attention behind the third and the fourth; a 4x4 convolution to one channel.
/// Shapes: x [N, K, H, W] with H, W >= 64: logits at their own stride, e.g. 65x65 for a 512 crop at stride 8;
///         returns [N, 1, H/16 - 3, W/16 - 3], one number per image for 64 <= H, W < 80. The size after four halvings is rounded down.
/// Throws: no classes; maps below 64x64, which leave nothing for the last convolution.
/// Source: the holistic term of Liu et al., CVPR 2019. Names: preprocess, l1.0 .. l4.0, attn1, attn2, last.0
class Discriminator final : public nn::UnaryModule {
 public:
  Discriminator(std::int64_t classes, Generator& generator);
  [[nodiscard]] std::string type() const override { return "Discriminator"; }
  [[nodiscard]] Tensor forward(const Tensor& x) override;
  /// Directional derivative of the scores, see Note [tangents].
  /// Formula:  d/dh D(x + h v) at h = 0, with batch statistics while training; u and v of the spectral norms as they are
  /// Shapes:   x, v as forward() takes x; returns the shape of the scores
  /// Types:    f32/f64
  /// Gradient: of the parameters; x and v are constants. Changes no buffer.
  [[nodiscard]] Tensor tangent(const Tensor& x, const Tensor& v);

 private:
  /// Batch norm in front; its input is a constant.
  [[nodiscard]] Dual normalise(const Tensor& x, const Tensor& v) const;

  nn::BatchNorm2d preprocess_;
  std::vector<std::unique_ptr<nn::SpectralNormConv2d>> layers_;
  SelfAttention attention1_;
  SelfAttention attention2_;
  nn::Conv2d last_;
};

}  // namespace limbeck::models
