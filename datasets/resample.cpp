#include "datasets/resample.h"

#include <algorithm>
#include <cmath>

#include "core/error.h"

namespace limbeck::datasets {

ResampleAxis::ResampleAxis(std::int64_t in, std::int64_t out, std::int64_t first, std::int64_t count) {
  LIMBECK_CHECK(in > 0 && out > 0 && first >= 0 && count >= 0 && first + count <= out, "resample",
                "window {}..{} of an axis resized from {} to {}", first, first + count, in, out);
  const double scale = static_cast<double>(in) / static_cast<double>(out);
  const double support = std::max(1.0, scale);  // half width of the triangle, in source pixels
  const auto widest = static_cast<std::int64_t>(2.0 * support) + 2;

  std::vector<double> row(static_cast<std::size_t>(widest));
  std::vector<std::vector<float>> all(static_cast<std::size_t>(count));
  start.resize(static_cast<std::size_t>(count));
  for (std::int64_t i = 0; i < count; ++i) {
    const double centre = (static_cast<double>(first + i) + 0.5) * scale - 0.5;
    const auto low = std::max<std::int64_t>(0, static_cast<std::int64_t>(std::floor(centre - support)) + 1);
    const auto high = std::min(in - 1, static_cast<std::int64_t>(std::ceil(centre + support)) - 1);
    double sum = 0;
    for (std::int64_t s = low; s <= high; ++s) {
      const double weight = std::max(0.0, 1.0 - std::abs(static_cast<double>(s) - centre) / support);
      row[static_cast<std::size_t>(s - low)] = weight;
      sum += weight;
    }
    auto& w = all[static_cast<std::size_t>(i)];
    for (std::int64_t s = low; s <= high; ++s) {
      w.push_back(static_cast<float>(row[static_cast<std::size_t>(s - low)] / sum));
    }
    start[static_cast<std::size_t>(i)] = low;
    taps = std::max(taps, static_cast<std::int64_t>(w.size()));
  }
  // One tap count for all pixels keeps the inner loops free of branches: shift the start so that it fits, pad with 0.
  weights.assign(static_cast<std::size_t>(count * taps), 0.0F);
  for (std::size_t i = 0; i < start.size(); ++i) {
    const std::int64_t shifted = std::min(start[i], in - taps);
    float* to = weights.data() + static_cast<std::int64_t>(i) * taps + (start[i] - shifted);
    std::copy(all[i].begin(), all[i].end(), to);
    start[i] = shifted;
  }
}

void resample_image(const Image& image, const ResampleAxis& rows, const ResampleAxis& columns, float* target,
                    std::int64_t row_stride) {
  if (rows.start.empty() || columns.start.empty()) return;
  const std::int64_t left = *std::min_element(columns.start.begin(), columns.start.end());
  const std::int64_t right = *std::max_element(columns.start.begin(), columns.start.end()) + columns.taps;
  const std::int64_t values = (right - left) * 3;
  std::vector<float> line(static_cast<std::size_t>(values));  // one output row at source width
  const auto height = static_cast<std::int64_t>(rows.start.size());
  const auto width = static_cast<std::int64_t>(columns.start.size());

  for (std::int64_t y = 0; y < height; ++y) {
    const float* wy = rows.weights.data() + y * rows.taps;
    float* t = line.data();
    for (std::int64_t k = 0; k < rows.taps; ++k) {
      const std::uint8_t* source = image.at(rows.start[static_cast<std::size_t>(y)] + k, left);
      const float w = wy[k];
      if (k == 0) {
#pragma omp simd
        for (std::int64_t i = 0; i < values; ++i) t[i] = w * static_cast<float>(source[i]);
      } else if (w != 0.0F) {
#pragma omp simd
        for (std::int64_t i = 0; i < values; ++i) t[i] += w * static_cast<float>(source[i]);
      }
    }
    float* out = target + y * row_stride;
    for (std::int64_t x = 0; x < width; ++x) {
      const float* wx = columns.weights.data() + x * columns.taps;
      const float* source = t + (columns.start[static_cast<std::size_t>(x)] - left) * 3;
      float r = 0;
      float g = 0;
      float b = 0;
      for (std::int64_t k = 0; k < columns.taps; ++k) {
        r += wx[k] * source[3 * k];
        g += wx[k] * source[3 * k + 1];
        b += wx[k] * source[3 * k + 2];
      }
      out[3 * x] = r;
      out[3 * x + 1] = g;
      out[3 * x + 2] = b;
    }
  }
}

std::vector<std::int64_t> nearest_indices(std::int64_t in, std::int64_t out, std::int64_t first, std::int64_t count) {
  std::vector<std::int64_t> index(static_cast<std::size_t>(count));
  // floor((s + 0.5) * in / out) in integers
  for (std::int64_t i = 0; i < count; ++i) {
    index[static_cast<std::size_t>(i)] = std::min(in - 1, ((2 * (first + i) + 1) * in) / (2 * out));
  }
  return index;
}

Image resize(const Image& image, std::int64_t h, std::int64_t w) {
  LIMBECK_CHECK(h > 0 && w > 0, "resize", "target size {}x{}, expected positive numbers", h, w);
  std::vector<float> values(static_cast<std::size_t>(h * w * 3));
  resample_image(image, ResampleAxis(image.h, h, 0, h), ResampleAxis(image.w, w, 0, w), values.data(), w * 3);
  Image out(h, w);
  for (std::size_t i = 0; i < values.size(); ++i) {
    out.rgb[i] = static_cast<std::uint8_t>(std::clamp(values[i] + 0.5F, 0.0F, 255.0F));
  }
  return out;
}

Mask resize(const Mask& mask, std::int64_t h, std::int64_t w) {
  LIMBECK_CHECK(h > 0 && w > 0, "resize", "target size {}x{}, expected positive numbers", h, w);
  const auto columns = nearest_indices(mask.w, w, 0, w);
  const auto rows = nearest_indices(mask.h, h, 0, h);
  Mask out(h, w);
  for (std::int64_t y = 0; y < h; ++y) {
    for (std::int64_t x = 0; x < w; ++x) {
      out.at(y, x) = mask.at(rows[static_cast<std::size_t>(y)], columns[static_cast<std::size_t>(x)]);
    }
  }
  return out;
}

}  // namespace limbeck::datasets
