// Inputs of the pooling ops for the harness: odd sizes, overlapping and disjoint windows, gaps between windows, ceil
// mode, both divisors, bins that overlap and bins smaller than a pixel.
#include "ops/pool2d.h"
#include "tests/cases/all_cases.h"

namespace limbeck::test {
namespace {

using ops::Pool2dOptions;

/// A map whose values differ by at least 0.01 and are exact in bf16: a maximum without ties or near ties.
Tensor distinct_values(Generator& g, const Shape& shape) {
  const auto count = static_cast<std::size_t>(shape.numel());
  std::vector<double> values(count);
  for (std::size_t i = 0; i < count; ++i) values[i] = (static_cast<double>(i % 256) - 128.0) / 64.0;
  for (std::size_t i = count - 1; i > 0; --i) std::swap(values[i], values[g.below(i + 1)]);
  return Tensor::from(values, shape);
}

OpCase max_case(const std::string& label, const Shape& shape, const Pool2dOptions& options) {
  OpCase c;
  c.op = "max_pool2d";
  c.label = label;
  c.inputs = [shape](Generator& g) { return std::vector<Tensor>{distinct_values(g, shape)}; };
  c.forward = [options](std::span<const Tensor> in) { return ops::max_pool2d(in[0], options); };
  c.kinks = true;  // equal values may meet in large windows
  return c;
}

OpCase avg_case(const std::string& label, const Shape& shape, const Pool2dOptions& options) {
  OpCase c;
  c.op = "avg_pool2d";
  c.label = label;
  c.inputs = [shape](Generator& g) { return std::vector<Tensor>{random_normal(g, shape)}; };
  c.forward = [options](std::span<const Tensor> in) { return ops::avg_pool2d(in[0], options); };
  return c;
}

OpCase adaptive_case(const std::string& label, const Shape& shape, std::array<std::int64_t, 2> size) {
  OpCase c;
  c.op = "adaptive_avg_pool2d";
  c.label = label;
  c.inputs = [shape](Generator& g) { return std::vector<Tensor>{random_normal(g, shape)}; };
  c.forward = [size](std::span<const Tensor> in) { return ops::adaptive_avg_pool2d(in[0], size); };
  return c;
}

OpCase global_case(const std::string& label, const Shape& shape) {
  OpCase c;
  c.op = "global_avg_pool2d";
  c.label = label;
  c.inputs = [shape](Generator& g) { return std::vector<Tensor>{random_normal(g, shape)}; };
  c.forward = [](std::span<const Tensor> in) { return ops::global_avg_pool2d(in[0]); };
  return c;
}

}  // namespace

std::vector<OpCase> pool2d_cases() {
  return {
      max_case("3x3 stride 2 padding 1", {2, 5, 7, 6}, {.kernel = {3, 3}, .stride = {2, 2}, .padding = {1, 1}}),
      max_case("3x3 stride 2 padding 1 ceil", {1, 11, 8, 6},
               {.kernel = {3, 3}, .stride = {2, 2}, .padding = {1, 1}, .ceil_mode = true}),
      max_case("2x2, 70 channels", {1, 70, 4, 4}, {}),
      max_case("2x3 stride 1", {2, 3, 5, 4}, {.kernel = {2, 3}, .stride = {1, 1}, .padding = {0, 1}}),
      max_case("gaps between windows", {1, 4, 7, 8}, {.kernel = {2, 1}, .stride = {3, 2}}),
      max_case("one pixel", {1, 3, 1, 1}, {.kernel = {1, 1}}),
      max_case("window of 17x17, indices wider than a byte", {1, 2, 18, 17}, {.kernel = {17, 17}, .stride = {1, 1}}),
      avg_case("3x3 stride 2 padding 1", {2, 5, 7, 6}, {.kernel = {3, 3}, .stride = {2, 2}, .padding = {1, 1}}),
      avg_case("3x3 stride 2 padding 1 ceil, real pixels", {1, 11, 8, 7},
               {.kernel = {3, 3}, .stride = {2, 2}, .padding = {1, 1}, .ceil_mode = true, .count_include_pad = false}),
      avg_case("3x3 stride 2 padding 1 ceil", {1, 19, 8, 6},
               {.kernel = {3, 3}, .stride = {2, 2}, .padding = {1, 1}, .ceil_mode = true}),
      avg_case("2x2, 70 channels", {2, 70, 4, 4}, {}),
      avg_case("gaps between windows", {1, 4, 7, 8}, {.kernel = {2, 1}, .stride = {3, 2}}),
      adaptive_case("5x7 to 3x3", {2, 21, 5, 7}, {3, 3}),
      adaptive_case("8x8 to 2x4", {1, 3, 8, 8}, {2, 4}),
      adaptive_case("6x5 to 6x5", {1, 11, 6, 5}, {6, 5}),
      adaptive_case("2x3 to 5x4, larger than the input", {1, 5, 2, 3}, {5, 4}),
      adaptive_case("one pixel to 2x2", {1, 5, 1, 1}, {2, 2}),
      global_case("9x5, 100 channels", {2, 100, 9, 5}),
      global_case("one pixel", {1, 3, 1, 1}),
  };
}

}  // namespace limbeck::test
