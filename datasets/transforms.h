// What this is: from a Sample to numbers for the network: random scale, crop, flip, colour jitter, blur, normalisation.
// What it is not: batching and threads (loader.h); single conversions for prediction and pictures (convert.h).
// Read next: loader.h.
//
// Note [label-safe augmentation]
//   Geometry moves picture and mask together; only the picture is interpolated. Pixels outside the source get the pad
//   colour in the picture and kIgnoreId in the mask, not class 0: padding with 0 teaches the network that grey
//   borders are the first class. Released code of AICSD does just that on VOC, where class 0 is the background:
//   `pad_background` repeats it.
// Note [repeatable augmentation]
//   All random numbers of a sample come from Generator(seed, mix_stream(epoch, index, ..)) and are drawn in a fixed
//   order, used or not; area crops and the photometric distortion have streams of their own. Results do not depend on
//   threads or ranks, and switching one augmentation on leaves the others as they were.
#pragma once

#include <array>
#include <cmath>
#include <cstdint>
#include <string>

#include "core/rng.h"
#include "datasets/dataset.h"

namespace limbeck::datasets {

/// Network input from byte values: y = x * scale + shift per channel of the network, which are red, green, blue, or
/// blue, green, red.
struct Normalisation {
  std::array<float, 3> scale{};
  std::array<float, 3> shift{};
  bool bgr = false;  ///< the network's first channel is blue

  /// Writes the network input of one RGB pixel, rounded once. The two must not overlap.
  template <class T>
  void apply(const T* rgb, float* out) const noexcept {
    for (std::size_t c = 0; c < 3; ++c) out[c] = std::fma(static_cast<float>(rgb[bgr ? 2 - c : c]), scale[c], shift[c]);
  }
  /// y = (x / 255 - mean) / stddev with the ImageNet statistics; what torchvision's weights expect.
  [[nodiscard]] static Normalisation imagenet();
  /// y = x / 127.5 - 1.
  [[nodiscard]] static Normalisation symmetric();
  /// y = x - (104.00698793, 116.66876762, 122.67891434) for blue, green, red: Caffe's habit, kept by the code bases of
  /// channel-wise and structured distillation.
  [[nodiscard]] static Normalisation bgr_mean();
  /// y = (x / 255 - mean) / stddev; mean and stddev in units of [0, 1].
  [[nodiscard]] static Normalisation from_mean_std(const std::array<double, 3>& mean,
                                                   const std::array<double, 3>& stddev);
  /// "imagenet", "symmetric" or "bgr_mean"; ConfigError otherwise.
  [[nodiscard]] static Normalisation parse(const std::string& name);
  friend bool operator==(const Normalisation&, const Normalisation&) = default;
};

/// Longest side that pictures are scaled or cut to, in pixels.
inline constexpr std::int64_t kMaxSide = 65536;

struct TransformOptions {
  // geometry; sizes in pixels, 0 = off
  std::int64_t resize_h = 0, resize_w = 0;              ///< size before everything else (both or none)
  std::int64_t crop_h = 0, crop_w = 0;                  ///< random window after scaling (both or none)
  double scale_min = 1, scale_max = 1;                  ///< random scale range
  double scale_step = 0;                                ///< 0: uniform; else scales are scale_min + k * scale_step
  std::int64_t short_side_min = 0, short_side_max = 0;  ///< instead of a scale: random length of the shorter side
  double area_min = 0, area_max = 0;  ///< instead of a scale: share of the picture that becomes the crop
  double aspect = 4.0 / 3.0;          ///< with area: width / height changes by [1/aspect, aspect]
  double flip = 0;                    ///< probability of a horizontal flip
  double max_class_share = 1;  ///< draw another crop (up to 10 times) while one class covers more than this share

  // colour; 0 = off
  double brightness = 0;     ///< factor from [1 - b, 1 + b]
  double contrast = 0;       ///< factor around the mean grey from [1 - c, 1 + c]
  double saturation = 0;     ///< factor around each pixel's grey from [1 - s, 1 + s]
  bool photometric = false;  ///< the distortion of photometric.h, before the other colour changes
  double blur = 0;           ///< probability of a Gaussian blur
  double blur_sigma = 1;     ///< its standard deviation is uniform in (0, blur_sigma] pixels

  Rgb pad_colour{124, 116, 104};  ///< ImageNet mean: 0 after imagenet normalisation, but for rounding
  bool pad_zero = false;          ///< pad with exactly 0 behind the normalisation instead
  bool pad_background =
      false;  ///< labels of the padding are class 0, not kIgnoreId; see Note [label-safe augmentation]
  Normalisation normalisation = Normalisation::imagenet();

  /// Scale 0.5..2, crop, flip 0.5, jitter 0.3, as most recipes use.
  [[nodiscard]] static TransformOptions training(std::int64_t crop_h, std::int64_t crop_w);
  /// No randomness; whole picture (resized when a size is given).
  [[nodiscard]] static TransformOptions evaluation(std::int64_t resize_h = 0, std::int64_t resize_w = 0);
};

/// Throws ConfigError naming the option that is out of range or contradicts another.
void check_options(const TransformOptions& options);

/// Height and width that transform_sample() gives for a picture of this size.
[[nodiscard]] std::array<std::int64_t, 2> output_size(const TransformOptions& options, std::int64_t h, std::int64_t w);

/// The random stream of one sample in one epoch.
[[nodiscard]] Generator augmentation_stream(std::uint64_t seed, std::uint64_t epoch, std::uint64_t index) noexcept;

/// Writes the transformed sample.
/// Shapes:  image [h, w, 3] floats, labels [h, w] bytes, both dense, h and w = output_size(...): one entry of a batch.
///          `labels` is not touched for a sample with one class for the whole picture and may be null then.
/// Units:   normalised colours; train ids with kIgnoreId.
void transform_sample(const Sample& sample, const TransformOptions& options, Generator generator, float* image,
                      std::uint8_t* labels);

/// The same with the picture as bytes, for normalise() (normalise.h): colours are rounded to whole levels, as they are in
/// training code that augments pictures of bytes.
/// Shapes:  as above with image u8 [h, w, 3], in the order of the network's channels
/// Throws:  pad_zero: no byte is 0 behind the normalisation
void transform_sample(const Sample& sample, const TransformOptions& options, Generator generator, std::uint8_t* image,
                      std::uint8_t* labels);

}  // namespace limbeck::datasets
