#include "apps/visualize.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <string_view>

#include "core/error.h"
#include "core/parse_number.h"
#include "datasets/compose.h"

namespace limbeck::apps {
namespace {

void check_map(const Tensor& map, const char* where) {
  LIMBECK_CHECK(map.ndim() == 4 && map.size(0) == 1, where, "a map of shape {}, expected [1,C,h,w]", map.shape());
}

/// One channel of a [1,C,h,w] map as doubles, row by row.
std::vector<double> channel_values(const Tensor& map, std::int64_t channel, const char* where) {
  check_map(map, where);
  LIMBECK_CHECK(channel >= 0 && channel < map.size(1), where, "channel {} of a map with {}", channel, map.size(1));
  const auto all = map.to_vector<float>();
  const std::int64_t m = map.size(2) * map.size(3);
  const auto first = all.begin() + static_cast<std::ptrdiff_t>(channel * m);
  return {first, first + static_cast<std::ptrdiff_t>(m)};
}

Tensor to_map(const std::vector<double>& values, const Tensor& like) {
  return Tensor::from(std::vector<float>(values.begin(), values.end()), {1, 1, like.size(2), like.size(3)});
}

/// City-block distance of every pixel to the nearest one of another id, the outside of the picture being another: two sweeps.
std::vector<std::int64_t> depth_in_class(const datasets::Mask& mask) {
  std::vector<std::int64_t> depth(mask.ids.size(), 0);
  const auto at = [&](std::int64_t y, std::int64_t x) -> std::int64_t& {
    return depth[static_cast<std::size_t>(y * mask.w + x)];
  };
  const auto from = [&](std::int64_t y, std::int64_t x, std::int64_t ny, std::int64_t nx) -> std::int64_t {
    const bool outside = ny < 0 || nx < 0 || ny >= mask.h || nx >= mask.w;
    return outside || mask.at(ny, nx) != mask.at(y, x) ? 1 : at(ny, nx) + 1;
  };
  for (std::int64_t y = 0; y < mask.h; ++y) {
    for (std::int64_t x = 0; x < mask.w; ++x) at(y, x) = std::min(from(y, x, y - 1, x), from(y, x, y, x - 1));
  }
  for (std::int64_t y = mask.h - 1; y >= 0; --y) {
    for (std::int64_t x = mask.w - 1; x >= 0; --x) {
      at(y, x) = std::min({at(y, x), from(y, x, y + 1, x), from(y, x, y, x + 1)});
    }
  }
  return depth;
}

}  // namespace

Tensor affinity_map(const Tensor& feature, std::int64_t y, std::int64_t x) {
  check_map(feature, "affinity_map");
  const std::int64_t c = feature.size(1);
  const std::int64_t m = feature.size(2) * feature.size(3);
  LIMBECK_CHECK(y >= 0 && y < feature.size(2) && x >= 0 && x < feature.size(3), "affinity_map",
                "position ({}, {}) of a {}x{} map", x, y, feature.size(3), feature.size(2));
  const auto values = feature.to_vector<float>();
  const std::int64_t q = y * feature.size(3) + x;
  std::vector<double> dot(static_cast<std::size_t>(m), 0.0);
  std::vector<double> square(static_cast<std::size_t>(m), 0.0);
  for (std::int64_t k = 0; k < c; ++k) {
    const float* row = values.data() + k * m;
    for (std::int64_t i = 0; i < m; ++i) {
      dot[static_cast<std::size_t>(i)] += static_cast<double>(row[i]) * row[q];
      square[static_cast<std::size_t>(i)] += static_cast<double>(row[i]) * row[i];
    }
  }
  const auto length = [&](std::int64_t i) { return std::max(std::sqrt(square[static_cast<std::size_t>(i)]), 1e-12); };
  const double own = length(q);
  for (std::int64_t i = 0; i < m; ++i) dot[static_cast<std::size_t>(i)] /= own * length(i);
  return to_map(dot, feature);
}

Tensor saliency_map(const Tensor& map, std::int64_t channel, double tau) {
  LIMBECK_CHECK(tau > 0, "saliency_map", "tau {}, expected > 0", tau);
  auto values = channel_values(map, channel, "saliency_map");
  const double most = *std::max_element(values.begin(), values.end());
  double sum = 0;
  for (double& v : values) {
    v = std::exp((v - most) / tau);
    sum += v;
  }
  for (double& v : values) v *= static_cast<double>(values.size()) / sum;
  return to_map(values, map);
}

Tensor channel_of(const Tensor& map, std::int64_t channel) {
  return to_map(channel_values(map, channel, "channel_of"), map);
}

double row_distance(const Tensor& a, const Tensor& b) {
  LIMBECK_CHECK(a.ndim() == 2 && a.size(0) == a.size(1) && a.shape() == b.shape(), "row_distance",
                "matrices of shapes {} and {}", a.shape(), b.shape());
  const std::int64_t n = a.size(0);
  const auto left = a.to_vector<float>();
  const auto right = b.to_vector<float>();
  const auto length = [n](const std::vector<float>& m, std::int64_t row) {
    double sum = 0;
    for (std::int64_t j = 0; j < n; ++j)
      sum += std::pow(static_cast<double>(m[static_cast<std::size_t>(row * n + j)]), 2);
    return std::max(std::sqrt(sum), 1e-12);
  };
  double sum = 0;
  for (std::int64_t i = 0; i < n; ++i) {
    const double l = length(left, i);
    const double r = length(right, i);
    for (std::int64_t j = 0; j < n; ++j) {
      const auto k = static_cast<std::size_t>(i * n + j);
      sum += std::pow(left[k] / l - right[k] / r, 2);
    }
  }
  return std::sqrt(sum / static_cast<double>(n * n));
}

std::vector<std::int64_t> classes_by_size(const datasets::Mask& mask) {
  std::array<std::int64_t, 256> count{};
  for (const auto id : mask.ids) ++count.at(id);
  std::vector<std::int64_t> classes;
  for (std::int64_t k = 0; k < datasets::kIgnoreId; ++k) {
    if (count.at(static_cast<std::size_t>(k)) > 0) classes.push_back(k);
  }
  std::stable_sort(classes.begin(), classes.end(), [&](std::int64_t a, std::int64_t b) {
    return count.at(static_cast<std::size_t>(a)) > count.at(static_cast<std::size_t>(b));
  });
  return classes;
}

std::vector<PixelPosition> pick_pixels(const datasets::Mask& mask, std::size_t count) {
  const auto depth = depth_in_class(mask);
  auto classes = classes_by_size(mask);
  classes.resize(std::min(classes.size(), count));
  std::vector<PixelPosition> pixels;
  for (const auto wanted : classes) {
    std::int64_t best = -1;
    for (std::int64_t i = 0; i < mask.h * mask.w; ++i) {
      const auto k = static_cast<std::size_t>(i);
      if (mask.ids[k] == wanted && (best < 0 || depth[k] > depth[static_cast<std::size_t>(best)])) best = i;
    }
    pixels.push_back({best % mask.w, best / mask.w});
  }
  return pixels;
}

datasets::Image agreement_map(const datasets::Mask& truth, const datasets::Mask& a, const datasets::Mask& b) {
  LIMBECK_CHECK(truth.h == a.h && truth.w == a.w && truth.h == b.h && truth.w == b.w, "agreement_map",
                "truth {}x{}, masks {}x{} and {}x{}", truth.w, truth.h, a.w, a.h, b.w, b.h);
  datasets::Image out(truth.h, truth.w);
  for (std::size_t i = 0; i < truth.ids.size(); ++i) {
    const std::uint8_t id = truth.ids[i];
    if (id == datasets::kIgnoreId) continue;
    const bool right_a = a.ids[i] == id;
    const bool right_b = b.ids[i] == id;
    const datasets::Rgb colour = kAgreementColours.at(right_a ? (right_b ? 0 : 2) : (right_b ? 1 : 3));
    std::copy(colour.begin(), colour.end(), out.rgb.begin() + static_cast<std::ptrdiff_t>(3 * i));
  }
  return out;
}

datasets::Image difference_map(const datasets::Mask& a, const datasets::Mask& b,
                               const std::vector<datasets::Rgb>& palette) {
  return datasets::error_map(b, a, palette);  // "truth" gives the colour where the two differ
}

PixelPosition parse_pixel(const std::string& text) {
  const auto middle = text.find_first_of(",x");
  const auto number = [&](std::string_view part) {
    const auto value = parse_number<std::int64_t>(part);
    if (middle == std::string::npos || !value || *value < 0) {
      fail<ConfigError>("--pixel", "got '{}', expected X,Y such as 120,80", text);
    }
    return *value;
  };
  const std::string_view all = text;
  const std::string_view first = all.substr(0, middle);
  const std::string_view second = middle == std::string::npos ? std::string_view() : all.substr(middle + 1);
  return {number(first), number(second)};
}

}  // namespace limbeck::apps
