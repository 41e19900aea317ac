// What networks do behind a removed stride, and where their convolutions get a border from.
#include <doctest/doctest.h>

#include <cmath>

#include "models/zoo.h"
#include "ops/conv2d.h"
#include "ops/copy.h"
#include "ops/elementwise.h"
#include "ops/pad.h"
#include "ops/reduce.h"
#include "ops/slice.h"
#include "tests/harness/meta_model.h"
#include "tests/harness/op_case.h"
#include "tests/harness/random_network.h"

using namespace limbeck;
using models::ModelSpec;
using test::dilations;
using test::on_meta;

using List = std::vector<std::int64_t>;

TEST_SUITE_BEGIN("model_dilation");

TEST_CASE("ResNet dilation patterns") {
  const auto of = [](const char* backbone, std::int64_t os, const char* pattern, const char* part) {
    const auto m = on_meta({.name = std::string("deeplabv3_") + backbone, .output_stride = os, .dilation = pattern});
    return dilations(*m, part);
  };
  CHECK(of("resnet50", 16, "tv", "layer4") == List{1, 2, 2});
  CHECK(of("resnet50", 8, "tv", "layer3") == List{1, 2, 2, 2, 2, 2});
  CHECK(of("resnet50", 8, "tv", "layer4") == List{2, 4, 4});
  CHECK(of("resnet18", 8, "tv", "layer3") == List{1, 2, 2, 2});
  CHECK(of("resnet18", 8, "tv", "layer4") == List{2, 4, 4, 4});
  CHECK(of("resnet101", 16, "jf", "layer4") == List{2, 4, 8});
  CHECK(of("resnet101", 8, "jf", "layer3") == List(23, 2));
  CHECK(of("resnet101", 8, "jf", "layer4") == List{4, 8, 16});
  CHECK(of("resnet18", 16, "jf", "layer4") == List{2, 2, 2, 2});
  CHECK(of("resnet18", 8, "jf", "layer3") == List{2, 2, 2, 2});
  CHECK(of("resnet18", 8, "jf", "layer4") == List{4, 4, 4, 4});
  CHECK(of("resnet50", 32, "jf", "layer4") == List{1, 1, 1});
  CHECK(of("resnet101", 16, "td", "layer4") == List{2, 2, 2});
  CHECK(of("resnet101", 8, "td", "layer3") == List(23, 2));
  CHECK(of("resnet101", 8, "td", "layer4") == List{4, 4, 4});
  CHECK(of("resnet18", 8, "td", "layer3") == List{2, 2, 2, 2});
  CHECK(of("resnet18", 8, "td", "layer4") == List{4, 4, 4, 4});
  CHECK(of("resnet18", 8, "v1b", "layer3") == List{1, 2, 2, 2});
  CHECK(of("resnet18", 8, "v1b", "layer4") == List{2, 4, 4, 4});
  CHECK(of("resnet18", 8, "mmseg", "layer3") == List{1, 1, 2, 1});
  CHECK(of("resnet18", 8, "mmseg", "layer4") == List{2, 1, 4, 1});
  CHECK(of("resnet50", 8, "mmseg", "layer4") == List{2, 4, 4});
  // Defaults: tv for deeplabv3, jf for deeplabv3plus, tv for its vf variant, td for pspnet; an explicit multi-grid wins.
  CHECK(of("resnet50", 16, "", "layer4") == List{1, 2, 2});
  CHECK(dilations(*on_meta({.name = "deeplabv3plus_resnet50"}), "layer4") == List{2, 4, 8});
  CHECK(dilations(*on_meta({.name = "deeplabv3plus_resnet50", .variant = "vf"}), "layer4") == List{1, 2, 2});
  CHECK(dilations(*on_meta({.name = "deeplabv3plus_resnet50", .variant = "tfd"}), "layer4") == List{1, 2, 2});
  CHECK(dilations(*on_meta({.name = "pspnet_resnet18", .output_stride = 8}), "layer4") == List{4, 4, 4, 4});
  CHECK(dilations(*on_meta({.name = "pspnet_resnet18", .output_stride = 8, .variant = "mmseg"}), "layer4") ==
        List{2, 1, 4, 1});
  CHECK(dilations(*on_meta({.name = "deeplabv3plus_resnet18", .output_stride = 8, .variant = "mmseg"}), "layer3") ==
        List{1, 1, 2, 1});
  CHECK(dilations(*on_meta({.name = "deeplabv3plus_resnet50", .multi_grid = {1, 1, 1}}), "layer4") == List{2, 2, 2});
}

TEST_CASE("MobileNetV2 dilation patterns") {
  const auto of = [](std::int64_t os, const char* pattern) {
    return dilations(*on_meta({.name = "mobilenet_v2_seg", .output_stride = os, .dilation = pattern}), "features.");
  };
  //                 stem 16  24    32       64          96       160      320
  CHECK(of(32, "tv") == List{1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1});
  CHECK(of(16, "tv") == List{1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 2, 2, 2});
  CHECK(of(16, "jf") == List{1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 2});
  CHECK(of(8, "tv") == List{1, 1, 1, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2, 2, 4, 4, 4});
  CHECK(of(8, "jf") == List{1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2, 4});
  CHECK(of(4, "tv") == List{1, 1, 1, 1, 1, 2, 2, 2, 4, 4, 4, 4, 4, 4, 4, 8, 8, 8});
}

namespace {

/// A MobileNetV2 block of plain ops, in eval mode, from the tensors under `prefix`. `border`: zeros around the input, before the
/// expansion; otherwise around the input of the depthwise convolution.
Tensor block_of_ops(const nn::StateDict& state, const std::string& prefix, const Tensor& x, std::int64_t stride,
                    std::int64_t dilation, bool border) {
  const auto conv = [&](const Tensor& in, const std::string& name, const ops::Conv2dOptions& options) {
    return ops::conv2d(in, state.at(prefix + name + ".weight"), {}, options);
  };
  const auto norm = [&](const Tensor& in, const std::string& name) {
    const auto part = [&](const char* what) {
      return ops::reshape(state.at(prefix + name + "." + what), {1, in.size(1), 1, 1});
    };
    const Tensor deviation = ops::sqrt(ops::add_scalar(part("running_var"), 1e-5));
    return ops::add(ops::mul(ops::div(ops::sub(in, part("running_mean")), deviation), part("weight")), part("bias"));
  };
  const Tensor in = border ? ops::pad2d(x, {dilation, dilation, dilation, dilation}) : x;
  const Tensor wide = ops::relu6(norm(conv(in, "conv.0.0", {}), "conv.0.1"));
  const std::int64_t inner = border ? 0 : dilation;
  const Tensor filtered = conv(wide, "conv.1.0",
                               {.stride = {stride, stride},
                                .padding = {inner, inner},
                                .dilation = {dilation, dilation},
                                .groups = wide.size(1)});
  const Tensor y = norm(conv(ops::relu6(norm(filtered, "conv.1.1")), "conv.2", {}), "conv.3");
  return y.shape() == x.shape() && stride == 1 ? ops::add(x, y) : y;
}

}  // namespace

TEST_CASE("MobileNetV2 padding: a block is what plain ops make of it, and only its edge differs between the paddings") {
  const NoGradGuard off;
  const std::vector<std::string> taps{"features.1", "features.2", "features.3", "features.16", "features.17"};
  const Tensor x = test::random_input({1, 3, 97, 65}, 3).copy_as(DType::kF64);
  for (const std::string padding : {"depthwise", "before_expansion"}) {
    const auto model = test::random_network(
        ModelSpec{.name = "mobilenet_v2_seg", .classes = 5, .width = 0.35, .dilation = "tv", .padding = padding});
    model->convert_(DType::kF64);
    const bool border = padding == "before_expansion";
    const auto state = model->state_dict();
    const auto found = model->forward(x, taps).taps;
    const auto block = [&](int k, std::int64_t stride, std::int64_t dilation, bool with_border) {
      return block_of_ops(state, fmt::format("backbone.features.{}.", k), found.at(fmt::format("features.{}", k - 1)),
                          stride, dilation, with_border);
    };
    CHECK(test::relative_error(block(2, 2, 1, border), found.at("features.2")) < 1e-12);    // strided
    CHECK(test::relative_error(block(3, 1, 1, border), found.at("features.3")) < 1e-12);    // with shortcut
    CHECK(test::relative_error(block(17, 1, 2, border), found.at("features.17")) < 1e-12);  // dilated
    const Tensor other = block(3, 1, 1, !border);
    CHECK(test::relative_error(other, found.at("features.3")) > 1e-3);
    const auto inside = [](const Tensor& t) {
      return ops::slice(ops::slice(t, 2, 1, t.size(2) - 1), 3, 1, t.size(3) - 1);
    };
    CHECK(test::relative_error(inside(other), inside(found.at("features.3"))) < 1e-12);
  }
}

TEST_CASE("MobileNetV2 padding: statistics of a batch count the border, and gradients flow") {
  for (const char* padding : {"depthwise", "before_expansion"}) {
    Generator g(2);
    const auto model = models::make_model(
        {.name = "mobilenet_v2_seg", .classes = 3, .width = 0.35, .bn_momentum = 1.0, .padding = padding}, g);
    const auto state = model->state_dict();
    const auto out = model->forward(test::random_input({2, 3, 33, 33}, 3), std::vector<std::string>{"features.1"});
    // What comes in has mean 0 (a batch norm made it) and the expansion no bias, so its variance is a sum of squares, to which a border
    // of zeros adds only to the count.
    const Tensor wide =
        ops::conv2d(out.taps.at("features.1").detach(), state.at("backbone.features.2.conv.0.0.weight"), {}, {});
    const double side = std::string_view(padding) == "depthwise" ? 17 : 19;
    const Tensor variance = ops::mul_scalar(ops::sum(ops::square(wide), {0, 2, 3}, false), 1 / (2 * side * side - 1));
    CHECK(test::relative_error(state.at("backbone.features.2.conv.0.1.running_var"), variance) < 1e-4);
    ops::mean(ops::square(out.logits)).backward();
    for (const auto& p : model->named_parameters()) {
      CAPTURE(p.name);
      REQUIRE(p.tensor.grad().defined());
      CHECK(std::isfinite(ops::sum(p.tensor.grad()).item()));
    }
  }
}

TEST_CASE("Xception and MobileNetV1 rates") {
  const auto xception = [](std::int64_t os, const char* part, std::array<std::int64_t, 3> grid = {0, 0, 0}) {
    return dilations(*on_meta({.name = "deeplabv3_xception41", .output_stride = os, .multi_grid = grid}), part);
  };
  CHECK(xception(16, "middle") == List(24, 1));
  CHECK(xception(16, "exit1") == List{1, 1, 1});
  CHECK(xception(16, "exit2") == List{2, 2, 2});
  CHECK(xception(8, "entry3") == List{1, 1, 1});
  CHECK(xception(8, "middle") == List(24, 2));
  CHECK(xception(8, "exit1") == List{2, 2, 2});
  CHECK(xception(8, "exit2") == List{4, 4, 4});
  CHECK(xception(16, "exit2", {1, 2, 4}) == List{2, 4, 8});
  CHECK(dilations(*on_meta({.name = "deeplabv3_xception65"}), "middle").size() == 48);
  const auto mobilenet = [](std::int64_t os) {
    return dilations(*on_meta({.name = "deeplabv3_mobilenet_v1", .output_stride = os}), "features.");
  };
  CHECK(mobilenet(32) == List(14, 1));
  CHECK(mobilenet(16) == List{1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 2});
  CHECK(mobilenet(8) == List{1, 1, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2, 4});
}

TEST_CASE("ASPP rates follow the output stride") {
  for (const auto& [os, rate] : std::vector<std::pair<std::int64_t, std::int64_t>>{{32, 3}, {16, 6}, {8, 12}}) {
    const auto m = on_meta({.name = "deeplabv3_resnet18", .output_stride = os});
    CHECK(dilations(*m, "convs.") == List{rate, 2 * rate, 3 * rate});
  }
  // torchvision has those of stride 8 whatever the stride.
  for (const char* name : {"deeplabv3_resnet18", "deeplabv3plus_resnet18"}) {
    for (const bool separable : {false, true}) {
      const auto m = on_meta({.name = name, .output_stride = 16, .separable = separable, .aspp_rates = {12, 24, 36}});
      CHECK(dilations(*m, "convs.") == List{12, 24, 36});
    }
  }
}

TEST_SUITE_END();
