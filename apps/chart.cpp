#include "apps/chart.h"

#include <algorithm>
#include <cmath>

#include "apps/html.h"
#include "apps/statistics.h"
#include "core/log.h"
#include "datasets/compose.h"

namespace limbeck::apps {
namespace {

constexpr datasets::Rgb kGrid{228, 228, 228};
constexpr datasets::Rgb kAxis{120, 120, 120};
constexpr datasets::Rgb kBar{31, 119, 180};
constexpr datasets::Rgb kBetter{44, 140, 60};
constexpr datasets::Rgb kWorse{196, 60, 50};
constexpr datasets::Rgb kInk{20, 20, 20};
constexpr double kRow = 22;
constexpr double kTop = 34;
constexpr double kPanel = 300;

/// A panel with a horizontal axis from `low` to `high`; draws grid and tick labels.
class Panel {
 public:
  Panel(Chart& chart, double left, double low, double high, double bottom)
      : chart_(chart), left_(left), low_(low), scale_(kPanel / (high - low)) {
    const double step = tick_step(high - low);
    for (double v = std::ceil(low / step) * step; v <= high + step * 1e-9; v += step) {
      const double value = std::abs(v) < step * 1e-9 ? 0.0 : v;
      chart.boxes.push_back({x(value), kTop, 1, bottom - kTop, value == 0.0 ? kAxis : kGrid});
      chart.labels.push_back({x(value), bottom + 13, format_short(value), Chart::Anchor::kMiddle});
    }
  }
  [[nodiscard]] double x(double value) const { return left_ + (value - low_) * scale_; }

  void bar(double row, double value, datasets::Rgb colour) const {
    chart_.boxes.push_back({std::min(x(0), x(value)), row + 4, std::abs(x(value) - x(0)), 12, colour});
  }
  void spread(double row, const std::vector<double>& values) const {
    const double mean = mean_of(values);
    const double deviation = deviation_of(values);
    if (std::isfinite(deviation)) {
      chart_.boxes.push_back({x(mean - deviation), row + 9.5, 2 * deviation * scale_, 1, kInk});
      for (const double end : {mean - deviation, mean + deviation})
        chart_.boxes.push_back({x(end) - 0.5, row + 7, 1, 6, kInk});
    }
    for (const double v : values) {
      if (std::isfinite(v)) chart_.boxes.push_back({x(v) - 1.5, row + 8.5, 3, 3, kInk});
    }
  }

 private:
  Chart& chart_;
  double left_, low_, scale_;
};

std::string colour_text(datasets::Rgb c) { return fmt::format("#{:02x}{:02x}{:02x}", c[0], c[1], c[2]); }

}  // namespace

double tick_step(double range) {
  const double raw = range / 5;
  const double power = std::pow(10.0, std::floor(std::log10(raw)));
  const double digit = raw / power;
  return power * (digit < 1.5 ? 1 : digit < 3.5 ? 2 : digit < 7.5 ? 5 : 10);
}

Chart bar_chart(const std::string& title, const std::string& difference_title, const std::vector<Bar>& bars) {
  std::size_t letters = 4;
  double most = 1e-9;
  double low = 0;
  double high = 0;
  for (const auto& bar : bars) {
    letters = std::max(letters, bar.name.size());
    for (const double v : bar.values) most = std::max(most, v);
    for (const double d : bar.differences) {
      low = std::min(low, d);
      high = std::max(high, d);
    }
  }
  const double range = std::max(high - low, 1e-3);
  const double left = 6.0 * static_cast<double>(letters) + 16;
  const double second = left + kPanel + 70;
  const double bottom = kTop + kRow * static_cast<double>(bars.size());
  Chart chart;
  chart.width = second + kPanel + 60;
  chart.height = bottom + 22;
  chart.labels.push_back({left, 16, title, Chart::Anchor::kStart, true});
  chart.labels.push_back({second, 16, difference_title, Chart::Anchor::kStart, true});
  const Panel means(chart, left, 0, most * 1.05, bottom);
  const Panel differences(chart, second, low - range * 0.1, high + range * 0.1, bottom);
  for (std::size_t i = 0; i < bars.size(); ++i) {
    const double row = kTop + kRow * static_cast<double>(i);
    chart.labels.push_back({left - 8, row + 14, bars[i].name, Chart::Anchor::kEnd});
    if (bars[i].values.empty()) {
      chart.labels.push_back({left + 6, row + 14, "no result"});
      continue;
    }
    means.bar(row, bars[i].mean, kBar);
    means.spread(row, bars[i].values);
    chart.labels.push_back({left + kPanel + 8, row + 14, fmt::format("{:.2f}", bars[i].mean)});
    if (bars[i].differences.empty()) continue;
    const double d = mean_of(bars[i].differences);
    differences.bar(row, d, d >= 0 ? kBetter : kWorse);
    differences.spread(row, bars[i].differences);
    chart.labels.push_back({second + kPanel + 8, row + 14, fmt::format("{:+.2f}", d)});
  }
  return chart;
}

std::string to_svg(const Chart& chart) {
  std::string s =
      fmt::format("<svg width=\"{0:.0f}\" height=\"{1:.0f}\" viewBox=\"0 0 {0:.0f} {1:.0f}\" role=\"img\">\n",
                  chart.width, chart.height);
  for (const auto& b : chart.boxes) {
    s += fmt::format("<rect x=\"{:.1f}\" y=\"{:.1f}\" width=\"{:.1f}\" height=\"{:.1f}\" fill=\"{}\"/>\n", b.x, b.y,
                     b.w, b.h, colour_text(b.colour));
  }
  for (const auto& l : chart.labels) {
    const char* anchor = l.anchor == Chart::Anchor::kStart ? "start"
                         : l.anchor == Chart::Anchor::kEnd ? "end"
                                                           : "middle";
    s += fmt::format("<text x=\"{:.1f}\" y=\"{:.1f}\" text-anchor=\"{}\"{}>{}</text>\n", l.x, l.y, anchor,
                     l.title ? " class=\"title\"" : "", html_escape(l.text));
  }
  return s + "</svg>\n";
}

datasets::Image to_image(const Chart& chart, int scale) {
  const auto pixels = [scale](double units) { return static_cast<std::int64_t>(std::lround(units * scale)); };
  datasets::Image image(pixels(chart.height), pixels(chart.width), {255, 255, 255});
  for (const auto& b : chart.boxes) {
    datasets::fill_rect(image, pixels(b.y), pixels(b.x), std::max<std::int64_t>(1, pixels(b.h)),
                        std::max<std::int64_t>(1, pixels(b.w)), b.colour);
  }
  for (const auto& l : chart.labels) {
    const auto width = datasets::text_width(l.text, scale);
    std::int64_t x = pixels(l.x);
    if (l.anchor == Chart::Anchor::kMiddle) x -= width / 2;
    if (l.anchor == Chart::Anchor::kEnd) x -= width;
    datasets::draw_text(image, pixels(l.y - 7), x, l.text, {30, 30, 30}, scale);
  }
  return image;
}

}  // namespace limbeck::apps
