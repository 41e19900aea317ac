// What this is: OpCases of conv2d with more than one channel per group. Depthwise ones are in cases/depthwise.cpp.
#include "tests/cases/convolutions.h"

#include "tests/cases/all_cases.h"

namespace limbeck::test {
namespace {

OpCase make_case(const DenseConvolution& d) {
  OpCase c;
  c.op = "conv2d";
  c.label = d.label;
  c.inputs = [d](Generator& g) {
    std::vector<Tensor> in{random_normal(g, d.x), random_normal(g, d.w)};
    if (d.bias) in.push_back(random_normal(g, {d.w[0]}));
    return in;
  };
  c.forward = [d](std::span<const Tensor> in) {
    return ops::conv2d(in[0], in[1], d.bias ? in[2] : Tensor(), d.options);
  };
  c.keep_f32 = d.bias ? std::vector<std::size_t>{1, 2} : std::vector<std::size_t>{1};
  return c;
}

}  // namespace

std::vector<DenseConvolution> dense_convolutions() {
  return {
      {"1x1, one pixel, one image", {1, 5, 1, 1}, {7, 5, 1, 1}, true, {}},
      {"1x1, contiguous rows", {2, 32, 7, 9}, {21, 32, 1, 1}, true, {}},
      {"1x1, rows 4 KiB apart", {1, 1024, 3, 5}, {11, 1024, 1, 1}, false, {}},
      {"1x1 stride 2", {2, 19, 7, 6}, {33, 19, 1, 1}, false, {.stride = {2, 2}}},
      {"1x1 with padding", {1, 8, 3, 4}, {6, 8, 1, 1}, true, {.padding = {1, 2}}},
      {"3x3 same", {2, 21, 9, 7}, {19, 21, 3, 3}, true, {.padding = {1, 1}}},
      {"3x3 stride 2, odd map", {2, 16, 9, 11}, {40, 16, 3, 3}, false, {.stride = {2, 2}, .padding = {1, 1}}},
      {"3x3 dilation 2", {2, 16, 8, 8}, {18, 16, 3, 3}, false, {.padding = {2, 2}, .dilation = {2, 2}}},
      {"3x3 dilation beyond the map", {2, 18, 6, 5}, {17, 18, 3, 3}, true, {.padding = {7, 7}, .dilation = {7, 7}}},
      {"3x3 dilation 4 of a map of 6", {1, 16, 6, 6}, {16, 16, 3, 3}, false, {.padding = {4, 4}, .dilation = {4, 4}}},
      {"asymmetric 1x5, stride {1,2}", {2, 17, 4, 11}, {9, 17, 1, 5}, true, {.stride = {1, 2}, .padding = {0, 2}}},
      {"asymmetric 3x1 without padding", {1, 16, 7, 3}, {13, 16, 3, 1}, false, {}},
      {"stride beyond the kernel", {1, 16, 11, 8}, {10, 16, 2, 2}, false, {.stride = {4, 3}}},
      {"stride 3, dilation 2, padding 3",
       {1, 16, 10, 13},
       {12, 16, 3, 3},
       true,
       {.stride = {3, 3}, .padding = {3, 3}, .dilation = {2, 2}}},
      {"first layer 7x7 stride 2", {2, 3, 14, 17}, {20, 3, 7, 7}, false, {.stride = {2, 2}, .padding = {3, 3}}},
      {"first layer 3x3 dilation {2,1}", {1, 3, 9, 8}, {8, 3, 3, 3}, true, {.padding = {2, 1}, .dilation = {2, 1}}},
      {"few channels, dilation 2", {1, 3, 9, 9}, {8, 3, 3, 3}, false, {.padding = {2, 2}, .dilation = {2, 2}}},
      {"2 groups", {2, 12, 6, 5}, {10, 6, 3, 3}, true, {.padding = {1, 1}, .groups = 2}},
      {"3 groups of odd width, stride 2",
       {1, 21, 7, 7},
       {15, 7, 3, 3},
       false,
       {.stride = {2, 2}, .padding = {1, 1}, .groups = 3}},
      {"2 filters per channel", {1, 6, 5, 5}, {12, 1, 3, 3}, true, {.padding = {1, 1}, .groups = 6}},
      {"many pixels: several parts of the weight sum", {3, 16, 24, 23}, {24, 16, 1, 1}, true, {}},
      {"many filters: several panels and groups", {1, 20, 5, 6}, {150, 20, 3, 3}, false, {.padding = {1, 1}}},
  };
}

std::vector<OpCase> conv2d_cases() {
  std::vector<OpCase> cases;
  for (const auto& d : dense_convolutions()) cases.push_back(make_case(d));
  return cases;
}

}  // namespace limbeck::test
