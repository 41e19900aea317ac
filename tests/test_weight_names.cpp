// Names of other code bases: state dictionaries with their exact published names load completely, and lists of names work.
#include <doctest/doctest.h>

#include <functional>

#include "apps/cli.h"
#include "apps/model_io.h"
#include "core/autograd.h"
#include "core/file_io.h"
#include "core/log.h"
#include "core/rng.h"
#include "core/safetensors.h"
#include "models/weights.h"
#include "models/zoo.h"
#include "nn/layers.h"
#include "ops/elementwise.h"
#include "tests/harness/op_case.h"
#include "tests/harness/temp_dir.h"
#include "tests/harness/weight_dicts.h"

using namespace limbeck;
using namespace limbeck::test;
using models::load_weights;
using models::ModelSpec;
using models::WeightMap;
using models::WeightsReport;
using nn::StateDict;

namespace {

using Pairs = std::vector<std::pair<std::string, std::string>>;

/// Our prefix -> their prefix; the first that fits wins.
std::function<std::string(const std::string&)> by_prefix(const Pairs& table) {
  return [table](const std::string& name) {
    for (const auto& [ours, theirs] : table) {
      if (name.starts_with(ours)) return theirs + name.substr(ours.size());
    }
    return name;
  };
}

/// Renames a network's dictionary as `published` does, loads it into another network of the same kind, and compares every tensor.
/// `examples` are names that must exist in the published file.
WeightsReport check_round_trip(const ModelSpec& spec, const std::function<std::string(const std::string&)>& published,
                               const std::vector<std::string>& examples, bool absolute_scales = false) {
  const auto from = make(spec, 1);
  shake(*from, 4);
  const StateDict file = renamed(from->state_dict(), published);
  if (absolute_scales) {
    for (const auto& module : from->named_modules()) {
      const auto* bn = dynamic_cast<const nn::BatchNorm2d*>(module.module);
      if (bn == nullptr) continue;
      const auto theirs = file.at(published(module.name + ".weight"));
      theirs.copy_(ops::neg(theirs));  // |gamma| + 1e-5 does not see the sign
      bn->weight().detach().copy_(ops::add_scalar(bn->weight().detach(), 1e-5));
    }
  }
  for (const std::string& name : examples) CHECK_MESSAGE(file.contains(name), name);
  const auto to = make(spec, 2);
  const WeightsReport r = load_weights(*to, file, "test");
  CHECK(r.missing.empty());
  CHECK(r.unexpected.empty());
  CHECK(r.mismatched.empty());
  CHECK(r.fresh.empty());
  for (const auto& [name, tensor] : from->state_dict()) {
    CHECK_MESSAGE(same(tensor, to->state_dict().at(name)), name);
  }
  return r;
}

Pairs mmseg_aux() {
  return {{"aux_classifier.0.", "auxiliary_head.convs.0.conv."},
          {"aux_classifier.1.", "auxiliary_head.convs.0.bn."},
          {"aux_classifier.4.", "auxiliary_head.conv_seg."}};
}

std::string flat_block(const std::string& name) {
  const std::size_t at = name.find(".conv.");
  if (at == std::string::npos || name.find("features.") == std::string::npos) return name;
  const bool first = name.find("features.1.") != std::string::npos;
  const Pairs table =
      first ? Pairs{{"0.0.", "0."}, {"0.1.", "1."}, {"1.", "3."}, {"2.", "4."}}
            : Pairs{{"0.0.", "0."}, {"0.1.", "1."}, {"1.0.", "3."}, {"1.1.", "4."}, {"2.", "6."}, {"3.", "7."}};
  return name.substr(0, at + 6) + by_prefix(table)(name.substr(at + 6));
}

const Pairs kJfNames{{"classifier.aspp.convs.0.0.", "aspp.aspp1.atrous_conv."},
                     {"classifier.aspp.convs.0.1.", "aspp.aspp1.bn."},
                     {"classifier.aspp.convs.1.0.", "aspp.aspp2.atrous_conv."},
                     {"classifier.aspp.convs.1.1.", "aspp.aspp2.bn."},
                     {"classifier.aspp.convs.2.0.", "aspp.aspp3.atrous_conv."},
                     {"classifier.aspp.convs.2.1.", "aspp.aspp3.bn."},
                     {"classifier.aspp.convs.3.0.", "aspp.aspp4.atrous_conv."},
                     {"classifier.aspp.convs.3.1.", "aspp.aspp4.bn."},
                     {"classifier.aspp.convs.4.", "aspp.global_avg_pool."},
                     {"classifier.aspp.project.0.", "aspp.conv1."},
                     {"classifier.aspp.project.1.", "aspp.bn1."},
                     {"classifier.project.0.", "decoder.conv1."},
                     {"classifier.project.1.", "decoder.bn1."},
                     {"classifier.classifier.", "decoder.last_conv."}};

}  // namespace

TEST_SUITE_BEGIN("weight_names");

TEST_CASE("wrappers in front of all names are removed") {
  const auto from = make(kSmall, 1);
  for (const std::string prefix : {"module.", "model.", "module.model."}) {
    CAPTURE(prefix);
    const auto to = make(kSmall, 2);
    load_weights(*to, renamed(from->state_dict(), [&](const std::string& n) { return prefix + n; }), "test");
    CHECK(same(from->state_dict().at("classifier.weight"), to->state_dict().at("classifier.weight")));
  }
}

TEST_CASE("flat MobileNetV2 names are understood") {
  const auto image_net = make(kImageNet, 1);
  shake(*image_net, 4);
  const StateDict file = renamed(image_net->state_dict(), flat_block);
  REQUIRE(file.contains("features.2.conv.7.bias"));
  REQUIRE(file.contains("features.1.conv.3.weight"));
  REQUIRE(!file.contains("features.2.conv.0.0.weight"));
  const auto other = make(kImageNet, 2);
  load_weights(*other, file, "test");
  for (const auto& [name, tensor] : image_net->state_dict())
    CHECK_MESSAGE(same(tensor, other->state_dict().at(name)), name);
}

TEST_CASE("mmsegmentation: PSPNet") {
  Pairs names = mmseg_aux();
  for (const char* i : {"0", "1", "2", "3"}) {
    names.push_back({fmt::format("classifier.stages.{}.0.", i), fmt::format("decode_head.psp_modules.{}.1.conv.", i)});
    names.push_back({fmt::format("classifier.stages.{}.1.", i), fmt::format("decode_head.psp_modules.{}.1.bn.", i)});
  }
  names.push_back({"classifier.bottleneck.0.", "decode_head.bottleneck.conv."});
  names.push_back({"classifier.bottleneck.1.", "decode_head.bottleneck.bn."});
  names.push_back({"classifier.classifier.", "decode_head.conv_seg."});
  const ModelSpec spec{.name = "pspnet_resnet18", .classes = 5, .aux = true, .variant = "mmseg", .stem = "v1c"};
  check_round_trip(
      spec, by_prefix(names),
      {"backbone.stem.0.weight", "backbone.layer4.1.bn2.running_var", "decode_head.psp_modules.3.1.conv.weight",
       "decode_head.psp_modules.0.1.bn.running_mean", "decode_head.bottleneck.conv.weight", "decode_head.conv_seg.bias",
       "auxiliary_head.convs.0.conv.weight", "auxiliary_head.convs.0.bn.weight", "auxiliary_head.conv_seg.weight"});
  // Without an auxiliary head of its own, a network leaves the file's out.
  const auto from = make(spec, 1);
  ModelSpec no_aux = spec;
  no_aux.aux = false;
  const auto to = make(no_aux, 2);
  const WeightsReport r = load_weights(*to, renamed(from->state_dict(), by_prefix(names)), "test");
  CHECK(r.ignored.size() == 8);
  CHECK(contains(r.ignored, "aux_classifier.4.bias"));
}

TEST_CASE("mmsegmentation: DeepLabV3 and DeepLabV3+") {
  Pairs v3 = mmseg_aux();
  v3.push_back({"classifier.0.convs.4.1.", "decode_head.image_pool.1.conv."});
  v3.push_back({"classifier.0.convs.4.2.", "decode_head.image_pool.1.bn."});
  Pairs plus = mmseg_aux();
  plus.push_back({"classifier.aspp.convs.4.1.", "decode_head.image_pool.1.conv."});
  plus.push_back({"classifier.aspp.convs.4.2.", "decode_head.image_pool.1.bn."});
  plus.push_back({"classifier.aspp.convs.0.0.", "decode_head.aspp_modules.0.conv."});
  plus.push_back({"classifier.aspp.convs.0.1.", "decode_head.aspp_modules.0.bn."});
  const auto separable = [&](const std::string& ours, const std::string& theirs) {
    for (const std::string part : {"depthwise", "pointwise"}) {
      plus.push_back({ours + part + ".0.", theirs + part + "_conv.conv."});
      plus.push_back({ours + part + ".1.", theirs + part + "_conv.bn."});
    }
  };
  for (const char* i : {"0", "1", "2", "3"}) {
    v3.push_back({fmt::format("classifier.0.convs.{}.0.", i), fmt::format("decode_head.aspp_modules.{}.conv.", i)});
    v3.push_back({fmt::format("classifier.0.convs.{}.1.", i), fmt::format("decode_head.aspp_modules.{}.bn.", i)});
    separable(fmt::format("classifier.aspp.convs.{}.0.", i), fmt::format("decode_head.aspp_modules.{}.", i));
  }
  v3.push_back({"classifier.0.project.0.", "decode_head.bottleneck.conv."});
  v3.push_back({"classifier.0.project.1.", "decode_head.bottleneck.bn."});
  v3.push_back({"classifier.4.", "decode_head.conv_seg."});
  plus.push_back({"classifier.aspp.project.0.", "decode_head.bottleneck.conv."});
  plus.push_back({"classifier.aspp.project.1.", "decode_head.bottleneck.bn."});
  plus.push_back({"classifier.project.0.", "decode_head.c1_bottleneck.conv."});
  plus.push_back({"classifier.project.1.", "decode_head.c1_bottleneck.bn."});
  separable("classifier.classifier.0.", "decode_head.sep_bottleneck.0.");
  separable("classifier.classifier.4.", "decode_head.sep_bottleneck.1.");
  plus.push_back({"classifier.classifier.8.", "decode_head.conv_seg."});
  check_round_trip({.name = "deeplabv3_resnet18", .classes = 5, .aux = true, .variant = "mmseg", .stem = "v1c"},
                   by_prefix(v3),
                   {"decode_head.image_pool.1.conv.weight", "decode_head.aspp_modules.3.bn.weight",
                    "decode_head.bottleneck.bn.bias"});
  check_round_trip(
      {.name = "deeplabv3plus_resnet18", .classes = 5, .aux = true, .variant = "mmseg", .stem = "v1c"}, by_prefix(plus),
      {"decode_head.aspp_modules.0.conv.weight", "decode_head.aspp_modules.2.depthwise_conv.conv.weight",
       "decode_head.sep_bottleneck.1.pointwise_conv.bn.running_var", "decode_head.c1_bottleneck.conv.weight"});
}

TEST_CASE("the CWD experiments' PSPNet, which has no prefix for its backbone") {
  Pairs names{{"aux_classifier.0.", "dsn.0."},     {"aux_classifier.1.", "dsn.1."},
              {"aux_classifier.4.", "dsn.3."},     {"classifier.bottleneck.", "pspmodule.bottleneck."},
              {"classifier.classifier.", "head."}, {"backbone.", ""}};
  for (const char* i : {"0", "1", "2", "3"}) {
    names.push_back({fmt::format("classifier.stages.{}.0.", i), fmt::format("pspmodule.stages.{}.1.", i)});
    names.push_back({fmt::format("classifier.stages.{}.1.", i), fmt::format("pspmodule.stages.{}.2.", i)});
  }
  check_round_trip({.name = "pspnet_resnet18", .classes = 5, .aux = true, .variant = "td_leaky", .stem = "deep128"},
                   by_prefix(names),
                   {"conv3.weight", "layer1.0.downsample.0.weight", "pspmodule.stages.3.1.weight",
                    "pspmodule.stages.0.2.running_var", "pspmodule.bottleneck.0.weight", "pspmodule.bottleneck.1.bias",
                    "head.weight", "dsn.0.bias", "dsn.3.weight"},
                   true);
}

TEST_CASE("VainF's DeepLabV3 and DeepLabV3+") {
  const auto same_names = [](const std::string& n) { return n; };
  check_round_trip(
      {.name = "deeplabv3plus_resnet18", .classes = 5, .variant = "vf"}, same_names,
      {"classifier.project.0.weight", "classifier.aspp.convs.4.1.weight", "classifier.aspp.project.1.bias",
       "classifier.classifier.0.weight", "classifier.classifier.3.bias", "backbone.layer4.1.conv2.weight"});
  check_round_trip(
      {.name = "deeplabv3_resnet18", .classes = 5, .variant = "vf"},
      by_prefix({{"classifier.", "classifier.classifier."}}),
      {"classifier.classifier.0.convs.0.0.weight", "classifier.classifier.1.weight", "classifier.classifier.4.bias"});
  const auto split = [](const std::string& name) {
    if (!name.starts_with("backbone.features.")) return name;
    const std::string rest = name.substr(18);
    const bool low =
        rest.starts_with("0.") || rest.starts_with("1.") || rest.starts_with("2.") || rest.starts_with("3.");
    return (low ? "backbone.low_level_features." : "backbone.high_level_features.") + rest;
  };
  check_round_trip({.name = "deeplabv3plus_mobilenet_v2", .classes = 5, .width = 0.35, .variant = "vf"}, split,
                   {"backbone.low_level_features.0.0.weight", "backbone.low_level_features.3.conv.0.0.weight",
                    "backbone.high_level_features.17.conv.3.running_var"});
  const auto net = make({.name = "deeplabv3plus_mobilenet_v2", .classes = 5, .width = 0.35, .variant = "vf"}, 1);
  const auto form = models::published_form(renamed(net->state_dict(), split));
  REQUIRE(form);
  CHECK(form->padding == "before_expansion");
  CHECK(form->dilation.empty());
  CHECK(!models::published_form(net->state_dict()));
}

TEST_CASE("jfzhang95's DeepLabV3+, with and without dropout in its decoder") {
  check_round_trip({.name = "deeplabv3plus_resnet18", .classes = 5}, by_prefix(kJfNames),
                   {"aspp.aspp1.atrous_conv.weight", "aspp.aspp4.bn.running_mean", "aspp.global_avg_pool.1.weight",
                    "aspp.conv1.weight", "aspp.bn1.bias", "decoder.conv1.weight", "decoder.bn1.weight",
                    "decoder.last_conv.4.weight", "decoder.last_conv.8.bias"});
  const auto old = [](const std::string& name) {
    const std::string now = by_prefix(kJfNames)(name);
    return by_prefix({{"decoder.last_conv.4.", "decoder.last_conv.3."},
                      {"decoder.last_conv.5.", "decoder.last_conv.4."},
                      {"decoder.last_conv.8.", "decoder.last_conv.6."}})(now);
  };
  check_round_trip({.name = "deeplabv3plus_resnet18", .classes = 5}, old,
                   {"decoder.last_conv.3.weight", "decoder.last_conv.6.bias"});
}

TEST_CASE("jfzhang95's MobileNetV2: flat names, everything twice") {
  const ModelSpec spec{.name = "deeplabv3plus_mobilenet_v2", .classes = 5, .width = 0.35};
  const auto from = make(spec, 1);
  shake(*from, 4);
  StateDict file = renamed(from->state_dict(), [](const std::string& n) { return flat_block(by_prefix(kJfNames)(n)); });
  REQUIRE(file.contains("backbone.features.4.conv.7.running_var"));
  StateDict copies;
  for (const auto& [name, tensor] : file) {
    if (!name.starts_with("backbone.features.")) continue;
    const bool low = std::stoi(name.substr(18)) < 4;
    copies.emplace((low ? "backbone.low_level_features." : "backbone.high_level_features.") + name.substr(18), tensor);
  }
  const std::size_t twice = copies.size();
  file.merge(copies);
  const auto to = make(spec, 2);
  const WeightsReport r = load_weights(*to, file, "test");
  CHECK(r.ignored.size() == twice);
  CHECK(r.metadata.at("padding") == "before_expansion");
  REQUIRE(models::published_form(file));
  CHECK(models::published_form(file)->dilation == "jf");
  CHECK(r.missing.empty());
  CHECK(r.unexpected.empty());
  for (const auto& [name, tensor] : from->state_dict()) CHECK_MESSAGE(same(tensor, to->state_dict().at(name)), name);
}

TEST_CASE("import gives a MobileNetV2 of VainF or jfzhang95 the padding and dilation that it was trained with") {
  const test::TempDir dir;
  const auto import_file = [&](const StateDict& file, const std::string& padding) {
    std::vector<NamedTensor> tensors;
    for (const auto& [name, tensor] : file) tensors.push_back({name, tensor});
    save_safetensors(dir / "theirs.safetensors", tensors);
    apps::ImportArgs args;
    args.model = "deeplabv3plus_mobilenet_v2";
    args.classes = 5;
    args.width = 0.35;
    args.padding = padding;
    args.file = (dir / "theirs.safetensors").string();
    args.out = (dir / "ours.safetensors").string();
    CHECK(apps::run_import(args) == 0);
    return apps::load_model(dir / "ours.safetensors");
  };
  set_log_sink([](LogLevel, std::string_view) {});
  const ModelSpec spec{.name = "deeplabv3plus_mobilenet_v2",
                       .classes = 5,
                       .width = 0.35,
                       .dilation = "jf",
                       .padding = "before_expansion"};
  const auto from = make(spec, 1);
  shake(*from, 4);
  StateDict jf = renamed(from->state_dict(), [](const std::string& n) { return flat_block(by_prefix(kJfNames)(n)); });
  StateDict copies;
  for (const auto& [name, tensor] : jf) {
    if (!name.starts_with("backbone.features.")) continue;
    const bool low = std::stoi(name.substr(18)) < 4;
    copies.emplace((low ? "backbone.low_level_features." : "backbone.high_level_features.") + name.substr(18), tensor);
  }
  jf.merge(copies);
  const auto loaded = import_file(jf, "");
  CHECK(loaded.card.spec == spec);
  const NoGradGuard off;
  from->eval();
  Tensor x = Tensor::empty({1, 3, 65, 49});
  Generator g(5);
  fill_normal_(x, g, 0, 1);
  const Tensor y = loaded.model->forward(x).logits;
  CHECK(relative_error(y, from->forward(x).logits) < 1e-5);
  CHECK(import_file(jf, "depthwise").card.spec.padding == "depthwise");  // who asks for another one gets it
  const auto other = import_file(from->state_dict(), "");
  CHECK(other.card.spec.padding.empty());
  CHECK(relative_error(other.model->forward(x).logits, y) > 1e-3);
  set_log_sink({});
}

TEST_CASE("torchvision's DeepLabV3 with auxiliary head, into networks with and without one") {
  const ModelSpec spec{.name = "deeplabv3_resnet18", .classes = 5, .aux = true};
  check_round_trip(spec, [](const std::string& n) { return n; },
                   {"aux_classifier.0.weight", "aux_classifier.4.bias", "classifier.4.weight"});
  const auto from = make(spec, 1);
  const auto to = make({.name = "deeplabv3_resnet18", .classes = 5}, 2);
  const WeightsReport r = load_weights(*to, from->state_dict(), "test");
  CHECK(r.ignored.size() == 8);
  CHECK(r.unexpected.empty());
}

TEST_CASE("a classification checkpoint with backbone. and head.fc. in front") {
  check_round_trip({.name = "resnet18", .classes = 5},
                   [](const std::string& n) { return n.starts_with("fc.") ? "head." + n : "backbone." + n; },
                   {"backbone.conv1.weight", "head.fc.bias"});
  // The backbone alone, under that prefix, fills the classifier's features and misses its last layer.
  const auto from = make({.name = "resnet18", .classes = 5}, 1);
  const StateDict file = renamed(
      from->state_dict(), [](const std::string& n) { return n.starts_with("fc.") ? std::string() : "backbone." + n; });
  const auto to = make({.name = "resnet18", .classes = 5}, 2);
  CHECK(load_weights(*to, file, "test", {.strict = false}).missing == std::vector<std::string>{"fc.bias", "fc.weight"});
}

TEST_CASE("a list of names: exact lines, patterns, lines that leave out, wrappers") {
  const auto from = make(kSmall, 1);
  shake(*from, 4);
  StateDict file = renamed(from->state_dict(), [](const std::string& n) {
    if (n == "classifier.weight") return std::string("module.last.kernel");
    return "module." + by_prefix({{"backbone.", "encoder."}, {"aspp.", "pool."}})(n);
  });
  file.emplace("module.step", Tensor::full({1}, 3.0));
  const auto to = make(kSmall, 2);
  check_throws<WeightsError>([&] { load_weights(*to, file, "FILE"); },
                             {"encoder.features.0.0.weight", "nothing was changed"});
  const WeightMap map = WeightMap::parse(
      "# theirs  ours\n"
      "module.last.kernel: classifier.weight\n"
      "encoder.*  backbone.*   # a pattern\n"
      "\n"
      "pool.* aspp.*\n"
      "step -\n",
      "names.txt");
  const WeightsReport r = load_weights(*to, file, "FILE", {.map = map});
  CHECK(r.missing.empty());
  CHECK(r.unexpected.empty());
  CHECK(r.ignored == std::vector<std::string>{"step"});
  for (const auto& [name, tensor] : from->state_dict()) CHECK_MESSAGE(same(tensor, to->state_dict().at(name)), name);
}

TEST_CASE("a list of names with mistakes names file and line") {
  const auto from = make(kSmall, 1);
  const auto to = make(kSmall, 2);
  const auto load = [&](const std::string& text) {
    load_weights(*to, from->state_dict(), "FILE", {.map = WeightMap::parse(text, "names.txt")});
  };
  check_throws<WeightsError>([&] { load("a b\nclassifier.weight\n"); }, {"names.txt:2", "expected two names"});
  check_throws<WeightsError>([&] { load("a b c\n"); }, {"names.txt:1", "expected two names"});
  check_throws<WeightsError>([&] { load("a.* b\n"); }, {"names.txt:1", "a * must end both names or none"});
  check_throws<WeightsError>([&] { load("a b\n# x\na c\n"); }, {"names.txt:3", "'a' is already in line 1"});
  check_throws<WeightsError>([&] { load("# only a comment\n"); }, {"names.txt", "no pair of names"});
  check_throws<WeightsError>(
      [&] { load("clasifier.weight classifier.weight\n"); },
      {"names.txt:1", "no tensor of FILE is called 'clasifier.weight'", "did you mean 'classifier.weight'"});
  check_throws<WeightsError>(
      [&] { load("classifier.weight clasifier.weight\n"); },
      {"names.txt:1", "the network has no tensor 'clasifier.weight'", "did you mean 'classifier.weight'"});
  check_throws<WeightsError>([&] { load("classifier.bias classifier.weight\n"); },
                             {"would both become 'classifier.weight'"});
  const test::TempDir dir;
  check_throws<WeightsError>([&] { static_cast<void>(WeightMap::read(dir / "none.txt")); }, {"none.txt"});
  write_file_atomic(dir / "names.txt", "x -\n");
  CHECK(WeightMap::read(dir / "names.txt").source().ends_with("names.txt"));
}

TEST_SUITE_END();
