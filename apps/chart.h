// What this is: simple charts made of boxes and labels, so that one layout becomes both an SVG element and a picture.
// What it is not: the curves of a run (report.h).
// Read next: sweep_table.cpp, which draws bars with it.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "datasets/dataset.h"

namespace limbeck::apps {

/// Coordinates are in units of about a screen pixel, y downwards; a label of n letters is about 6 n wide and 7 high.
struct Chart {
  enum class Anchor : std::uint8_t { kStart, kMiddle, kEnd };
  struct Box {
    double x, y, w, h;
    datasets::Rgb colour;
  };
  struct Label {
    double x, y;  ///< y of the base line
    std::string text;
    Anchor anchor = Anchor::kStart;
    bool title = false;
  };
  double width = 0;
  double height = 0;
  std::vector<Box> boxes;  ///< later ones cover earlier ones
  std::vector<Label> labels;
};

/// One method of a bar chart: the mean of some values, and the same for their differences to a baseline.
struct Bar {
  std::string name;
  double mean = 0;
  std::vector<double> values;       ///< one dot each
  std::vector<double> differences;  ///< empty for the baseline itself
};

/// Two panels side by side: means as bars from zero, and mean differences as bars to the left and right of a zero line, both
/// with a dot per value and a whisker of one standard deviation.
[[nodiscard]] Chart bar_chart(const std::string& title, const std::string& difference_title,
                              const std::vector<Bar>& bars);

[[nodiscard]] std::string to_svg(const Chart& chart);
/// On white, `scale` pixels per unit.
[[nodiscard]] datasets::Image to_image(const Chart& chart, int scale = 2);

/// A round distance of ticks, 1, 2 or 5 times a power of ten, about five in `range`.
[[nodiscard]] double tick_step(double range);

}  // namespace limbeck::apps
