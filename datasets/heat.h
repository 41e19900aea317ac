// What this is: numbers as colours: a colour map, heat maps over pictures, colour bars, matrices with names and numbers.
// Read next: compose.h (panels and text).
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "datasets/dataset.h"

namespace limbeck::datasets {

/// Colour of a share in [0, 1] (clamped): from dark violet over green to yellow, evenly lighter all the way, so that the order
/// also shows in grey and to colour-blind eyes. The anchors are those of matplotlib's viridis (CC0).
[[nodiscard]] Rgb heat_colour(double share);

/// What colours mean: `low` is the darkest, `high` the lightest; values beyond are clamped.
struct HeatRange {
  double low = 0;
  double high = 1;
};
/// The range of finite values; {v, v + 1} where all are equal to v.
[[nodiscard]] HeatRange range_of(std::span<const float> values);

/// One pixel per value, row by row. NaN is magenta, so that it is noticed.
/// Throws Error when there are not h * w values.
[[nodiscard]] Image heat_map(std::span<const float> values, std::int64_t h, std::int64_t w, HeatRange range);

/// The map over a grey version of the picture: (1 - alpha) * grey + alpha * colour.
/// Throws Error when there is not one value per pixel.
[[nodiscard]] Image heat_overlay(const Image& image, std::span<const float> values, HeatRange range,
                                 double alpha = 0.65);

/// A horizontal colour bar of `width` pixels with `label` on its left and the ends of the range written beside it.
[[nodiscard]] Image colour_bar(const std::string& label, HeatRange range, std::int64_t width, int text_scale = 1);

/// A square matrix as coloured cells, each with its number; row names on the left, column names above, written upwards.
/// Throws Error when there are not names * names values.
[[nodiscard]] Image matrix_picture(std::span<const float> values, const std::vector<std::string>& names,
                                   HeatRange range, int text_scale = 1);

/// A white cross with black edges and a red middle, for the pixel a picture is about.
void draw_marker(Image& image, std::int64_t y, std::int64_t x, std::int64_t size = 7);

}  // namespace limbeck::datasets
