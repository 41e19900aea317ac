// What this is: the numbers and the pictures behind `limbeck visualize`: affinities of a pixel, saliency of channels, matrices
//   between classes, and where networks disagree.
// Read next: verb_visualize.cpp (which pictures are made), datasets/heat.h (colours).
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "core/tensor.h"
#include "datasets/dataset.h"
#include "datasets/heat.h"

namespace limbeck::apps {

struct PixelPosition {
  std::int64_t x = 0, y = 0;
  friend bool operator==(const PixelPosition&, const PixelPosition&) = default;
};

/// Cosine between the feature at (y, x) and the feature at every position.
/// Formula:  a_i = f_q . f_i / (max(||f_q||, 1e-12) max(||f_i||, 1e-12))
/// Shapes:   feature [1,C,h,w]; returns f32 [1,1,h,w]
/// Source:   He et al., CVPR 2019: a row of the affinity matrix.
[[nodiscard]] Tensor affinity_map(const Tensor& feature, std::int64_t y, std::int64_t x);

/// Softmax over the positions of one channel, times their number: 1 everywhere for a channel without preference.
/// Formula:  M exp(x_i / tau) / sum_j exp(x_j / tau), M = h w
/// Shapes:   map [1,C,h,w]; returns f32 [1,1,h,w]
/// Source:   Shu et al., ICCV 2021: the distribution that channel-wise distillation compares.
[[nodiscard]] Tensor saliency_map(const Tensor& map, std::int64_t channel, double tau);

/// Channel `channel` as it is.
/// Shapes:   map [1,C,h,w]; returns f32 [1,1,h,w]
[[nodiscard]] Tensor channel_of(const Tensor& map, std::int64_t channel);

/// Distance of the rows' directions: rows are divided by their length, then root mean square of the difference.
/// Shapes:   both [K,K]
[[nodiscard]] double row_distance(const Tensor& a, const Tensor& b);

/// One pixel per class for up to `count` of the largest classes of a mask: the one deepest inside its class (largest city-block
/// distance to another class or to the border), the first of equal ones. Empty for a mask without labels.
[[nodiscard]] std::vector<PixelPosition> pick_pixels(const datasets::Mask& mask, std::size_t count);
/// The classes of a mask by falling number of pixels, without ignored ones.
[[nodiscard]] std::vector<std::int64_t> classes_by_size(const datasets::Mask& mask);

/// Who is right where, as one of kAgreementColours per pixel: 0 both, 1 only `b`, 2 only `a`, 3 neither; black without a label.
/// Throws Error when the sizes differ.
[[nodiscard]] datasets::Image agreement_map(const datasets::Mask& truth, const datasets::Mask& a,
                                            const datasets::Mask& b);
/// Where `b` differs from `a`: the colour of what b says, dark grey where they agree.
[[nodiscard]] datasets::Image difference_map(const datasets::Mask& a, const datasets::Mask& b,
                                             const std::vector<datasets::Rgb>& palette);
inline constexpr std::array<datasets::Rgb, 4> kAgreementColours{
    {{70, 70, 70}, {80, 200, 90}, {225, 70, 60}, {245, 200, 60}}};

/// "1,2" or "1x2" -> {x 1, y 2}. Throws ConfigError.
[[nodiscard]] PixelPosition parse_pixel(const std::string& text);

}  // namespace limbeck::apps
