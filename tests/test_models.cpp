// Networks held to published sizes and costs to the unit (shapes only, nothing is computed), and to their contracts.
#include <doctest/doctest.h>

#include <cmath>

#include "models/deeplab_v3.h"
#include "models/mobilenet_v2.h"
#include "models/resnet.h"
#include "models/zoo.h"
#include "nn/tracer.h"
#include "tests/harness/op_case.h"
#include "tests/harness/temp_dir.h"

using namespace limbeck;
using models::ModelSpec;
using test::check_throws;

namespace {

struct Cost {
  std::int64_t params, macs;
  Shape logits, aux;
};

const Shape k224{1, 3, 224, 224};
const Shape k513{1, 3, 513, 513};

std::shared_ptr<models::Model> on_meta(const ModelSpec& spec) {
  const nn::ParameterDevice meta(kMeta);
  Generator g;
  auto model = models::make_model(spec, g);
  model->eval();
  return model;
}

Cost cost_of(const ModelSpec& spec, const Shape& input) {
  const auto model = on_meta(spec);
  const NoGradGuard off;
  nn::LayerTracer tracer;
  const models::Output out = model->forward(Tensor::empty(input, DType::kF32, kMeta));
  CHECK(tracer.total_params() == model->parameter_count());
  return {model->parameter_count(), tracer.total_macs(), out.logits.shape(), out.aux.defined() ? out.aux.shape() : Shape{}};
}

void check_cost(const ModelSpec& spec, const Shape& input, std::int64_t params, std::int64_t macs) {
  CAPTURE(spec.name);
  CAPTURE(spec.output_stride);
  const Cost c = cost_of(spec, input);
  CHECK(c.params == params);
  CHECK(c.macs == macs);
}

/// Parameters and MACs of a backbone alone at 513x513.
template <class Net, class Options>
void check_backbone(const Options& options, std::int64_t params, std::int64_t macs, std::int64_t high_size) {
  const nn::ParameterDevice meta(kMeta);
  Generator g;
  Net net(options, g);
  net.eval();
  CAPTURE(options.output_stride);
  const NoGradGuard off;
  nn::LayerTracer tracer;
  const models::Features f = net.forward(Tensor::empty(k513, DType::kF32, kMeta));
  CHECK(net.parameter_count() == params);
  CHECK(tracer.total_macs() == macs);
  CHECK(f.high.size(2) == high_size);
  CHECK(f.high.size(1) == net.channels().high);
  CHECK(f.low.size(1) == net.channels().low);
  CHECK(f.middle.size(1) == net.channels().middle);
  CHECK(f.low.size(3) == 129);
}

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

TEST_CASE("torchvision's classification networks") {
  check_cost({.name = "resnet18", .classes = 1000}, k224, 11'689'512, 1'814'073'344);
  check_cost({.name = "resnet34", .classes = 1000}, k224, 21'797'672, 3'663'761'408);
  check_cost({.name = "resnet50", .classes = 1000}, k224, 25'557'032, 4'089'184'256);
  check_cost({.name = "resnet101", .classes = 1000}, k224, 44'549'160, 7'801'405'440);
  check_cost({.name = "mobilenet_v2", .classes = 1000}, k224, 3'504'872, 300'774'272);
}

TEST_CASE("torchvision's deeplabv3 with auxiliary head") {
  const Cost r50 = cost_of({.name = "deeplabv3_resnet50", .classes = 21, .output_stride = 8, .aux = true}, k513);
  CHECK(r50.params == 42'004'074);
  CHECK(r50.logits == Shape{1, 21, 65, 65});
  CHECK(r50.aux == Shape{1, 21, 65, 65});
  CHECK(cost_of({.name = "deeplabv3_resnet101", .classes = 21, .output_stride = 8, .aux = true}, k513).params == 60'996'202);
}

TEST_CASE("ResNet backbones at all output strides") {
  using models::ResNet;
  using models::ResNetOptions;
  const auto at = [](int depth, std::int64_t os) { return ResNetOptions{.depth = depth, .output_stride = os}; };
  check_backbone<ResNet>(at(18, 32), 11'176'512, 9'998'427'328, 17);
  check_backbone<ResNet>(at(18, 16), 11'176'512, 16'709'313'728, 33);
  check_backbone<ResNet>(at(18, 8), 11'176'512, 49'592'657'088, 65);
  check_backbone<ResNet>(at(50, 32), 23'508'032, 22'551'684'288, 17);
  check_backbone<ResNet>(at(50, 16), 23'508'032, 34'086'020'288, 33);
  check_backbone<ResNet>(at(50, 8), 23'508'032, 102'729'999'552, 65);
  check_backbone<ResNet>(at(101, 32), 42'500'160, 43'177'239'744, 17);
  check_backbone<ResNet>(at(101, 16), 42'500'160, 54'711'575'744, 33);
  check_backbone<ResNet>(at(101, 8), 42'500'160, 182'751'093'952, 65);
}

TEST_CASE("MobileNetV2 backbone at all output strides, both dilation patterns") {
  using models::MobileNetV2;
  using models::MobileNetV2Options;
  for (const models::Dilation rule : {models::Dilation::kTv, models::Dilation::kJf}) {
    const auto at = [&](std::int64_t os) { return MobileNetV2Options{.output_stride = os, .dilation = rule}; };
    check_backbone<MobileNetV2>(at(32), 1'811'712, 1'544'053'184, 17);
    check_backbone<MobileNetV2>(at(16), 1'811'712, 2'502'824'384, 33);
    check_backbone<MobileNetV2>(at(8), 1'811'712, 7'903'166'912, 65);
  }
}

TEST_CASE("KA student") {
  const auto at = [](std::int64_t os, std::int64_t classes = 21) {
    return ModelSpec{.name = "ka_student_mobilenet_v2", .classes = classes, .output_stride = os};
  };
  check_cost(at(32), k513, 2'113'557, 1'607'243'456);
  check_cost(at(16), k513, 2'113'557, 2'740'709'056);
  check_cost(at(8), k513, 2'113'557, 8'825'853'632);
  check_cost(at(4), k513, 2'113'557, 33'415'691'968);
  check_cost(at(16, 19), {1, 3, 1025, 2049}, 2'113'043, 21'233'054'912);
}

TEST_CASE("DeepLabV3+ in the AICSD form") {
  const auto spec = [](const char* backbone, std::int64_t classes) {
    return ModelSpec{.name = std::string("deeplabv3plus_") + backbone, .classes = classes, .output_stride = 16};
  };
  check_cost(spec("resnet101", 21), k513, 59'344'309, 92'820'363'712);
  check_cost(spec("resnet18", 21), k513, 16'608'181, 42'674'402'752);
  check_cost(spec("mobilenet_v2", 21), k513, 5'816'053, 26'937'170'752);
  check_cost(spec("resnet101", 19), k513, 59'343'795, 92'811'843'520);
  check_cost(spec("resnet18", 19), k513, 16'607'667, 42'665'882'560);
  check_cost(spec("mobilenet_v2", 19), k513, 5'815'539, 26'928'650'560);
  CHECK(cost_of(spec("resnet18", 21), k513).logits == Shape{1, 21, 129, 129});
}

TEST_CASE("DeepLabV3 and DeepLabV3+ in VainF's form") {
  const auto spec = [](const char* name) { return ModelSpec{.name = name, .classes = 21, .output_stride = 16, .variant = "vf"}; };
  check_cost(spec("deeplabv3_mobilenet_v2"), k513, 5'113'877, 6'005'827'264);
  check_cost(spec("deeplabv3_resnet50"), k513, 39'638'869, 51'078'150'592);
  check_cost(spec("deeplabv3_resnet101"), k513, 58'630'997, 71'703'706'048);
  check_cost(spec("deeplabv3plus_mobilenet_v2"), k513, 5'225'717, 17'121'909'568);
  check_cost(spec("deeplabv3plus_resnet50"), k513, 39'761'845, 62'379'547'072);
  check_cost(spec("deeplabv3plus_resnet101"), k513, 58'753'973, 83'005'102'528);
}

TEST_CASE("mobilenet_v2_seg is the backbone and one 1x1 convolution") {
  const ModelSpec spec{.name = "mobilenet_v2_seg", .classes = 21};
  check_cost(spec, k513, 1'811'712 + 321 * 21, 2'502'824'384 + 33 * 33 * 320 * 21);
  CHECK(cost_of(spec, k513).logits == Shape{1, 21, 33, 33});
}

TEST_CASE("state dictionaries have torchvision's size and names") {
  const auto r18 = on_meta({.name = "resnet18", .classes = 1000});
  CHECK(r18->state_dict().size() == 122);
  CHECK(floats_in_state(*r18) == 11'699'112);
  CHECK(!r18->state_dict().contains("layer1.0.downsample.0.weight"));
  const auto r50 = on_meta({.name = "resnet50", .classes = 1000});
  CHECK(r50->state_dict().size() == 320);
  CHECK(floats_in_state(*r50) == 25'610'152);
  for (const char* name : {"conv1.weight", "bn1.num_batches_tracked", "layer1.0.downsample.0.weight",
                           "layer1.0.downsample.1.running_var", "layer3.5.bn3.bias", "layer4.2.conv2.weight", "fc.bias"}) {
    CHECK_MESSAGE(r50->state_dict().contains(name), name);
  }
  CHECK(r50->state_dict().at("layer4.0.conv2.weight").shape() == Shape{512, 512, 3, 3});
  const auto r101 = on_meta({.name = "resnet101", .classes = 1000});
  CHECK(r101->state_dict().size() == 626);
  CHECK(floats_in_state(*r101) == 44'654'504);
  const auto mn = on_meta({.name = "mobilenet_v2", .classes = 1000});
  CHECK(mn->state_dict().size() == 314);
  CHECK(floats_in_state(*mn) == 3'538'984);
  for (const char* name : {"features.0.0.weight", "features.1.conv.0.0.weight", "features.1.conv.1.weight",
                           "features.1.conv.2.running_mean", "features.17.conv.3.bias", "features.18.1.weight",
                           "classifier.1.weight"}) {
    CHECK_MESSAGE(mn->state_dict().contains(name), name);
  }
  CHECK(mn->state_dict().at("features.2.conv.1.0.weight").shape() == Shape{96, 1, 3, 3});
  const auto dl = on_meta({.name = "deeplabv3_resnet50", .output_stride = 8, .aux = true});
  CHECK(dl->state_dict().size() == 370);
  for (const char* name : {"backbone.conv1.weight", "classifier.0.convs.0.0.weight", "classifier.0.convs.3.1.weight",
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
  // Defaults: tv for deeplabv3, jf for deeplabv3plus, tv for its vf variant; an explicit multi-grid wins.
  CHECK(of("resnet50", 16, "", "layer4") == List{1, 2, 2});
  CHECK(dilations(*on_meta({.name = "deeplabv3plus_resnet50"}), "layer4") == List{2, 4, 8});
  CHECK(dilations(*on_meta({.name = "deeplabv3plus_resnet50", .variant = "vf"}), "layer4") == List{1, 2, 2});
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

TEST_CASE("ASPP rates follow the output stride") {
  for (const auto& [os, rate] : std::vector<std::pair<std::int64_t, std::int64_t>>{{32, 3}, {16, 6}, {8, 12}}) {
    const auto m = on_meta({.name = "deeplabv3_resnet18", .output_stride = os});
    CHECK(dilations(*m, "convs.") == List{rate, 2 * rate, 3 * rate});
  }
}

TEST_CASE("make_divisible rounds to eight, never far below") {
  CHECK(models::make_divisible(32) == 32);
  CHECK(models::make_divisible(11.2) == 16);  // 8 would be less than 90 %
  CHECK(models::make_divisible(8.4) == 8);
  CHECK(models::make_divisible(3) == 8);
  CHECK(models::make_divisible(44.8) == 48);
  const auto narrow = on_meta({.name = "mobilenet_v2", .classes = 1000, .width = 0.35});
  CHECK(narrow->parameter_count() == 1'677'128 );
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
  for (const std::string name : {"deeplabv3plus_resnet18", "deeplabv3_mobilenet_v2", "ka_student_mobilenet_v2"}) {
    CAPTURE(name);
    Generator g(3);
    const auto model = models::make_model({.name = name, .classes = 5, .width = name == "deeplabv3plus_resnet18" ? 1.0 : 0.35}, g);
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
      CHECK(test::relative_error(nn::activate(before, ops::Activation::kRelu), tapped.taps.at(tap.substr(0, at))) < 1e-5);
      double lowest = 0;
      for (const float v : before.to_vector<float>()) lowest = std::min(lowest, static_cast<double>(v));
      CHECK(lowest < 0);
    }
  }
}

TEST_CASE("a training step gives every parameter a finite gradient") {
  for (const std::string name : {"deeplabv3_resnet18", "deeplabv3plus_mobilenet_v2", "ka_student_mobilenet_v2", "resnet18"}) {
    CAPTURE(name);
    Generator g(3);
    ModelSpec spec{.name = name, .classes = 5, .aux = name == "deeplabv3_resnet18"};
    if (name.find("mobilenet") != std::string::npos) spec.width = 0.35;
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

TEST_CASE("batch norm options reach every layer") {
  Generator g(1);
  const nn::ParameterDevice meta(kMeta);
  for (const std::string& name : models::model_names()) {
    CAPTURE(name);
    const auto model = models::make_model({.name = name, .bn_eps = 0.25}, g);
    int seen = 0;
    for (const auto& m : model->named_modules()) {
      if (const auto* bn = dynamic_cast<const nn::BatchNorm2d*>(m.module)) {
        CHECK_MESSAGE(bn->eps() == 0.25, m.name);
        ++seen;
      }
    }
    CHECK(seen > 10);
  }
}

TEST_CASE("ReLU6 can be replaced by ReLU") {
  for (const bool relu6 : {true, false}) {
    Generator g(2);
    const auto model = models::make_model({.name = "mobilenet_v2", .classes = 3, .width = 0.35, .relu6 = relu6}, g);
    model->eval();
    model->state_dict().at("features.0.1.bias").fill_(20.0);
    const NoGradGuard off;
    const std::vector<std::string> taps{"features.0"};
    const auto v = model->forward(Tensor::full({1, 3, 32, 32}, 1.0), taps).taps.at("features.0").to_vector<float>();
    CHECK((*std::max_element(v.begin(), v.end()) > 6.0F) == !relu6);
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
  check_throws<ConfigError>([&] { make({.name = "deeplabv3_resnet18", .variant = "jf"}); }, {"'jf'", "tv or vf"});
  check_throws<ConfigError>([&] { make({.name = "deeplabv3plus_resnet18", .variant = "tv"}); }, {"'tv'", "jf or vf"});
  check_throws<ConfigError>([&] { make({.name = "deeplabv3plus_resnet18", .aux = true}); }, {"auxiliary"});
  check_throws<ConfigError>([&] { make({.name = "deeplabv3_resnet18", .width = 0.5}); }, {"width"});
  check_throws<ConfigError>([&] { make({.name = "deeplabv3_resnet18", .classes = 0}); }, {"0 classes"});
  const auto model = on_meta({.name = "deeplabv3_resnet18"});
  const std::vector<std::string> taps{"layer4", "layr3"};
  check_throws<ConfigError>([&] { static_cast<void>(model->forward(Tensor::empty({1, 3, 33, 33}, DType::kF32, kMeta), taps)); },
                            {"no tap 'layr3'", "did you mean 'layer3'", "aspp.pre_relu"});
  check_throws<ConfigError>([&] { static_cast<void>(model->tap_info("x")); }, {"no tap 'x'"});
}

TEST_CASE("a spec survives being written as metadata") {
  const ModelSpec spec{.name = "deeplabv3plus_resnet50", .classes = 11, .output_stride = 8, .width = 1.0, .width_divisor = 4, .aux = false,
                       .bn_eps = 1e-3, .bn_momentum = 0.01, .relu6 = false, .dilation = "tv", .variant = "vf",
                       .multi_grid = {1, 2, 1}, .head_dropout = 0.25};
  const auto text = models::spec_to_metadata(spec);
  const auto back = models::spec_from_metadata(text);
  REQUIRE(back);
  CHECK(*back == spec);
  CHECK(!models::spec_from_metadata({{"author", "x"}}));
  auto broken = text;
  broken["classes"] = "many";
  check_throws<WeightsError>([&] { static_cast<void>(models::spec_from_metadata(broken)); }, {"'classes'", "'many'"});
}

TEST_SUITE_END();
