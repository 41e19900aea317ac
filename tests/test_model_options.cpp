// Options of networks: that each reaches the layers it names and no others, that a network refuses those it does not have, and
// that a spec survives in a weight file.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>

#include "models/mobilenet_v2.h"
#include "models/zoo.h"
#include "ops/slice.h"
#include "tests/harness/meta_model.h"
#include "tests/harness/op_case.h"
#include "tests/harness/temp_dir.h"

using namespace limbeck;
using models::ModelSpec;
using test::check_throws;
using test::dilations;
using test::on_meta;

TEST_SUITE_BEGIN("model_options");

TEST_CASE("batch norm options reach every layer") {
  for (const std::string& name : models::model_names()) {
    CAPTURE(name);
    const auto model = on_meta({.name = name, .bn_eps = 0.25});
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

TEST_CASE("the head may have another eps of batch norm than the backbone") {
  for (const std::string& name : models::model_names()) {
    CAPTURE(name);
    const ModelSpec spec{.name = name, .bn_eps = 0.25, .head_bn_eps = 0.5};
    if (models::is_classification(name) || name == "mobilenet_v2_seg") {
      check_throws<ConfigError>([&] { static_cast<void>(on_meta(spec)); }, {"head_bn_eps 0.5", name});
      continue;
    }
    const auto model = on_meta(spec);
    int heads = 0;
    for (const auto& m : model->named_modules()) {
      const auto* bn = dynamic_cast<const nn::BatchNorm2d*>(m.module);
      if (bn == nullptr) continue;
      const bool head = !m.name.starts_with("backbone.");
      CHECK_MESSAGE(bn->eps() == (head ? 0.5 : 0.25), m.name);
      heads += head;
    }
    CHECK(heads >= 3);
  }
}

TEST_CASE("the ASPP's dropout can be left out alone") {
  // Whether the module called `name`, alone in train mode, drops anything.
  const auto drops = [](const ModelSpec& spec, const std::string& name) {
    Generator g(3);
    const auto model = models::make_model(spec, g);
    model->eval();
    const Tensor x = Tensor::empty({1, 3, 33, 33});
    fill_normal_(x, g, 0.0, 1.0);
    const NoGradGuard off;
    const nn::GeneratorScope scope(g);
    const auto before = model->forward(x).logits.to_vector<float>();
    bool found = false;
    for (const auto& m : model->named_modules()) {
      if (m.name != name) continue;
      m.module->train();
      found = true;
    }
    REQUIRE_MESSAGE(found, name);
    return model->forward(x).logits.to_vector<float>() != before;
  };
  const ModelSpec plain{.name = "deeplabv3plus_resnet18"};
  const ModelSpec without{.name = "deeplabv3plus_resnet18", .aspp_dropout = 0};
  CHECK(drops(plain, "classifier.aspp.dropout"));
  CHECK_FALSE(drops(without, "classifier.aspp.dropout"));
  for (const char* other : {"classifier.classifier.3", "classifier.classifier.7"}) {
    CHECK(drops(plain, other));
    CHECK(drops(without, other));
  }
  // It goes before head_dropout, which speaks for the ASPP where it is silent.
  const ModelSpec both{.name = "deeplabv3plus_resnet18", .head_dropout = 0, .aspp_dropout = 0.5};
  CHECK(drops(both, "classifier.aspp.dropout"));
  CHECK_FALSE(drops(both, "classifier.classifier.3"));
  CHECK_FALSE(drops({.name = "deeplabv3_resnet18", .aspp_dropout = 0}, "classifier.0.dropout"));
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

TEST_CASE("make_divisible rounds to eight, never far below") {
  CHECK(models::make_divisible(32) == 32);
  CHECK(models::make_divisible(11.2) == 16);  // 8 would be less than 90 %
  CHECK(models::make_divisible(8.4) == 8);
  CHECK(models::make_divisible(3) == 8);
  CHECK(models::make_divisible(44.8) == 48);
  const auto narrow = on_meta({.name = "mobilenet_v2", .classes = 1000, .width = 0.35});
  CHECK(narrow->parameter_count() == 1'677'128);
}

TEST_CASE("options that a network does not have, and impossible ones, are configuration errors") {
  Generator g;
  const nn::ParameterDevice meta(kMeta);
  const auto make = [&](const ModelSpec& spec) { static_cast<void>(models::make_model(spec, g)); };
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
}

TEST_CASE("a spec survives being written as metadata") {
  const ModelSpec spec{.name = "deeplabv3plus_resnet50",
                       .classes = 11,
                       .output_stride = 8,
                       .width = 1.0,
                       .width_divisor = 4,
                       .aux = false,
                       .bn_eps = 1e-3,
                       .head_bn_eps = 1e-5,
                       .bn_momentum = 0.01,
                       .relu6 = false,
                       .dilation = "tv",
                       .padding = "before_expansion",
                       .variant = "vf",
                       .stem = "v1c",
                       .separable = true,
                       .multi_grid = {1, 2, 1},
                       .head_dropout = 0.25,
                       .aspp_dropout = 0.125,
                       .aspp_rates = {12, 24, 36}};
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
