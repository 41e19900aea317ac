// What this is: pictures for people: coloured masks, overlays, error maps, rows of captioned panels, class legends.
// Read next: palettes.h (the colours).
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "datasets/dataset.h"

namespace limbeck::datasets {

/// The mask in display colours. kIgnoreId is black; ids beyond the palette are magenta, so that they are noticed.
[[nodiscard]] Image colour_mask(const Mask& mask, const std::vector<Rgb>& palette);

/// The picture with the mask's colours mixed in: (1 - alpha) * picture + alpha * colour; ignored pixels stay as they
/// are. Throws Error when the sizes differ or alpha is outside [0, 1].
[[nodiscard]] Image overlay(const Image& image, const Mask& mask, const std::vector<Rgb>& palette, double alpha = 0.5);

/// Where a prediction is wrong: the truth's colour on wrong pixels, grey on right ones, black where there is no label.
/// Throws Error when the sizes differ.
[[nodiscard]] Image error_map(const Mask& truth, const Mask& prediction, const std::vector<Rgb>& palette);

struct Panel {
  Image image;
  std::string caption;
};

/// Panels in rows of `columns` on a dark ground, each with its caption above. Smaller panels keep their size.
/// `text_scale` enlarges the built-in 5x7 letters.
[[nodiscard]] Image side_by_side(const std::vector<Panel>& panels, int columns = 4, int text_scale = 1);

/// Every pixel as a square of `factor` x `factor`.
[[nodiscard]] Image enlarged(const Image& image, int factor);
/// Pictures one below the other, `gap` pixels apart, on the ground of side_by_side().
[[nodiscard]] Image stacked(const std::vector<Image>& images, std::int64_t gap = 0);

/// Colour patches with class names, wrapped to `width` pixels.
[[nodiscard]] Image legend(const ClassInfo& classes, std::int64_t width, int text_scale = 1);

/// Fills a rectangle, clipped at the picture's borders.
void fill_rect(Image& image, std::int64_t y, std::int64_t x, std::int64_t h, std::int64_t w, Rgb colour);

/// Writes ASCII text into the picture, clipped at its borders; other characters appear as '?'. Letters are 5x7 pixels
/// times `scale`, 6 apart.
void draw_text(Image& image, std::int64_t y, std::int64_t x, std::string_view text, Rgb colour = {240, 240, 240},
               int scale = 1);
/// Width of that text in pixels.
[[nodiscard]] std::int64_t text_width(std::string_view text, int scale = 1) noexcept;

}  // namespace limbeck::datasets
