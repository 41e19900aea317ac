// Options of networks: that each reaches the layers it names and no others, and that a spec survives in a weight file.
#include <doctest/doctest.h>

#include <algorithm>

#include "core/rng.h"
#include "models/zoo.h"
#include "nn/layers.h"
#include "tests/harness/op_case.h"
#include "tests/harness/temp_dir.h"

using namespace limbeck;
using models::ModelSpec;
using test::check_throws;

TEST_SUITE_BEGIN("model_options");

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

TEST_CASE("the head may have another eps of batch norm than the backbone") {
  Generator g(1);
  const nn::ParameterDevice meta(kMeta);
  for (const std::string& name : models::model_names()) {
    CAPTURE(name);
    const ModelSpec spec{.name = name, .bn_eps = 0.25, .head_bn_eps = 0.5};
    if (models::is_classification(name) || name == "mobilenet_v2_seg") {
      check_throws<ConfigError>([&] { static_cast<void>(models::make_model(spec, g)); }, {"head_bn_eps 0.5", name});
      continue;
    }
    const auto model = models::make_model(spec, g);
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
