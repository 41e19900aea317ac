// Networks held to their contracts: names, taps, dilation, errors. Sizes and costs: test_model_costs.cpp;
// options: test_model_options.cpp.
#include <doctest/doctest.h>

#include <cmath>

#include "models/mobilenet_v2.h"
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
#include "tests/harness/temp_dir.h"

using namespace limbeck;
using models::ModelSpec;
using test::check_throws;
using test::on_meta;

namespace {

/// "name: dilation" of every 3x3 convolution whose name contains `part`.
std::vector<std::int64_t> dilations(models::Model& model, const std::string& part) {
  std::vector<std::int64_t> out;
  for (const auto& m : model.named_modules()) {
    const auto* conv = dynamic_cast<const nn::Conv2d*>(m.module);
    if (conv == nullptr || conv->weight().size(2) != 3 || m.name.find(part) == std::string::npos) continue;
    CHECK(conv->options().padding == conv->options().dilation);
    out.push_back(conv->options().dilation[0]);
  }
  return out;
}

using List = std::vector<std::int64_t>;

std::int64_t floats_in_state(const models::Model& model) {
  std::int64_t count = 0;
  for (const auto& [name, tensor] : model.state_dict()) count += is_floating(tensor.dtype()) ? tensor.numel() : 0;
  return count;
}

}  // namespace

TEST_SUITE_BEGIN("models");

TEST_CASE("state dictionaries have torchvision's size and names") {
  const auto r18 = on_meta({.name = "resnet18", .classes = 1000});
  CHECK(r18->state_dict().size() == 122);
  CHECK(floats_in_state(*r18) == 11'699'112);
  CHECK(!r18->state_dict().contains("layer1.0.downsample.0.weight"));
  const auto r50 = on_meta({.name = "resnet50", .classes = 1000});
  CHECK(r50->state_dict().size() == 320);
  CHECK(floats_in_state(*r50) == 25'610'152);
  for (const char* name :
       {"conv1.weight", "bn1.num_batches_tracked", "layer1.0.downsample.0.weight", "layer1.0.downsample.1.running_var",
        "layer3.5.bn3.bias", "layer4.2.conv2.weight", "fc.bias"}) {
    CHECK_MESSAGE(r50->state_dict().contains(name), name);
  }
  CHECK(r50->state_dict().at("layer4.0.conv2.weight").shape() == Shape{512, 512, 3, 3});
  const auto r101 = on_meta({.name = "resnet101", .classes = 1000});
  CHECK(r101->state_dict().size() == 626);
  CHECK(floats_in_state(*r101) == 44'654'504);
  const auto mn = on_meta({.name = "mobilenet_v2", .classes = 1000});
  CHECK(mn->state_dict().size() == 314);
  CHECK(floats_in_state(*mn) == 3'538'984);
  for (const char* name :
       {"features.0.0.weight", "features.1.conv.0.0.weight", "features.1.conv.1.weight",
        "features.1.conv.2.running_mean", "features.17.conv.3.bias", "features.18.1.weight", "classifier.1.weight"}) {
    CHECK_MESSAGE(mn->state_dict().contains(name), name);
  }
  CHECK(mn->state_dict().at("features.2.conv.1.0.weight").shape() == Shape{96, 1, 3, 3});
  const auto dl = on_meta({.name = "deeplabv3_resnet50", .output_stride = 8, .aux = true});
  CHECK(dl->state_dict().size() == 370);
  for (const char* name :
       {"backbone.conv1.weight", "classifier.0.convs.0.0.weight", "classifier.0.convs.3.1.weight",
        "classifier.0.convs.4.1.weight", "classifier.0.convs.4.2.running_mean", "classifier.0.project.1.bias",
        "classifier.1.weight", "classifier.2.weight", "classifier.4.bias", "aux_classifier.0.weight",
        "aux_classifier.1.bias", "aux_classifier.4.bias"}) {
    CHECK_MESSAGE(dl->state_dict().contains(name), name);
  }
}

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

TEST_CASE("ResNet stems: widths, names, and what only they have") {
  const auto state = [](const char* stem) {
    return on_meta({.name = "resnet18", .classes = 10, .stem = stem})->state_dict();
  };
  const auto plain = state("7x7");
  CHECK(plain.at("conv1.weight").shape() == Shape{64, 3, 7, 7});
  CHECK(!plain.contains("conv2.weight"));
  const auto deep = state("deep128");
  CHECK(deep.at("conv1.weight").shape() == Shape{64, 3, 3, 3});
  CHECK(deep.at("conv3.weight").shape() == Shape{128, 64, 3, 3});
  CHECK(deep.at("layer1.0.downsample.0.weight").shape() == Shape{64, 128, 1, 1});
  const auto v1c = state("v1c");
  CHECK(v1c.at("stem.0.weight").shape() == Shape{32, 3, 3, 3});
  CHECK(v1c.at("stem.6.weight").shape() == Shape{64, 32, 3, 3});
  CHECK(v1c.contains("stem.7.running_var"));
  CHECK(!v1c.contains("layer1.0.downsample.0.weight"));
}

TEST_CASE("separable DeepLab heads replace every 3x3 of the head") {
  for (const std::string name : {"deeplabv3_resnet18", "deeplabv3plus_resnet18"}) {
    CAPTURE(name);
    const auto plain = on_meta({.name = name});
    const auto model = on_meta({.name = name, .separable = true});
    CHECK(dilations(*model, "classifier.") ==
          dilations(*plain, "classifier."));  // the depthwise ones take over the rates
    int depthwise = 0;
    for (const auto& m : model->named_modules()) {
      const auto* conv = dynamic_cast<const nn::Conv2d*>(m.module);
      if (conv == nullptr || conv->weight().size(2) != 3 || !m.name.starts_with("classifier.")) continue;
      CHECK_MESSAGE(conv->options().groups == conv->weight().size(0), m.name);
      ++depthwise;
    }
    CHECK(depthwise == (name == "deeplabv3_resnet18" ? 4 : 5));
    CHECK(model->tap_info("head").channels == 256);
  }
}

TEST_CASE("the order of the concatenations") {
  // Weights that pass one input channel through show which part of the concatenation it is.
  const auto first_part = [](const ModelSpec& spec, const char* tap, std::int64_t channel) {
    Generator g(5);
    const auto model = models::make_model(spec, g);
    model->eval();
    const Tensor x = Tensor::empty({1, 3, 65, 65});
    fill_normal_(x, g, 0.0, 1.0);
    const NoGradGuard off;
    const std::vector<std::string> taps{tap, "layer4"};
    const models::Output out = model->forward(x, taps);
    return test::relative_error(ops::slice(out.taps.at(tap), 1, channel, channel + 512), out.taps.at("layer4")) == 0.0;
  };
  CHECK(first_part({.name = "pspnet_resnet18", .output_stride = 8}, "ppm", 4 * 128));
  CHECK(first_part({.name = "pspnet_resnet18", .output_stride = 8, .variant = "mmseg"}, "ppm", 0));
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

TEST_CASE("make_divisible rounds to eight, never far below") {
  CHECK(models::make_divisible(32) == 32);
  CHECK(models::make_divisible(11.2) == 16);  // 8 would be less than 90 %
  CHECK(models::make_divisible(8.4) == 8);
  CHECK(models::make_divisible(3) == 8);
  CHECK(models::make_divisible(44.8) == 48);
  const auto narrow = on_meta({.name = "mobilenet_v2", .classes = 1000, .width = 0.35});
  CHECK(narrow->parameter_count() == 1'677'128);
}

TEST_CASE("every network: each tap has the channels and the stride it announces") {
  for (const std::string& name : models::model_names()) {
    CAPTURE(name);
    const auto model = on_meta({.name = name, .classes = 7});
    const std::vector<std::string> names = model->tap_names();
    CHECK(names.size() > 2);
    const NoGradGuard off;
    const models::Output out = model->forward(Tensor::empty({2, 3, 65, 97}, DType::kF32, kMeta), names);
    CHECK(out.taps.size() == names.size());
    for (const std::string& tap : names) {
      CAPTURE(tap);
      const models::TapInfo info = model->tap_info(tap);
      const Tensor& t = out.taps.at(tap);
      CHECK(t.size(1) == info.channels);
      if (info.stride == 0) {
        CHECK(t.shape() == Shape{2, 7});
        continue;
      }
      CHECK(t.size(2) == (65 + info.stride - 1) / info.stride);
      CHECK(t.size(3) == (97 + info.stride - 1) / info.stride);
    }
    CHECK(out.taps.at("logits").shape() == out.logits.shape());
    if (models::is_classification(name)) CHECK(out.logits.shape() == Shape{2, 7});
    CHECK(model->spec().name == name);
  }
}

TEST_CASE("asking for taps does not change the result, and pre-ReLU taps precede their ReLU") {
  const std::vector<ModelSpec> specs{{.name = "deeplabv3plus_resnet18"},
                                     {.name = "deeplabv3plus_resnet18", .variant = "mmseg"},
                                     {.name = "deeplabv3_resnet18", .variant = "tfd", .separable = true},
                                     {.name = "deeplabv3_mobilenet_v1", .width = 0.25},
                                     {.name = "deeplabv3_mobilenet_v2", .width = 0.35},
                                     {.name = "deeplabv3plus_xception41"},
                                     {.name = "pspnet_resnet18", .stem = "deep128"},
                                     {.name = "ka_student_mobilenet_v2", .width = 0.35}};
  for (const ModelSpec& spec : specs) {
    CAPTURE(spec.name);
    CAPTURE(spec.variant);
    Generator g(3);
    const auto model = models::make_model(spec, g);
    model->eval();
    const Tensor x = Tensor::empty({1, 3, 33, 49});
    fill_normal_(x, g, 0.0, 1.0);
    const NoGradGuard off;
    const Tensor plain = model->forward(x).logits;
    const models::Output tapped = model->forward(x, model->tap_names());
    CHECK(test::relative_error(tapped.logits, plain) < 1e-5);
    for (const auto& [tap, before] : tapped.taps) {
      const std::size_t at = tap.find(".pre_relu");
      if (at == std::string::npos) continue;
      CAPTURE(tap);
      CHECK(test::relative_error(nn::activate(before, ops::Activation::kRelu), tapped.taps.at(tap.substr(0, at))) <
            1e-5);
      double lowest = 0;
      for (const float v : before.to_vector<float>()) lowest = std::min(lowest, static_cast<double>(v));
      CHECK(lowest < 0);
    }
  }
}

TEST_CASE("a training step gives every parameter a finite gradient") {
  const std::vector<ModelSpec> specs{
      {.name = "deeplabv3_resnet18", .classes = 5, .aux = true},
      {.name = "deeplabv3plus_resnet18", .classes = 5, .aux = true, .variant = "mmseg"},
      {.name = "deeplabv3plus_mobilenet_v2", .classes = 5, .width = 0.35, .separable = true},
      {.name = "deeplabv3_xception41", .classes = 5, .variant = "tfd"},
      {.name = "ka_student_mobilenet_v2", .classes = 5, .width = 0.35},
      {.name = "pspnet_resnet18", .classes = 5, .aux = true, .stem = "deep128"},
      {.name = "pspnet_mobilenet_v2", .classes = 5, .width = 0.35, .aux = true, .variant = "td_leaky"},
      {.name = "mobilenet_v1", .classes = 5, .width = 0.25},
      {.name = "resnet18", .classes = 5, .stem = "v1c"}};
  for (const ModelSpec& spec : specs) {
    CAPTURE(spec.name);
    Generator g(3);
    const auto model = models::make_model(spec, g);
    const Tensor x = Tensor::empty({2, 3, 33, 33});
    fill_normal_(x, g, 0.0, 1.0);
    const models::Output out = model->forward(x);
    Tensor seed = Tensor::empty(out.logits.shape());
    fill_normal_(seed, g, 0.0, 1.0);
    backward(out.logits, seed, {.retain_graph = true});
    if (out.aux.defined()) backward(out.aux, Tensor::full(out.aux.shape(), 0.1));
    for (const auto& p : model->named_parameters()) {
      CAPTURE(p.name);
      REQUIRE(p.tensor.grad().defined());
      double sum = 0;
      for (const double v : p.tensor.grad().to_vector<double>()) sum += v * v;
      CHECK(std::isfinite(sum));
      CHECK(sum > 0);
    }
  }
}

TEST_CASE("parameter groups split backbone and head, matrices and vectors") {
  const auto model = on_meta({.name = "ka_student_mobilenet_v2"});
  const auto two = models::parameter_groups(*model, {.weight_decay = 5e-4, .head_lr_multiplier = 10});
  REQUIRE(two.size() == 2);
  CHECK(two[0].name == "backbone");
  CHECK(two[0].lr_multiplier == 1.0);
  CHECK(two[1].lr_multiplier == 10.0);
  CHECK(two[1].weight_decay == 5e-4);
  std::int64_t count = 0;
  for (const auto& group : two) {
    for (const auto& p : group.params) {
      CHECK(p.name.starts_with("backbone.") == (&group == &two[0]));
      count += p.tensor.numel();
    }
  }
  CHECK(count == 2'113'557);
  const auto four = models::parameter_groups(*model, {.weight_decay = 5e-4, .decay_vectors = false});
  REQUIRE(four.size() == 4);
  CHECK(four[1].weight_decay == 0.0);
  for (const auto& p : four[1].params) CHECK(p.tensor.ndim() == 1);
}

TEST_CASE("unknown names and impossible options are configuration errors with a hint") {
  Generator g;
  const nn::ParameterDevice meta(kMeta);
  const auto make = [&](const ModelSpec& spec) { static_cast<void>(models::make_model(spec, g)); };
  check_throws<ConfigError>([&] { make({.name = "deeplabv3plus_resnet81"}); },
                            {"did you mean 'deeplabv3plus_resnet", "ka_student_mobilenet_v2"});
  check_throws<ConfigError>([&] { make({.name = ""}); }, {"unknown network ''", "resnet18"});
  check_throws<ConfigError>([&] { make({.name = "deeplabv3_resnet50", .output_stride = 4}); }, {"output stride 4"});
  check_throws<ConfigError>([&] { make({.name = "mobilenet_v2_seg", .output_stride = 64}); }, {"output stride 64"});
  check_throws<ConfigError>([&] { make({.name = "mobilenet_v2_seg", .width = 0.0}); }, {"width"});
  check_throws<ConfigError>([&] { make({.name = "mobilenet_v2_seg", .dilation = "vf"}); }, {"'vf'", "tv or jf"});
  check_throws<ConfigError>([&] { make({.name = "deeplabv3_resnet18", .dilation = "vf"}); },
                            {"'vf'", "tv, v1b, mmseg, td or jf"});
  check_throws<ConfigError>([&] { make({.name = "deeplabv3_mobilenet_v1", .dilation = "jf"}); }, {"'jf'", "tv only"});
  check_throws<ConfigError>([&] { make({.name = "deeplabv3_xception41", .dilation = "jf"}); }, {"'jf'", "tv only"});
  check_throws<ConfigError>([&] { make({.name = "deeplabv3_xception41", .output_stride = 4}); }, {"output stride 4"});
  check_throws<ConfigError>([&] { make({.name = "deeplabv3_resnet18", .variant = "jf"}); },
                            {"'jf'", "tv, vf, tfd or mmseg"});
  check_throws<ConfigError>([&] { make({.name = "deeplabv3plus_resnet18", .variant = "tv"}); },
                            {"'tv'", "jf, vf, tfd or mmseg"});
  check_throws<ConfigError>([&] { make({.name = "pspnet_resnet18", .variant = "tv"}); },
                            {"'tv'", "td, td_leaky or mmseg"});
  check_throws<ConfigError>([&] { make({.name = "resnet18", .stem = "deep"}); },
                            {"'deep'", "7x7, deep128, deep128_floor or v1c"});
  check_throws<ConfigError>([&] { make({.name = "mobilenet_v2_seg", .padding = "block"}); },
                            {"'block'", "depthwise or before_expansion"});
  check_throws<ConfigError>([&] { make({.name = "mobilenet_v1", .padding = "before_expansion"}); },
                            {"'before_expansion'", "only MobileNetV2"});
  check_throws<ConfigError>([&] { make({.name = "mobilenet_v2_seg", .stem = "v1c"}); }, {"'v1c'", "only ResNets"});
  for (const char* name : {"mobilenet_v2_seg", "ka_student_mobilenet_v2", "resnet18"}) {
    check_throws<ConfigError>([&] { make({.name = name, .variant = "tv"}); }, {"variant 'tv'", name});
  }
  for (const char* name : {"resnet18", "pspnet_resnet18", "deeplabv3_xception41"}) {
    check_throws<ConfigError>([&] { make({.name = name, .width = 0.5}); }, {"width 0.5", "only MobileNets", name});
    check_throws<ConfigError>([&] { make({.name = name, .width_divisor = 1}); }, {"width_divisor 1", name});
    check_throws<ConfigError>([&] { make({.name = name, .relu6 = false}); }, {"relu6=false", name});
  }
  for (const char* name : {"resnet18", "mobilenet_v1", "mobilenet_v2"}) {
    check_throws<ConfigError>([&] { make({.name = name, .aux = true}); }, {"aux=true", name});
    check_throws<ConfigError>([&] { make({.name = name, .dilation = "tv"}); }, {"dilation 'tv'", name});
    check_throws<ConfigError>([&] { make({.name = name, .multi_grid = {1, 2, 4}}); }, {"multi_grid", name});
  }
  check_throws<ConfigError>([&] { make({.name = "mobilenet_v2", .stem = "v1c"}); }, {"'v1c'", "only ResNets"});
  check_throws<ConfigError>(
      [&] {
        make({.name = "deeplabv3_resnet18", .multi_grid = {0, 2, 4}});
      },
      {"multi_grid 0, 2, 4", "from 1 to 1024"});
  for (const char* name : {"resnet18", "mobilenet_v2_seg"}) {
    check_throws<ConfigError>([&] { make({.name = name, .head_dropout = 0.5}); }, {"head_dropout 0.5", name});
    make({.name = name, .head_dropout = 0});  // none is what they have
  }
  for (const double p : {1.0, 1.5, std::nan("")}) {
    check_throws<ConfigError>([&] { make({.name = "deeplabv3_resnet18", .head_dropout = p}); }, {"head_dropout"});
    check_throws<ConfigError>([&] { make({.name = "deeplabv3_resnet18", .aspp_dropout = p}); }, {"aspp_dropout"});
  }
  check_throws<ConfigError>([&] { make({.name = "pspnet_resnet18", .separable = true}); }, {"separable", "DeepLab"});
  check_throws<ConfigError>([&] { make({.name = "pspnet_resnet18", .aspp_dropout = 0}); },
                            {"aspp_dropout", "not pspnet_resnet18"});
  check_throws<ConfigError>(
      [&] {
        make({.name = "ka_student_mobilenet_v2", .aspp_rates = {1, 2, 3}});
      },
      {"aspp_rates", "not ka_student_mobilenet_v2"});
  check_throws<ConfigError>(
      [&] {
        make({.name = "deeplabv3_resnet18", .aspp_rates = {12, 24, 0}});
      },
      {"rates 12, 24, 0", "from 1 to 1024"});
  check_throws<ConfigError>([&] { make({.name = "deeplabv3plus_resnet18", .variant = "mmseg", .aspp_dropout = 0.1}); },
                            {"aspp_dropout 0.1", "head_dropout"});
  check_throws<ConfigError>([&] { make({.name = "deeplabv3_resnet18", .aux = true, .variant = "tfd"}); },
                            {"auxiliary"});
  check_throws<ConfigError>([&] { make({.name = "deeplabv3plus_resnet18", .aux = true}); }, {"auxiliary"});
  check_throws<ConfigError>([&] { make({.name = "deeplabv3_resnet18", .width = 0.5}); }, {"width"});
  check_throws<ConfigError>([&] { make({.name = "deeplabv3_resnet18", .classes = 0}); }, {"0 classes"});
  const auto model = on_meta({.name = "deeplabv3_resnet18"});
  const std::vector<std::string> taps{"layer4", "layr3"};
  check_throws<ConfigError>(
      [&] {
        static_cast<void>(model->forward(Tensor::empty({1, 3, 33, 33}, DType::kF32, kMeta), taps));
      },
      {"no tap 'layr3'", "did you mean 'layer3'", "aspp.pre_relu"});
  check_throws<ConfigError>([&] { static_cast<void>(model->tap_info("x")); }, {"no tap 'x'"});
}

TEST_SUITE_END();
