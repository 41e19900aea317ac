// Inputs of the resize ops for the harness: up, down, mixed, to and from one pixel, channel counts around 16.
#include "ops/interpolate.h"
#include "tests/cases/all_cases.h"

namespace limbeck::test {
namespace {

using Size = std::array<std::int64_t, 2>;

OpCase bilinear_case(const std::string& label, const Shape& shape, Size size, bool align_corners) {
  OpCase c;
  c.op = "resize_bilinear";
  c.label = label + (align_corners ? ", align_corners" : "");
  c.inputs = [shape](Generator& g) { return std::vector<Tensor>{random_normal(g, shape)}; };
  c.forward = [size, align_corners](std::span<const Tensor> in) {
    return ops::resize_bilinear(in[0], size, align_corners);
  };
  return c;
}

OpCase nearest_case(const std::string& label, const Shape& shape, Size size) {
  OpCase c;
  c.op = "resize_nearest";
  c.label = label;
  c.inputs = [shape](Generator& g) { return std::vector<Tensor>{random_normal(g, shape)}; };
  c.forward = [size](std::span<const Tensor> in) { return ops::resize_nearest(in[0], size); };
  return c;
}

OpCase label_case(const std::string& label, const Shape& shape, Size size) {
  OpCase c;
  c.op = "resize_nearest";
  c.label = label;
  c.inputs = [shape](Generator& g) { return std::vector<Tensor>{random_labels(g, shape, 19)}; };
  c.forward = [size](std::span<const Tensor> in) { return ops::resize_nearest(in[0], size); };
  c.differentiable = false;
  return c;
}

}  // namespace

std::vector<OpCase> interpolate_cases() {
  std::vector<OpCase> cases;
  for (const bool align : {false, true}) {
    cases.push_back(bilinear_case("4x5 to 16x20", {2, 11, 4, 5}, {16, 20}, align));
    cases.push_back(bilinear_case("3x3 to 7x5, 21 channels", {2, 21, 3, 3}, {7, 5}, align));
    cases.push_back(bilinear_case("9x8 to 4x3", {1, 19, 9, 8}, {4, 3}, align));
    cases.push_back(bilinear_case("3x5 to 6x8, 19 channels", {2, 19, 3, 5}, {6, 8}, align));
    cases.push_back(bilinear_case("5x9 to 7x16, 3 channels", {2, 3, 5, 9}, {7, 16}, align));
    cases.push_back(bilinear_case("20x17 to 3x2", {1, 5, 20, 17}, {3, 2}, align));
    cases.push_back(bilinear_case("5x9 to 8x4", {2, 16, 5, 9}, {8, 4}, align));
    cases.push_back(bilinear_case("one pixel to 5x6", {2, 33, 1, 1}, {5, 6}, align));
    cases.push_back(bilinear_case("6x5 to one pixel", {1, 3, 6, 5}, {1, 1}, align));
    cases.push_back(bilinear_case("rows only", {1, 3, 4, 5}, {9, 5}, align));
    cases.push_back(bilinear_case("5x9 to 80x144, 19 channels", {1, 19, 5, 9}, {80, 144}, align));
    cases.push_back(bilinear_case("3x4 to 13x18, 16 channels", {2, 16, 3, 4}, {13, 18}, align));
    cases.push_back(bilinear_case("longer than a chunk, shared by threads", {2, 11, 7, 9}, {70, 130}, align));
  }
  cases.push_back(nearest_case("4x4 to 3x3", {2, 11, 4, 4}, {3, 3}));
  cases.push_back(nearest_case("3x5 to 10x7", {1, 21, 3, 5}, {10, 7}));
  cases.push_back(nearest_case("7x6 to 2x9", {2, 3, 7, 6}, {2, 9}));
  cases.push_back(nearest_case("one pixel to 3x4", {1, 5, 1, 1}, {3, 4}));
  cases.push_back(nearest_case("map without channels", {2, 4, 5}, {9, 3}));
  cases.push_back(label_case("labels", {2, 9, 11}, {4, 5}));
  cases.push_back(label_case("labels, larger", {1, 3, 4}, {7, 9}));
  return cases;
}

}  // namespace limbeck::test
