// What this is: OpCases of the depthwise convolution.
#include "ops/conv2d.h"
#include "tests/cases/all_cases.h"

namespace limbeck::test {
namespace {

struct Depthwise {
  const char* label;
  Shape x;
  std::array<std::int64_t, 2> kernel;
  bool bias;
  ops::Conv2dOptions options;  // groups are filled in
};

OpCase make_case(const Depthwise& d) {
  OpCase c;
  c.op = "depthwise_conv2d";
  c.label = d.label;
  const std::int64_t channels = d.x[1];
  c.inputs = [d, channels](Generator& g) {
    std::vector<Tensor> in{random_normal(g, d.x), random_normal(g, {channels, 1, d.kernel[0], d.kernel[1]})};
    if (d.bias) in.push_back(random_normal(g, {channels}));
    return in;
  };
  c.forward = [d, channels](std::span<const Tensor> in) {
    auto options = d.options;
    options.groups = channels;
    return ops::conv2d(in[0], in[1], d.bias ? in[2] : Tensor(), options);
  };
  c.keep_f32 = d.bias ? std::vector<std::size_t>{1, 2} : std::vector<std::size_t>{1};
  return c;
}

}  // namespace

std::vector<OpCase> depthwise_cases() {
  const Depthwise list[] = {
      {"3x3 same", {2, 32, 9, 11}, {3, 3}, false, {.padding = {1, 1}}},
      {"3x3 same, channels below one vector", {2, 11, 6, 7}, {3, 3}, true, {.padding = {1, 1}}},
      {"3x3 same, odd channels", {1, 37, 8, 8}, {3, 3}, true, {.padding = {1, 1}}},
      {"3x3 stride 2, even map", {2, 16, 8, 10}, {3, 3}, false, {.stride = {2, 2}, .padding = {1, 1}}},
      {"3x3 stride 2, odd map", {2, 19, 9, 7}, {3, 3}, true, {.stride = {2, 2}, .padding = {1, 1}}},
      {"3x3 dilation 2", {1, 20, 9, 9}, {3, 3}, false, {.padding = {2, 2}, .dilation = {2, 2}}},
      {"3x3 dilation beyond the map", {1, 16, 4, 5}, {3, 3}, true, {.padding = {6, 6}, .dilation = {6, 6}}},
      {"3x3 stride 2, dilation 2",
       {1, 16, 11, 12},
       {3, 3},
       false,
       {.stride = {2, 2}, .padding = {2, 2}, .dilation = {2, 2}}},
      {"3x3 without padding", {1, 17, 5, 9}, {3, 3}, true, {}},
      {"5x5 same", {2, 21, 8, 9}, {5, 5}, false, {.padding = {2, 2}}},
      {"5x5 stride 2", {1, 24, 11, 9}, {5, 5}, true, {.stride = {2, 2}, .padding = {2, 2}}},
      {"7x7 same", {1, 9, 8, 8}, {7, 7}, false, {.padding = {3, 3}}},
      {"asymmetric 1x3, stride {1,3}", {1, 18, 4, 13}, {1, 3}, true, {.stride = {1, 3}, .padding = {0, 1}}},
      {"stride beyond the kernel", {1, 16, 9, 8}, {2, 2}, false, {.stride = {4, 3}}},
      {"one pixel", {3, 13, 1, 1}, {3, 3}, true, {.padding = {1, 1}}},
      {"1x1", {1, 33, 3, 4}, {1, 1}, true, {}},
      // Rows long enough for blocks of eight pixels, with and without columns that are cut off, and a last block that overlaps.
      {"3x3 stride 2, long even rows", {1, 32, 4, 24}, {3, 3}, false, {.stride = {2, 2}, .padding = {1, 1}}},
      {"3x3 stride 2, long odd rows", {1, 20, 5, 21}, {3, 3}, true, {.stride = {2, 2}, .padding = {1, 1}}},
      {"3x3 dilation 2, long rows", {1, 16, 5, 21}, {3, 3}, true, {.padding = {2, 2}, .dilation = {2, 2}}},
      {"3x3 dilation 4, long rows", {1, 16, 9, 26}, {3, 3}, false, {.padding = {4, 4}, .dilation = {4, 4}}},
      {"5x5 same, long rows", {1, 17, 5, 19}, {5, 5}, false, {.padding = {2, 2}}},
      {"3x3 without padding, long rows", {1, 32, 4, 18}, {3, 3}, false, {}},
      // So many pixels that a GPU takes four of them at once.
      {"3x3, a large map", {2, 64, 68, 69}, {3, 3}, true, {.padding = {1, 1}}},
      {"3x3 dilation 2, a large map", {2, 64, 68, 70}, {3, 3}, false, {.padding = {2, 2}, .dilation = {2, 2}}},
      {"5x5, a large map", {2, 64, 68, 67}, {5, 5}, false, {.padding = {1, 3}}},
      {"several blocks of the weight sum", {2, 40, 30, 31}, {3, 3}, true, {.padding = {1, 1}}},
  };
  std::vector<OpCase> cases;
  for (const auto& d : list) cases.push_back(make_case(d));
  return cases;
}

}  // namespace limbeck::test
