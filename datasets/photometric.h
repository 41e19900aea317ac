// What this is: colour changes on a block of float pixels 0..255, the steps between cropping and normalisation.
// What it is not: the draws that decide on them; those belong to transforms.cpp. Labels are never touched here.
// Read next: transforms.h.
#pragma once

#include <cstdint>

#include "core/rng.h"

namespace limbeck::datasets {

/// Rows of RGB pixels inside a larger picture, `stride` floats apart.
struct PixelBlock {
  float* pixels;
  std::int64_t rows, columns, stride;
};

/// Scales saturation around each pixel's grey, then brightness, then contrast around the mean grey; clamps to 0..255.
void jitter(const PixelBlock& block, float brightness, float contrast, float saturation);

/// Separable Gaussian with standard deviation `sigma` in pixels; the border pixel repeats.
void blur(const PixelBlock& block, double sigma);

/// One draw of the photometric distortion of SSD and mmsegmentation: each change happens with probability 1/2.
/// Formula:  x + U(-32, 32); x * U(0.5, 1.5) either before or after the change in HSV: S * U(0.5, 1.5), H + 2 k degrees
///           with k uniform in -18..17; clamped to 0..255 behind each step
/// Units:    8-bit levels. Computed in floats: their code rounds to bytes between steps, which differs by a few levels.
/// Source:   mmsegmentation, PhotoMetricDistortion (default settings); Liu et al., SSD, ECCV 2016.
struct PhotometricDistortion {
  float brightness = 0;
  float contrast = 1;
  bool contrast_first = true;
  float saturation = 1;
  float hue_degrees = 0;

  [[nodiscard]] static PhotometricDistortion draw(Generator generator);
  void apply(const PixelBlock& block) const;
};

}  // namespace limbeck::datasets
