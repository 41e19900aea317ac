// Networks held to their contracts: names, taps, gradients. Sizes and costs: test_model_costs.cpp; dilation and borders:
// test_model_dilation.cpp; options: test_model_options.cpp.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>

#include "models/zoo.h"
#include "tests/harness/meta_model.h"
#include "tests/harness/op_case.h"
#include "tests/harness/temp_dir.h"

using namespace limbeck;
using models::ModelSpec;
using test::check_throws;
using test::on_meta;

namespace {

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

TEST_CASE("unknown names of networks and taps are configuration errors with a hint") {
  Generator g;
  const nn::ParameterDevice meta(kMeta);
  const auto make = [&](const ModelSpec& spec) { static_cast<void>(models::make_model(spec, g)); };
  check_throws<ConfigError>([&] { make({.name = "deeplabv3plus_resnet81"}); },
                            {"did you mean 'deeplabv3plus_resnet", "ka_student_mobilenet_v2"});
  check_throws<ConfigError>([&] { make({.name = ""}); }, {"unknown network ''", "resnet18"});
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
