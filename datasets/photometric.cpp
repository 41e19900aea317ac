#include "datasets/photometric.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <vector>

namespace limbeck::datasets {
namespace {

float grey_of(const float* p) noexcept { return 0.299F * p[0] + 0.587F * p[1] + 0.114F * p[2]; }

template <class F>
void for_each_pixel(const PixelBlock& b, F&& f) {
  for (std::int64_t y = 0; y < b.rows; ++y) {
    float* row = b.pixels + y * b.stride;
    for (std::int64_t x = 0; x < b.columns; ++x) f(row + 3 * x);
  }
}

float clamp_byte(float v) noexcept { return std::clamp(v, 0.0F, 255.0F); }

/// Hue in sixths of the circle, [0, 6); grey has hue 0.
float hue_of(const float* p, float largest, float range) noexcept {
  if (range <= 0) return 0;
  float sixths = 0;
  if (largest == p[0]) {
    sixths = (p[1] - p[2]) / range;
  } else if (largest == p[1]) {
    sixths = 2 + (p[2] - p[0]) / range;
  } else {
    sixths = 4 + (p[0] - p[1]) / range;
  }
  return sixths < 0 ? sixths + 6 : sixths;
}

/// HSV with V and S as they are wanted, written back as RGB. A channel is V - V S max(0, min(k, 4 - k, 1)) where k is
/// its distance along the circle.
void change_hsv(float* p, float saturation, float turn) noexcept {
  const float value = std::max({p[0], p[1], p[2]});
  const float range = value - std::min({p[0], p[1], p[2]});
  if (value <= 0) return;
  const float hue = hue_of(p, value, range) + turn;
  const float chroma = value * std::min(1.0F, range / value * saturation);
  constexpr std::array<float, 3> kOffset{5, 3, 1};
  for (std::size_t c = 0; c < 3; ++c) {
    const float k = std::fmod(kOffset[c] + hue + 6, 6.0F);
    p[c] = value - chroma * std::clamp(std::min(k, 4 - k), 0.0F, 1.0F);
  }
}

}  // namespace

void jitter(const PixelBlock& b, float brightness, float contrast, float saturation) {
  double sum = 0;
  for (std::int64_t y = 0; y < b.rows; ++y) {
    float row_sum = 0;
    for (std::int64_t x = 0; x < b.columns; ++x) row_sum += grey_of(b.pixels + y * b.stride + 3 * x);
    sum += static_cast<double>(row_sum);
  }
  const auto mean =
      brightness * static_cast<float>(sum / static_cast<double>(std::max<std::int64_t>(1, b.rows * b.columns)));
  for (std::int64_t y = 0; y < b.rows; ++y) {
    float* row = b.pixels + y * b.stride;
    for (std::int64_t x = 0; x < b.columns; ++x) {
      float* p = row + 3 * x;
      const float grey = grey_of(p);
      for (int c = 0; c < 3; ++c) {
        const float saturated = grey + saturation * (p[c] - grey);
        const float v = (saturated * brightness - mean) * contrast + mean;
        p[c] = std::min(std::max(v, 0.0F), 255.0F);
      }
    }
  }
}

/// Separable Gaussian; the border pixel repeats.
void blur(const PixelBlock& b, double sigma) {
  const auto radius = static_cast<std::int64_t>(std::ceil(2.5 * sigma));
  std::vector<float> kernel(static_cast<std::size_t>(2 * radius + 1));
  float sum = 0;
  for (std::int64_t i = -radius; i <= radius; ++i) {
    const double d = static_cast<double>(i) / sigma;
    sum += kernel[static_cast<std::size_t>(i + radius)] = static_cast<float>(std::exp(-0.5 * d * d));
  }
  for (auto& k : kernel) k /= sum;

  const std::int64_t n = b.columns * 3;
  std::vector<float> temp(static_cast<std::size_t>(b.rows * n));
  for (std::int64_t y = 0; y < b.rows; ++y) {  // along rows, into temp
    const float* row = b.pixels + y * b.stride;
    for (std::int64_t x = 0; x < b.columns; ++x) {
      float acc[3] = {0, 0, 0};
      for (std::int64_t k = -radius; k <= radius; ++k) {
        const float* p = row + 3 * std::clamp<std::int64_t>(x + k, 0, b.columns - 1);
        const float weight = kernel[static_cast<std::size_t>(k + radius)];
        for (int c = 0; c < 3; ++c) acc[c] += weight * p[c];
      }
      std::copy_n(acc, 3, temp.data() + y * n + 3 * x);
    }
  }
  for (std::int64_t y = 0; y < b.rows; ++y) {  // along columns, back
    float* row = b.pixels + y * b.stride;
    std::fill_n(row, n, 0.0F);
    for (std::int64_t k = -radius; k <= radius; ++k) {
      const float* p = temp.data() + std::clamp<std::int64_t>(y + k, 0, b.rows - 1) * n;
      const float weight = kernel[static_cast<std::size_t>(k + radius)];
#pragma omp simd
      for (std::int64_t i = 0; i < n; ++i) row[i] += weight * p[i];
    }
  }
}

PhotometricDistortion PhotometricDistortion::draw(Generator g) {
  // All numbers are drawn, used or not, so that each depends on its place in the sequence alone.
  const auto chance = [&] { return g.uniform() < 0.5; };
  const auto factor = [&] { return static_cast<float>(g.uniform(0.5, 1.5)); };
  PhotometricDistortion d;
  const bool brighten = chance();
  const auto delta = static_cast<float>(g.uniform(-32, 32));
  d.contrast_first = chance();
  const bool stretch = chance();
  const float contrast = factor();
  const bool saturate = chance();
  const float saturation = factor();
  const bool turn = chance();
  const auto hue = 2.0F * (static_cast<float>(g.below(36)) - 18);
  if (brighten) d.brightness = delta;
  if (stretch) d.contrast = contrast;
  if (saturate) d.saturation = saturation;
  if (turn) d.hue_degrees = hue;
  return d;
}

void PhotometricDistortion::apply(const PixelBlock& b) const {
  const auto scale = [&](float by) {
    if (by == 1) return;
    for_each_pixel(b, [by](float* p) {
      for (int c = 0; c < 3; ++c) p[c] = clamp_byte(p[c] * by);
    });
  };
  if (brightness != 0) {
    for_each_pixel(b, [this](float* p) {
      for (int c = 0; c < 3; ++c) p[c] = clamp_byte(p[c] + brightness);
    });
  }
  if (contrast_first) scale(contrast);
  if (saturation != 1 || hue_degrees != 0) {
    for_each_pixel(b, [this](float* p) { change_hsv(p, saturation, hue_degrees / 60); });
  }
  if (!contrast_first) scale(contrast);
}

}  // namespace limbeck::datasets
