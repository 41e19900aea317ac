#include "datasets/transforms.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "core/error.h"
#include "datasets/resample.h"

namespace limbeck::datasets {

// --- options --------------------------------------------------------------------------------------------------------

Normalisation Normalisation::from_mean_std(const std::array<double, 3>& mean, const std::array<double, 3>& stddev) {
  Normalisation n;
  for (std::size_t c = 0; c < 3; ++c) {
    n.scale[c] = static_cast<float>(1.0 / (255.0 * stddev[c]));
    n.shift[c] = static_cast<float>(-mean[c] / stddev[c]);
  }
  return n;
}

Normalisation Normalisation::imagenet() { return from_mean_std({0.485, 0.456, 0.406}, {0.229, 0.224, 0.225}); }
Normalisation Normalisation::symmetric() { return from_mean_std({0.5, 0.5, 0.5}, {0.5, 0.5, 0.5}); }

Normalisation Normalisation::parse(const std::string& name) {
  if (name == "imagenet") return imagenet();
  if (name == "symmetric") return symmetric();
  fail<ConfigError>("data", "normalisation '{}' is unknown, expected imagenet or symmetric", name);
}

TransformOptions TransformOptions::training(std::int64_t crop_h, std::int64_t crop_w) {
  TransformOptions o;
  o.crop_h = crop_h;
  o.crop_w = crop_w;
  o.scale_min = 0.5;
  o.scale_max = 2.0;
  o.flip = 0.5;
  o.brightness = o.contrast = o.saturation = 0.3;
  return o;
}

TransformOptions TransformOptions::evaluation(std::int64_t resize_h, std::int64_t resize_w) {
  TransformOptions o;
  o.resize_h = resize_h;
  o.resize_w = resize_w;
  return o;
}

void check_options(const TransformOptions& o) {
  const auto need = [](bool condition, const char* text) {
    if (!condition) fail<ConfigError>("data", "{}", text);
  };
  need((o.resize_h > 0) == (o.resize_w > 0) && o.resize_h >= 0, "resize needs a positive height and width");
  need((o.crop_h > 0) == (o.crop_w > 0) && o.crop_h >= 0, "crop needs a positive height and width");
  need(o.scale_min > 0 && o.scale_max >= o.scale_min, "scale range: expected 0 < scale_min <= scale_max");
  need(o.scale_step >= 0, "scale_step must not be negative");
  need(
      o.short_side_min >= 0 && o.short_side_max >= o.short_side_min && (o.short_side_min > 0) == (o.short_side_max > 0),
      "short side range: expected 0 < short_side_min <= short_side_max");
  const bool scaled = o.scale_min != 1 || o.scale_max != 1;
  need(!(scaled && o.short_side_max > 0), "scale range and short side range exclude each other");
  need(o.crop_h > 0 || (!scaled && o.short_side_max == 0),
       "random scale gives pictures of different sizes; set a crop size");
  const auto share = [](double p) { return p >= 0 && p <= 1; };
  need(share(o.flip) && share(o.blur), "flip and blur are probabilities in [0, 1]");
  need(share(o.brightness) && share(o.contrast) && share(o.saturation),
       "brightness, contrast and saturation are in [0, 1]");
  need(o.blur_sigma > 0 && o.blur_sigma <= 20, "blur_sigma is in (0, 20] pixels");
  need(o.max_class_share > 0 && o.max_class_share <= 1, "max_class_share is in (0, 1]");
}

std::array<std::int64_t, 2> output_size(const TransformOptions& o, std::int64_t h, std::int64_t w) {
  if (o.crop_h > 0) return {o.crop_h, o.crop_w};
  if (o.resize_h > 0) return {o.resize_h, o.resize_w};
  return {h, w};
}

Generator augmentation_stream(std::uint64_t seed, std::uint64_t epoch, std::uint64_t index) noexcept {
  constexpr std::uint64_t kAugmentation = 0x6175676DU;  // keeps the stream apart from other uses of (epoch, index)
  return Generator(seed, mix_stream(epoch, index, kAugmentation));
}

namespace {

// --- geometry -------------------------------------------------------------------------------------------------------

/// Where the output comes from: the picture is resized to (h, w), then the window at (top, left) is taken. `rows` and
/// `columns` are what of the window lies inside; the rest is padding at the bottom and on the right.
struct Window {
  std::int64_t h, w;
  std::int64_t top = 0, left = 0;
  std::int64_t rows, columns;
  bool flip = false;
};

Window scaled_size(const Image& image, const TransformOptions& o, double u) {
  const auto base_h = static_cast<double>(o.resize_h > 0 ? o.resize_h : image.h);
  const auto base_w = static_cast<double>(o.resize_h > 0 ? o.resize_w : image.w);
  double scale = o.scale_min + (o.scale_max - o.scale_min) * u;
  if (o.short_side_max > 0) {
    const auto choices = static_cast<double>(o.short_side_max - o.short_side_min + 1);
    scale = (static_cast<double>(o.short_side_min) + std::floor(u * choices)) / std::min(base_h, base_w);
  } else if (o.scale_step > 0) {
    const double choices = std::floor((o.scale_max - o.scale_min) / o.scale_step + 1e-6) + 1;
    scale = o.scale_min + std::floor(u * choices) * o.scale_step;
  }
  Window window{};
  window.h = std::max<std::int64_t>(1, std::llround(base_h * scale));
  window.w = std::max<std::int64_t>(1, std::llround(base_w * scale));
  return window;
}

void take_labels(const Mask& mask, const Window& win, std::int64_t h, std::int64_t w, std::uint8_t* labels) {
  std::fill_n(labels, h * w, kIgnoreId);
  const auto rows = nearest_indices(mask.h, win.h, win.top, win.rows);
  const auto columns = nearest_indices(mask.w, win.w, win.left, win.columns);
  for (std::int64_t y = 0; y < win.rows; ++y) {
    const std::uint8_t* source = mask.ids.data() + rows[static_cast<std::size_t>(y)] * mask.w;
    std::uint8_t* out = labels + y * w;
    for (std::int64_t x = 0; x < win.columns; ++x) {
      out[win.flip ? w - 1 - x : x] = source[columns[static_cast<std::size_t>(x)]];
    }
  }
}

/// Share of the most frequent class among the labelled pixels; 1 if there are none.
double largest_share(const std::uint8_t* labels, std::int64_t count) {
  std::array<std::int64_t, 256> histogram{};
  for (std::int64_t i = 0; i < count; ++i) ++histogram[labels[i]];
  const std::int64_t labelled = count - histogram[kIgnoreId];
  histogram[kIgnoreId] = 0;
  if (labelled == 0) return 1;
  return static_cast<double>(*std::max_element(histogram.begin(), histogram.end())) / static_cast<double>(labelled);
}

// --- colour; `pixels` is the window's part of the output, rows of `columns` pixels, `stride` floats apart ------------

struct Block {
  float* pixels;
  std::int64_t rows, columns, stride;
};

float grey_of(const float* p) noexcept { return 0.299F * p[0] + 0.587F * p[1] + 0.114F * p[2]; }

void jitter(const Block& b, float brightness, float contrast, float saturation) {
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
void blur(const Block& b, double sigma) {
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

/// Bytes -> network input over the whole output. Pixels outside the block become the pad colour.
void finish(const Block& b, const TransformOptions& o, float* image, std::int64_t h, std::int64_t w) {
  const auto& [scale, shift] = o.normalisation;
  std::array<float, 3> pad{};
  for (std::size_t c = 0; c < 3; ++c) pad[c] = static_cast<float>(o.pad_colour[c]) * scale[c] + shift[c];
  const std::int64_t first = (b.pixels - image) / 3 % w;  // 0, or the padding on the left after a flip
  for (std::int64_t y = 0; y < h; ++y) {
    float* row = image + y * w * 3;
    for (std::int64_t x = 0; x < w; ++x) {
      const bool inside = y < b.rows && x >= first && x < first + b.columns;
      for (std::size_t c = 0; c < 3; ++c) {
        float& v = row[3 * x + static_cast<std::int64_t>(c)];
        v = inside ? v * scale[c] + shift[c] : pad[c];
      }
    }
  }
}

void mirror(const Block& b) {
  for (std::int64_t y = 0; y < b.rows; ++y) {
    float* row = b.pixels + y * b.stride;
    for (std::int64_t l = 0, r = b.columns - 1; l < r; ++l, --r)
      std::swap_ranges(row + 3 * l, row + 3 * l + 3, row + 3 * r);
  }
}

}  // namespace

void transform_sample(const Sample& sample, const TransformOptions& o, Generator g, float* image,
                      std::uint8_t* labels) {
  const auto [h, w] = output_size(o, sample.image.h, sample.image.w);
  LIMBECK_CHECK(sample.image.h == sample.mask.h && sample.image.w == sample.mask.w, "transform",
                "sample '{}': image {}x{}, mask {}x{}", sample.name, sample.image.w, sample.image.h, sample.mask.w,
                sample.mask.h);
  // The order of the draws is part of the contract, see Note [repeatable augmentation].
  Window win = scaled_size(sample.image, o, g.uniform());
  win.flip = g.uniform() < o.flip;
  const auto factor = [&](double range) { return static_cast<float>(1 + range * g.uniform(-1, 1)); };
  const float brightness = factor(o.brightness);
  const float contrast = factor(o.contrast);
  const float saturation = factor(o.saturation);
  const bool blurred = g.uniform() < o.blur;
  const double sigma = o.blur_sigma * (1 - g.uniform());  // (0, blur_sigma]

  win.rows = std::min(h, win.h);
  win.columns = std::min(w, win.w);
  constexpr int kTries = 10;
  for (int attempt = 0; attempt < kTries; ++attempt) {
    win.top = static_cast<std::int64_t>(g.below(static_cast<std::uint64_t>(win.h - win.rows + 1)));
    win.left = static_cast<std::int64_t>(g.below(static_cast<std::uint64_t>(win.w - win.columns + 1)));
    take_labels(sample.mask, win, h, w, labels);
    if (o.max_class_share >= 1 || largest_share(labels, h * w) <= o.max_class_share) break;
  }

  const std::int64_t left_padding = win.flip ? w - win.columns : 0;
  const Block block{image + left_padding * 3, win.rows, win.columns, w * 3};
  resample_image(sample.image, ResampleAxis(sample.image.h, win.h, win.top, win.rows),
                 ResampleAxis(sample.image.w, win.w, win.left, win.columns), block.pixels, block.stride);
  if (win.flip) mirror(block);
  if (o.brightness > 0 || o.contrast > 0 || o.saturation > 0) jitter(block, brightness, contrast, saturation);
  if (blurred) blur(block, sigma);
  finish(block, o, image, h, w);
}

}  // namespace limbeck::datasets
