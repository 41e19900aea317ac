// What this is: how weights begin. Every function fills its tensor in logical row-major order from the generator, so the
//   values depend on the seed and the shape alone. Tensors on the meta device are left alone.
// Fans: a weight [O, I/g, kh, kw] has fan_in = I/g * kh * kw and fan_out = O * kh * kw (also for grouped and transposed
//   convolutions: the behaviour of torch.nn.init, which looks at dimensions 0 and 1 only); [O, I] has I and O.
#pragma once

#include <cstdint>

#include "core/rng.h"
#include "core/tensor.h"

namespace limbeck::nn {

enum class FanMode : std::uint8_t { kFanIn, kFanOut };

/// How a layer's constructor fills its weights.
enum class Init : std::uint8_t {
  kDefault,              ///< U(-b, b), b = 1/sqrt(fan_in), weight and bias: the default of torch.nn layers
  kKaimingNormalFanIn,   ///< N(0, 2/fan_in), bias 0: DeepLab heads
  kKaimingNormalFanOut,  ///< N(0, 2/fan_out), bias 0: torchvision's ResNet and MobileNetV2
  kNormal001,            ///< N(0, 0.01^2), bias 0: torchvision's MobileNetV2 classifier
  kZero                  ///< all zero
};

struct Fans {
  std::int64_t in;
  std::int64_t out;
};

/// Fans of a weight.
/// Shapes: [O, I, k...] or [O, I]
/// Throws: fewer than two dimensions.
[[nodiscard]] Fans fans_of(const Shape& shape);

/// Gain sqrt(2) of ReLU, or sqrt(2 / (1 + slope^2)) of a leaky ReLU.
/// Shapes: none
[[nodiscard]] double relu_gain(double negative_slope = 0.0) noexcept;

/// w ~ N(0, gain^2 / fan).
/// Shapes: w [O, I, k...] or [O, I]
/// Source: He et al., ICCV 2015, eq. 10
void kaiming_normal_(const Tensor& w, Generator& g, FanMode mode = FanMode::kFanIn, double gain = relu_gain());
/// w ~ U(-b, b), b = gain * sqrt(3 / fan).
/// Shapes: w [O, I, k...] or [O, I]
void kaiming_uniform_(const Tensor& w, Generator& g, FanMode mode = FanMode::kFanIn, double gain = relu_gain());
/// w ~ N(0, gain^2 * 2 / (fan_in + fan_out)).
/// Shapes: w [O, I, k...] or [O, I]
/// Source: Glorot and Bengio, AISTATS 2010, eq. 12
void xavier_normal_(const Tensor& w, Generator& g, double gain = 1.0);
/// w ~ U(-b, b), b = gain * sqrt(6 / (fan_in + fan_out)).
/// Shapes: w [O, I, k...] or [O, I]
/// Source: Glorot and Bengio, AISTATS 2010, eq. 16
void xavier_uniform_(const Tensor& w, Generator& g, double gain = 1.0);
/// Shapes: any
void normal_(const Tensor& t, Generator& g, double mean, double stddev);
/// Shapes: any
void uniform_(const Tensor& t, Generator& g, double low, double high);
/// Shapes: any
void constant_(const Tensor& t, double value);

/// Fills a layer's weight and, if defined, its bias. `fan_in` of the bias is that of the weight.
/// Shapes: w [O, I, k...] or [O, I]; b [O] or undefined
void init_layer_(const Tensor& w, const Tensor& b, Init init, Generator& g);

}  // namespace limbeck::nn
