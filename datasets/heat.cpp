#include "datasets/heat.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "core/error.h"
#include "core/log.h"
#include "datasets/compose.h"

namespace limbeck::datasets {
namespace {

constexpr Rgb kUnknown{255, 0, 255};
constexpr Rgb kGround{24, 26, 30};
constexpr Rgb kInk{240, 240, 240};
constexpr std::array<std::array<double, 3>, 9> kAnchors{{{68, 1, 84},
                                                         {71, 44, 122},
                                                         {59, 81, 139},
                                                         {44, 113, 142},
                                                         {33, 144, 141},
                                                         {39, 173, 129},
                                                         {92, 200, 99},
                                                         {170, 220, 50},
                                                         {253, 231, 37}}};

std::uint8_t to_byte(double v) { return static_cast<std::uint8_t>(std::lround(std::clamp(v, 0.0, 255.0))); }

double share_of(double value, HeatRange range) { return (value - range.low) / (range.high - range.low); }

Rgb colour_in(double value, HeatRange range) {
  return std::isfinite(value) ? heat_colour(share_of(value, range)) : kUnknown;
}

/// Black on light cells, white on dark ones.
Rgb ink_on(Rgb ground) {
  const int light = 2 * ground[0] + 5 * ground[1] + ground[2];
  return light > 8 * 125 ? Rgb{0, 0, 0} : Rgb{255, 255, 255};
}

/// The picture turned by a quarter to the left: text that runs to the right runs upwards afterwards.
Image turned(const Image& image) {
  Image out(image.w, image.h);
  for (std::int64_t y = 0; y < image.h; ++y) {
    for (std::int64_t x = 0; x < image.w; ++x) std::copy_n(image.at(y, x), 3, out.at(image.w - 1 - x, y));
  }
  return out;
}

void paste(const Image& source, Image& target, std::int64_t top, std::int64_t left) {
  for (std::int64_t y = 0; y < source.h; ++y) std::copy_n(source.at(y, 0), source.w * 3, target.at(top + y, left));
}

/// At most three significant digits and four letters, to fit a cell.
std::string cell_text(double v) {
  if (!std::isfinite(v)) return "nan";
  if (v == 0) return "0";
  const double size = std::abs(v);
  if (size >= 99.95) return fmt::format("{:.0f}", v);
  if (size >= 9.995) return fmt::format("{:.1f}", v);
  return fmt::format("{:.2f}", v);
}

}  // namespace

Rgb heat_colour(double share) {
  const double x = std::clamp(share, 0.0, 1.0) * static_cast<double>(kAnchors.size() - 1);
  const std::size_t left = std::min(static_cast<std::size_t>(x), kAnchors.size() - 2);
  const double t = x - static_cast<double>(left);
  Rgb colour{};
  for (std::size_t c = 0; c < 3; ++c)
    colour.at(c) = to_byte((1 - t) * kAnchors.at(left).at(c) + t * kAnchors.at(left + 1).at(c));
  return colour;
}

HeatRange range_of(std::span<const float> values) {
  HeatRange range{0, 1};
  bool any = false;
  for (const float v : values) {
    if (!std::isfinite(v)) continue;
    range.low = any ? std::min(range.low, static_cast<double>(v)) : static_cast<double>(v);
    range.high = any ? std::max(range.high, static_cast<double>(v)) : static_cast<double>(v);
    any = true;
  }
  if (range.low == range.high) range.high = range.low + 1;
  return range;
}

Image heat_map(std::span<const float> values, std::int64_t h, std::int64_t w, HeatRange range) {
  LIMBECK_CHECK(static_cast<std::int64_t>(values.size()) == h * w, "heat_map", "{} values for {}x{} pixels",
                values.size(), w, h);
  Image out(h, w);
  for (std::size_t i = 0; i < values.size(); ++i) {
    const Rgb colour = colour_in(values[i], range);
    std::copy(colour.begin(), colour.end(), out.rgb.begin() + static_cast<std::ptrdiff_t>(3 * i));
  }
  return out;
}

Image heat_overlay(const Image& image, std::span<const float> values, HeatRange range, double alpha) {
  Image out = heat_map(values, image.h, image.w, range);
  for (std::size_t i = 0; i < values.size(); ++i) {
    const double grey = 0.299 * image.rgb[3 * i] + 0.587 * image.rgb[3 * i + 1] + 0.114 * image.rgb[3 * i + 2];
    for (std::size_t c = 0; c < 3; ++c) out.rgb[3 * i + c] = to_byte((1 - alpha) * grey + alpha * out.rgb[3 * i + c]);
  }
  return out;
}

Image colour_bar(const std::string& label, HeatRange range, std::int64_t width, int text_scale) {
  const std::string low = format_short(range.low);
  const std::string high = format_short(range.high);
  const std::int64_t gap = 4 * text_scale;
  const std::int64_t height = 15 * text_scale;
  const std::int64_t left =
      gap + (label.empty() ? 0 : text_width(label, text_scale) + 2 * gap) + text_width(low, text_scale) + gap;
  const std::int64_t right = 2 * gap + text_width(high, text_scale);
  const std::int64_t bar = std::max<std::int64_t>(width - left - right, 20 * text_scale);
  Image out(height, left + bar + right, kGround);
  const std::int64_t text_top = 4 * text_scale;
  draw_text(out, text_top, gap, label, kInk, text_scale);
  draw_text(out, text_top, left - gap - text_width(low, text_scale), low, kInk, text_scale);
  draw_text(out, text_top, left + bar + gap, high, kInk, text_scale);
  for (std::int64_t x = 0; x < bar; ++x) {
    const double share = bar > 1 ? static_cast<double>(x) / static_cast<double>(bar - 1) : 0.0;
    fill_rect(out, 2 * text_scale, left + x, height - 4 * text_scale, 1, heat_colour(share));
  }
  return out;
}

Image matrix_picture(std::span<const float> values, const std::vector<std::string>& names, HeatRange range,
                     int text_scale) {
  const auto n = static_cast<std::int64_t>(names.size());
  LIMBECK_CHECK(static_cast<std::int64_t>(values.size()) == n * n, "matrix_picture",
                "{} values for {} names, expected {}", values.size(), n, n * n);
  std::int64_t longest = 0;
  for (const auto& name : names) longest = std::max(longest, text_width(name, text_scale));
  const std::int64_t letter = 7 * text_scale;
  const std::int64_t gap = 4 * text_scale;
  const std::int64_t cell_w = text_width("00.0", text_scale) + 2 * gap;
  const std::int64_t cell_h = letter + 3 * gap;
  const std::int64_t margin = longest + 2 * gap;
  Image out(margin + n * cell_h + gap, margin + n * cell_w + gap, kGround);
  for (std::int64_t i = 0; i < n; ++i) {
    const auto& name = names[static_cast<std::size_t>(i)];
    const std::int64_t width = text_width(name, text_scale);
    draw_text(out, margin + i * cell_h + (cell_h - letter) / 2, margin - gap - width, name, kInk, text_scale);
    if (width > 0) {
      Image text(letter, width, kGround);
      draw_text(text, 0, 0, name, kInk, text_scale);
      paste(turned(text), out, margin - gap - width, margin + i * cell_w + (cell_w - letter) / 2);
    }
    for (std::int64_t j = 0; j < n; ++j) {
      const double value = values[static_cast<std::size_t>(i * n + j)];
      const Rgb colour = colour_in(value, range);
      const std::int64_t top = margin + i * cell_h;
      const std::int64_t left = margin + j * cell_w;
      fill_rect(out, top, left, cell_h - 1, cell_w - 1, colour);
      const std::string text = cell_text(value);
      draw_text(out, top + (cell_h - letter) / 2, left + (cell_w - text_width(text, text_scale)) / 2, text,
                ink_on(colour), text_scale);
    }
  }
  return out;
}

void draw_marker(Image& image, std::int64_t y, std::int64_t x, std::int64_t size) {
  constexpr Rgb kBlack{0, 0, 0};
  constexpr Rgb kWhite{255, 255, 255};
  const auto cross = [&](std::int64_t arm, std::int64_t thick, Rgb colour) {
    fill_rect(image, y - thick, x - arm, 2 * thick + 1, 2 * arm + 1, colour);
    fill_rect(image, y - arm, x - thick, 2 * arm + 1, 2 * thick + 1, colour);
  };
  const std::int64_t thick = std::max<std::int64_t>(1, size / 5);
  cross(size + 1, thick + 1, kBlack);
  cross(size, thick, kWhite);
  fill_rect(image, y - thick, x - thick, 2 * thick + 1, 2 * thick + 1, {255, 40, 40});
}

}  // namespace limbeck::datasets
