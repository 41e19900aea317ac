#include "apps/heat_map.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "core/autograd.h"
#include "ops/elementwise.h"
#include "ops/interpolate.h"
#include "ops/reduce.h"
#include "ops/slice.h"

namespace limbeck::apps {
namespace {

// Each colour is lighter than the one before, so that the order also shows without colours.
constexpr std::array<std::array<double, 3>, 5> kRamp{
    {{0, 0, 4}, {87, 16, 110}, {188, 55, 84}, {249, 142, 9}, {252, 255, 224}}};

datasets::Rgb colour_of(double share) {
  const double x = std::clamp(share, 0.0, 1.0) * static_cast<double>(kRamp.size() - 1);
  const std::size_t left = std::min(static_cast<std::size_t>(x), kRamp.size() - 2);
  const double t = x - static_cast<double>(left);
  datasets::Rgb colour{};
  for (std::size_t c = 0; c < 3; ++c) {
    colour.at(c) =
        static_cast<std::uint8_t>(std::lround((1 - t) * kRamp.at(left).at(c) + t * kRamp.at(left + 1).at(c)));
  }
  return colour;
}

}  // namespace

Tensor channel_energy(const Tensor& map) {
  const NoGradGuard off;
  return ops::sqrt(ops::mean(ops::square(ops::slice(map, 0, 0, 1)), {1}, true));
}

datasets::Image heat_map(const Tensor& values, double most, std::int64_t h, std::int64_t w) {
  const NoGradGuard off;
  const auto numbers = ops::resize_bilinear(values, {h, w}, false).to_vector<float>();
  datasets::Image image(h, w);
  for (std::int64_t i = 0; i < h * w; ++i) {
    const double share = most > 0 ? static_cast<double>(numbers[static_cast<std::size_t>(i)]) / most : 0.0;
    const datasets::Rgb colour = colour_of(share);
    std::copy(colour.begin(), colour.end(), image.at(i / w, i % w));
  }
  return image;
}

}  // namespace limbeck::apps
