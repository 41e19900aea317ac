#include "datasets/compose.h"

#include <algorithm>
#include <array>

#include "core/error.h"

namespace limbeck::datasets {
namespace {

constexpr Rgb kGround{24, 26, 30};
constexpr Rgb kUnknown{255, 0, 255};
constexpr std::int64_t kGap = 4;  // pixels between panels
constexpr std::int64_t kLetterWidth = 5;
constexpr std::int64_t kLetterHeight = 7;

/// ASCII 32..126. 35 bits per letter: seven rows from the top, five bits each, the highest bit is the top left pixel.
constexpr std::array<std::uint64_t, 95> kLetters = {
    0x000000000, 0x108421004, 0x294000000, 0x295F57D4A, 0x11F4717C4, 0x672222273, 0x32544564D, 0x108000000, 0x088842082,
    0x208210888, 0x02AEFBAA0, 0x0084F9080, 0x000001888, 0x0000F8000, 0x00000018C, 0x042222210, 0x3A33AE62E, 0x11842108E,
    0x3A213221F, 0x3A213062E, 0x08CA97C42, 0x7E1E0862E, 0x3A10F462E, 0x7C2211084, 0x3A317462E, 0x3A317842E, 0x018C03180,
    0x018C03088, 0x088882082, 0x001F07C00, 0x208208888, 0x3A2111004, 0x3A37ADE0E, 0x11518FE31, 0x7A31F463E, 0x3A308422E,
    0x7A318C63E, 0x7E10F421F, 0x7E10F4210, 0x3A30BC62F, 0x4631FC631, 0x38842108E, 0x1C4210A4C, 0x4654C5251, 0x42108421F,
    0x4775AC631, 0x4739ACE71, 0x3A318C62E, 0x7A31F4210, 0x3A318D64D, 0x7A31F5251, 0x3E107043E, 0x7C8421084, 0x46318C62E,
    0x46318A944, 0x4631AD771, 0x462A22A31, 0x462A21084, 0x7C222221F, 0x39084210E, 0x420820821, 0x38421084E, 0x115100000,
    0x00000001F, 0x208000000, 0x000E0BE2F, 0x421E8C63E, 0x000F8420F, 0x042F8C62F, 0x000E8FE0E, 0x191E42108, 0x000F8BC2E,
    0x421E8C631, 0x100C2108E, 0x080610A4C, 0x4212A6292, 0x30842108E, 0x001AAD6B5, 0x001E8C631, 0x000E8C62E, 0x001E8FA10,
    0x000F8BC21, 0x0016CC210, 0x000F8383E, 0x211E42126, 0x00118C62F, 0x00118A944, 0x0011AD6AA, 0x001151151, 0x001151110,
    0x001F1111F, 0x188441086, 0x108421084, 0x30841108C, 0x0008A8800,
};

Rgb colour_of(std::uint8_t id, const std::vector<Rgb>& palette) noexcept {
  if (id == kIgnoreId) return {0, 0, 0};
  return id < palette.size() ? palette[id] : kUnknown;
}

void paste(const Image& source, Image& target, std::int64_t top, std::int64_t left) {
  for (std::int64_t y = 0; y < source.h; ++y) std::copy_n(source.at(y, 0), source.w * 3, target.at(top + y, left));
}

}  // namespace

Image colour_mask(const Mask& mask, const std::vector<Rgb>& palette) {
  Image out(mask.h, mask.w);
  for (std::size_t i = 0; i < mask.ids.size(); ++i) {
    const Rgb colour = colour_of(mask.ids[i], palette);
    std::copy(colour.begin(), colour.end(), out.rgb.begin() + static_cast<std::ptrdiff_t>(3 * i));
  }
  return out;
}

Image overlay(const Image& image, const Mask& mask, const std::vector<Rgb>& palette, double alpha) {
  LIMBECK_CHECK(image.h == mask.h && image.w == mask.w, "overlay", "picture {}x{}, mask {}x{}", image.w, image.h,
                mask.w, mask.h);
  LIMBECK_CHECK(alpha >= 0 && alpha <= 1, "overlay", "alpha {}, expected 0..1", alpha);
  const auto weight = static_cast<int>(alpha * 256 + 0.5);
  Image out = image;
  for (std::size_t i = 0; i < mask.ids.size(); ++i) {
    if (mask.ids[i] == kIgnoreId) continue;
    const Rgb colour = colour_of(mask.ids[i], palette);
    for (std::size_t c = 0; c < 3; ++c) {
      auto& v = out.rgb[3 * i + c];
      v = static_cast<std::uint8_t>((v * (256 - weight) + colour[c] * weight + 128) / 256);
    }
  }
  return out;
}

Image error_map(const Mask& truth, const Mask& prediction, const std::vector<Rgb>& palette) {
  LIMBECK_CHECK(truth.h == prediction.h && truth.w == prediction.w, "error_map", "truth {}x{}, prediction {}x{}",
                truth.w, truth.h, prediction.w, prediction.h);
  constexpr Rgb kRight{90, 90, 90};
  Image out(truth.h, truth.w);
  for (std::size_t i = 0; i < truth.ids.size(); ++i) {
    const std::uint8_t id = truth.ids[i];
    const Rgb colour = id != kIgnoreId && id == prediction.ids[i] ? kRight : colour_of(id, palette);
    std::copy(colour.begin(), colour.end(), out.rgb.begin() + static_cast<std::ptrdiff_t>(3 * i));
  }
  return out;
}

void fill_rect(Image& image, std::int64_t y, std::int64_t x, std::int64_t h, std::int64_t w, Rgb colour) {
  for (std::int64_t row = std::max<std::int64_t>(y, 0); row < std::min(y + h, image.h); ++row) {
    for (std::int64_t column = std::max<std::int64_t>(x, 0); column < std::min(x + w, image.w); ++column) {
      std::copy(colour.begin(), colour.end(), image.at(row, column));
    }
  }
}

std::int64_t text_width(std::string_view text, int scale) noexcept {
  const auto letters = static_cast<std::int64_t>(text.size());
  return letters == 0 ? 0 : (letters * (kLetterWidth + 1) - 1) * scale;
}

void draw_text(Image& image, std::int64_t y, std::int64_t x, std::string_view text, Rgb colour, int scale) {
  for (const char letter : text) {
    const auto code = static_cast<unsigned char>(letter);
    const std::uint64_t bits = kLetters[code >= 32 && code <= 126 ? code - 32U : '?' - 32U];
    for (std::int64_t dy = 0; dy < kLetterHeight * scale; ++dy) {
      for (std::int64_t dx = 0; dx < kLetterWidth * scale; ++dx) {
        const std::int64_t bit = kLetterWidth * kLetterHeight - 1 - ((dy / scale) * kLetterWidth + dx / scale);
        const bool inside = y + dy >= 0 && y + dy < image.h && x + dx >= 0 && x + dx < image.w;
        if (inside && ((bits >> static_cast<unsigned>(bit)) & 1U) != 0) {
          std::copy(colour.begin(), colour.end(), image.at(y + dy, x + dx));
        }
      }
    }
    x += (kLetterWidth + 1) * scale;
  }
}

Image side_by_side(const std::vector<Panel>& panels, int columns, int text_scale) {
  LIMBECK_CHECK(!panels.empty() && columns >= 1 && text_scale >= 1, "side_by_side",
                "{} panels in {} columns, text scale {}", panels.size(), columns, text_scale);
  const auto per_row = std::min(static_cast<std::size_t>(columns), panels.size());
  const std::size_t row_count = (panels.size() + per_row - 1) / per_row;
  std::vector<std::int64_t> widths(per_row, 0);
  std::vector<std::int64_t> heights(row_count, 0);
  for (std::size_t i = 0; i < panels.size(); ++i) {
    auto& width = widths[i % per_row];
    width = std::max({width, panels[i].image.w, text_width(panels[i].caption, text_scale)});
    heights[i / per_row] = std::max(heights[i / per_row], panels[i].image.h);
  }
  const bool captions = std::any_of(panels.begin(), panels.end(), [](const Panel& p) { return !p.caption.empty(); });
  const std::int64_t caption_height = captions ? kLetterHeight * text_scale + kGap : 0;
  std::int64_t total_w = kGap;
  for (const auto w : widths) total_w += w + kGap;
  std::int64_t total_h = kGap;
  for (const auto h : heights) total_h += h + caption_height + kGap;

  Image out(total_h, total_w, kGround);
  std::int64_t y = kGap;
  for (std::size_t row = 0; row < row_count; ++row) {
    std::int64_t x = kGap;
    for (std::size_t column = 0; column < per_row && row * per_row + column < panels.size(); ++column) {
      const Panel& panel = panels[row * per_row + column];
      draw_text(out, y, x, panel.caption, {240, 240, 240}, text_scale);
      paste(panel.image, out, y + caption_height, x);
      x += widths[column] + kGap;
    }
    y += heights[row] + caption_height + kGap;
  }
  return out;
}

Image enlarged(const Image& image, int factor) {
  LIMBECK_CHECK(factor >= 1, "enlarged", "factor {}, expected at least 1", factor);
  Image out(image.h * factor, image.w * factor);
  for (std::int64_t y = 0; y < out.h; ++y) {
    for (std::int64_t x = 0; x < out.w; ++x) std::copy_n(image.at(y / factor, x / factor), 3, out.at(y, x));
  }
  return out;
}

Image stacked(const std::vector<Image>& images, std::int64_t gap) {
  std::int64_t width = 0;
  std::int64_t height = 0;
  for (const auto& image : images) {
    width = std::max(width, image.w);
    height += image.h + (height > 0 ? gap : 0);
  }
  Image out(height, width, kGround);
  std::int64_t y = 0;
  for (const auto& image : images) {
    paste(image, out, y, 0);
    y += image.h + gap;
  }
  return out;
}

Image legend(const ClassInfo& classes, std::int64_t width, int text_scale) {
  const std::int64_t line = (kLetterHeight + 5) * text_scale;
  const std::int64_t patch = (kLetterHeight + 1) * text_scale;
  struct Place {
    std::int64_t y, x;
  };
  std::vector<Place> places;
  Place at{kGap, kGap};
  for (const auto& name : classes.names) {
    const std::int64_t entry = patch + kGap + text_width(name, text_scale);
    if (at.x > kGap && at.x + entry + kGap > width) at = {at.y + line, kGap};
    places.push_back(at);
    at.x += entry + 3 * kGap;
  }
  Image out(at.y + line, std::max<std::int64_t>(width, 2 * kGap), kGround);
  for (std::size_t k = 0; k < places.size(); ++k) {
    const Rgb colour = colour_of(static_cast<std::uint8_t>(std::min<std::size_t>(k, 254)), classes.palette);
    const auto [top, left] = places[k];
    fill_rect(out, top, left, patch, patch, colour);
    draw_text(out, top, left + patch + kGap, classes.names[k], {240, 240, 240}, text_scale);
  }
  return out;
}

}  // namespace limbeck::datasets
