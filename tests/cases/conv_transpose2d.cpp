// What this is: OpCases of the transposed convolution.
#include "tests/cases/all_cases.h"
#include "tests/cases/convolutions.h"

namespace limbeck::test {
namespace {

OpCase make_case(const TransposedConvolution& d) {
  OpCase c;
  c.op = "conv_transpose2d";
  c.label = d.label;
  c.inputs = [d](Generator& g) {
    std::vector<Tensor> in{random_normal(g, d.x), random_normal(g, d.w)};
    if (d.bias) in.push_back(random_normal(g, {d.w[1] * d.options.groups}));
    return in;
  };
  c.forward = [d](std::span<const Tensor> in) {
    return ops::conv_transpose2d(in[0], in[1], d.bias ? in[2] : Tensor(), d.options);
  };
  c.keep_f32 = d.bias ? std::vector<std::size_t>{1, 2} : std::vector<std::size_t>{1};
  return c;
}

}  // namespace

std::vector<TransposedConvolution> transposed_convolutions() {
  return {
      {"3x3 stride 1", {2, 11, 5, 4}, {11, 7, 3, 3}, true, {.padding = {1, 1}}},
      {"3x3 stride 2 inverts odd sizes", {2, 19, 4, 5}, {19, 21, 3, 3}, true, {.stride = {2, 2}, .padding = {1, 1}}},
      {"3x3 stride 2 inverts even sizes",
       {1, 16, 4, 5},
       {16, 18, 3, 3},
       false,
       {.stride = {2, 2}, .padding = {1, 1}, .output_padding = {1, 1}}},
      {"4x4 stride 2", {1, 8, 3, 3}, {8, 6, 4, 4}, true, {.stride = {2, 2}, .padding = {1, 1}}},
      {"2x2 stride 2", {1, 17, 3, 4}, {17, 9, 2, 2}, true, {.stride = {2, 2}}},
      {"stride beyond the kernel leaves the bias", {1, 6, 3, 2}, {6, 5, 2, 2}, true, {.stride = {3, 4}}},
      {"dilation 2, output padding above the stride",
       {1, 6, 4, 4},
       {6, 8, 3, 3},
       true,
       {.padding = {2, 2}, .output_padding = {1, 1}, .dilation = {2, 2}}},
      {"asymmetric 1x3, stride {1,2}", {1, 8, 3, 5}, {8, 4, 1, 3}, false, {.stride = {1, 2}, .padding = {0, 1}}},
      {"2 groups", {1, 8, 4, 3}, {8, 5, 3, 3}, true, {.stride = {2, 2}, .padding = {1, 1}, .groups = 2}},
      {"depthwise, bilinear upsampling",
       {2, 19, 4, 5},
       {19, 1, 4, 4},
       true,
       {.stride = {2, 2}, .padding = {1, 1}, .groups = 19}},
      {"one pixel", {1, 5, 1, 1}, {5, 3, 3, 3}, true, {}},
  };
}

std::vector<OpCase> conv_transpose2d_cases() {
  std::vector<OpCase> cases;
  for (const auto& d : transposed_convolutions()) cases.push_back(make_case(d));
  return cases;
}

}  // namespace limbeck::test
