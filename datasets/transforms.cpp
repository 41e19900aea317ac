#include "datasets/transforms.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "core/error.h"
#include "datasets/photometric.h"
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

Normalisation Normalisation::bgr_mean() {
  Normalisation n;
  n.scale = {1, 1, 1};
  n.shift = {-104.00698793F, -116.66876762F, -122.67891434F};
  n.bgr = true;
  return n;
}

Normalisation Normalisation::parse(const std::string& name) {
  if (name == "imagenet") return imagenet();
  if (name == "symmetric") return symmetric();
  if (name == "bgr_mean") return bgr_mean();
  fail<ConfigError>("data", "normalisation '{}' is unknown, expected imagenet, symmetric or bgr_mean", name);
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
  const auto size = [](std::int64_t h, std::int64_t w) {
    return (h > 0) == (w > 0) && h >= 0 && std::max(h, w) <= kMaxSide;
  };
  need(size(o.resize_h, o.resize_w), "resize needs a positive height and width, at most 65536");
  need(size(o.crop_h, o.crop_w), "crop needs a positive height and width, at most 65536");
  need(o.scale_min > 0 && o.scale_max >= o.scale_min && o.scale_max <= 100,
       "scale range: expected 0 < scale_min <= scale_max <= 100");
  need(o.scale_step >= 0, "scale_step must not be negative");
  need(o.short_side_min >= 0 && o.short_side_max >= o.short_side_min && o.short_side_max <= kMaxSide &&
           (o.short_side_min > 0) == (o.short_side_max > 0),
       "short side range: expected 0 < short_side_min <= short_side_max <= 65536");
  const bool scaled = o.scale_min != 1 || o.scale_max != 1;
  need(!(scaled && o.short_side_max > 0), "scale range and short side range exclude each other");
  need(o.crop_h > 0 || (!scaled && o.short_side_max == 0),
       "random scale gives pictures of different sizes; set a crop size");
  need(o.area_min >= 0 && o.area_max >= o.area_min && o.area_max <= 1 && (o.area_min > 0) == (o.area_max > 0),
       "area range: expected 0 < area_min <= area_max <= 1");
  need(o.area_max == 0 || (!scaled && o.short_side_max == 0 && o.crop_h > 0),
       "area range needs a crop size, and excludes scale range and short side range");
  need(o.aspect >= 1 && o.aspect <= 10, "aspect is in [1, 10]");
  const auto share = [](double p) { return p >= 0 && p <= 1; };
  need(share(o.flip) && share(o.blur), "flip and blur are probabilities in [0, 1]");
  need(share(o.brightness) && share(o.contrast) && share(o.saturation),
       "brightness, contrast and saturation are in [0, 1]");
  need(o.blur_sigma > 0 && o.blur_sigma <= 20, "blur_sigma is in (0, 20] pixels");
  need(!o.pad_background || (o.crop_h > 0 && o.area_max == 0),
       "pad_label background: only a crop of fixed size pads; give `crop`, without `area`");
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

constexpr std::uint8_t kFirstClass = 0;

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

/// A region of random area and aspect that fills the output, as a window of the picture resized by its two factors.
/// Source: the behaviour of torchvision's RandomResizedCrop; positions are rounded to whole output pixels.
Window area_window(const Image& image, const TransformOptions& o, Generator g) {
  const auto h = static_cast<double>(image.h);
  const auto w = static_cast<double>(image.w);
  const double log_aspect = std::log(o.aspect);
  double rows = 0;
  double columns = 0;
  bool fits = false;
  for (int attempt = 0; attempt < 10 && !fits; ++attempt) {
    const double area = h * w * g.uniform(o.area_min, o.area_max);
    const double aspect = std::exp(g.uniform(-log_aspect, log_aspect));
    rows = std::round(std::sqrt(area / aspect));
    columns = std::round(std::sqrt(area * aspect));
    fits = rows >= 1 && columns >= 1 && rows <= h && columns <= w;
  }
  double top = std::floor(g.uniform() * (h - rows + 1));
  double left = std::floor(g.uniform() * (w - columns + 1));
  if (!fits) {  // the middle, as much of it as the aspect allows
    rows = std::min(h, std::round(w * o.aspect));
    columns = std::min(w, std::round(h * o.aspect));
    top = std::floor((h - rows) / 2);
    left = std::floor((w - columns) / 2);
  }
  const double scale_y = static_cast<double>(o.crop_h) / rows;
  const double scale_x = static_cast<double>(o.crop_w) / columns;
  Window win{};
  win.h = std::max(o.crop_h, static_cast<std::int64_t>(std::llround(h * scale_y)));
  win.w = std::max(o.crop_w, static_cast<std::int64_t>(std::llround(w * scale_x)));
  win.top = std::min<std::int64_t>(std::llround(top * scale_y), win.h - o.crop_h);
  win.left = std::min<std::int64_t>(std::llround(left * scale_x), win.w - o.crop_w);
  win.rows = o.crop_h;
  win.columns = o.crop_w;
  return win;
}

void take_labels(const Mask& mask, const Window& win, std::uint8_t padding, std::int64_t h, std::int64_t w,
                 std::uint8_t* labels) {
  std::fill_n(labels, h * w, padding);
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

/// The whole output from a block inside a buffer of that size: `inside` writes a pixel of it, outside lies `pad`.
template <class T, class Inside>
void finish(const PixelBlock& b, const float* buffer, std::int64_t h, std::int64_t w, const std::array<T, 3>& pad,
            T* out, const Inside& inside) {
  const std::int64_t first = (b.pixels - buffer) / 3 % w;  // 0, or the padding on the left after a flip
  for (std::int64_t y = 0; y < h; ++y) {
    for (std::int64_t x = 0; x < w; ++x) {
      const std::int64_t at = 3 * (y * w + x);
      if (y < b.rows && x >= first && x < first + b.columns) {
        const std::array<float, 3> rgb{buffer[at], buffer[at + 1], buffer[at + 2]};  // `out` may be the buffer
        inside(rgb, out + at);
      } else {
        std::copy(pad.begin(), pad.end(), out + at);
      }
    }
  }
}

std::uint8_t nearest_byte(float v) { return static_cast<std::uint8_t>(std::clamp(v + 0.5F, 0.0F, 255.0F)); }

void mirror(const PixelBlock& b) {
  for (std::int64_t y = 0; y < b.rows; ++y) {
    float* row = b.pixels + y * b.stride;
    for (std::int64_t l = 0, r = b.columns - 1; l < r; ++l, --r)
      std::swap_ranges(row + 3 * l, row + 3 * l + 3, row + 3 * r);
  }
}

/// Draws where the window lies until the labels inside are mixed enough, and writes them.
void place_window(const Sample& sample, const TransformOptions& o, Generator& g, Window& win, std::int64_t h,
                  std::int64_t w, std::uint8_t* labels) {
  win.rows = std::min(h, win.h);
  win.columns = std::min(w, win.w);
  constexpr int kTries = 11;  // a first crop and up to 10 more
  for (int attempt = 0; attempt < kTries; ++attempt) {
    win.top = static_cast<std::int64_t>(g.below(static_cast<std::uint64_t>(win.h - win.rows + 1)));
    win.left = static_cast<std::int64_t>(g.below(static_cast<std::uint64_t>(win.w - win.columns + 1)));
    if (labels == nullptr) break;
    take_labels(sample.mask, win, o.pad_background ? kFirstClass : kIgnoreId, h, w, labels);
    if (o.max_class_share >= 1 || largest_share(labels, h * w) <= o.max_class_share) break;
  }
}

/// A stream beside that of the sample, for options that came later: its draws leave the older ones as they were.
Generator side_stream(const Generator& g, std::uint64_t use) {
  return Generator(g.seed(), mix_stream(g.stream(), use));
}

/// Everything but the last step: colours 0..255 in a block of a buffer as large as the output.
PixelBlock augment(const Sample& sample, const TransformOptions& o, Generator g, float* image, std::uint8_t* labels) {
  const auto [h, w] = output_size(o, sample.image.h, sample.image.w);
  const bool masked = sample.label < 0;
  LIMBECK_CHECK(!masked || (sample.image.h == sample.mask.h && sample.image.w == sample.mask.w), "transform",
                "sample '{}': image {}x{}, mask {}x{}", sample.name, sample.image.w, sample.image.h, sample.mask.w,
                sample.mask.h);
  if (!masked) labels = nullptr;
  // The order of the draws is part of the contract, see Note [repeatable augmentation].
  const Generator start = g;
  Window win = scaled_size(sample.image, o, g.uniform());
  const bool flip = g.uniform() < o.flip;
  const auto factor = [&](double range) { return static_cast<float>(1 + range * g.uniform(-1, 1)); };
  const float brightness = factor(o.brightness);
  const float contrast = factor(o.contrast);
  const float saturation = factor(o.saturation);
  const bool blurred = g.uniform() < o.blur;
  const double sigma = o.blur_sigma * (1 - g.uniform());  // (0, blur_sigma]
  if (o.area_max > 0) {
    win = area_window(sample.image, o, side_stream(start, 1));
    win.flip = flip;
    if (labels != nullptr) take_labels(sample.mask, win, kIgnoreId, h, w, labels);
  } else {
    win.flip = flip;
    place_window(sample, o, g, win, h, w, labels);
  }

  const std::int64_t left_padding = win.flip ? w - win.columns : 0;
  const PixelBlock block{image + left_padding * 3, win.rows, win.columns, w * 3};
  resample_image(sample.image, ResampleAxis(sample.image.h, win.h, win.top, win.rows),
                 ResampleAxis(sample.image.w, win.w, win.left, win.columns), block.pixels, block.stride);
  if (win.flip) mirror(block);
  if (o.photometric) PhotometricDistortion::draw(side_stream(start, 2)).apply(block);
  if (o.brightness > 0 || o.contrast > 0 || o.saturation > 0) jitter(block, brightness, contrast, saturation);
  if (blurred) blur(block, sigma);
  return block;
}

}  // namespace

void transform_sample(const Sample& sample, const TransformOptions& o, Generator g, float* image,
                      std::uint8_t* labels) {
  const auto [h, w] = output_size(o, sample.image.h, sample.image.w);
  const PixelBlock block = augment(sample, o, g, image, labels);
  std::array<float, 3> pad{};
  if (!o.pad_zero) o.normalisation.apply(o.pad_colour.data(), pad.data());
  finish(block, image, h, w, pad, image,
         [&](const std::array<float, 3>& rgb, float* to) { o.normalisation.apply(rgb.data(), to); });
}

void transform_sample(const Sample& sample, const TransformOptions& o, Generator g, std::uint8_t* image,
                      std::uint8_t* labels) {
  LIMBECK_CHECK(!o.pad_zero, "transform", "pictures of bytes cannot be padded with the network's zero");
  const auto [h, w] = output_size(o, sample.image.h, sample.image.w);
  static thread_local std::vector<float> buffer;  // of a worker, for all of its samples
  buffer.resize(static_cast<std::size_t>(3 * h * w));
  const PixelBlock block = augment(sample, o, g, buffer.data(), labels);
  const auto channel = [&](std::size_t c) { return o.normalisation.bgr ? 2 - c : c; };
  std::array<std::uint8_t, 3> pad{};
  for (std::size_t c = 0; c < 3; ++c) pad[c] = o.pad_colour[channel(c)];
  finish(block, buffer.data(), h, w, pad, image, [&](const std::array<float, 3>& rgb, std::uint8_t* to) {
    for (std::size_t c = 0; c < 3; ++c) to[c] = nearest_byte(rgb[channel(c)]);
  });
}

}  // namespace limbeck::datasets
