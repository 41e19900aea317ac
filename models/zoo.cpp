// What this is: the table of names, and a spec as text.
#include "models/zoo.h"

#include <algorithm>
#include <optional>

#include "core/json.h"
#include "core/nearest_word.h"
#include "core/parse_number.h"
#include "models/deeplab_v3.h"
#include "models/deeplab_v3plus.h"
#include "models/ka_student.h"
#include "models/mobilenet_v1.h"
#include "models/mobilenet_v2.h"
#include "models/pspnet.h"
#include "models/resnet.h"

namespace limbeck::models {
namespace {

using Factory = std::shared_ptr<Model> (*)(const ModelSpec&, const std::string& backbone, Generator&);

std::shared_ptr<Model> resnet(const ModelSpec& spec, const std::string& depth, Generator& g) {
  return std::make_shared<ResNetClassifier>(spec, std::stoi(depth), g);
}

std::shared_ptr<Model> mobilenet_v1(const ModelSpec& spec, const std::string&, Generator& g) {
  return std::make_shared<MobileNetV1Classifier>(spec, g);
}

std::shared_ptr<Model> mobilenet_v2(const ModelSpec& spec, const std::string&, Generator& g) {
  return std::make_shared<MobileNetV2Classifier>(spec, g);
}

std::shared_ptr<Model> deeplabv3(const ModelSpec& spec, const std::string& backbone, Generator& g) {
  const Dilation pattern = is_mmseg(spec) ? Dilation::kMmseg : Dilation::kTv;
  return std::make_shared<DeepLabV3>(spec, make_backbone(backbone, spec, pattern, g), g);
}

std::shared_ptr<Model> deeplabv3plus(const ModelSpec& spec, const std::string& backbone, Generator& g) {
  Dilation pattern = Dilation::kTv;
  if (decoder_variant(spec) == DeepLabV3Plus::Variant::kJf) pattern = Dilation::kJf;
  if (is_mmseg(spec)) pattern = Dilation::kMmseg;
  return std::make_shared<DeepLabV3Plus>(spec, make_backbone(backbone, spec, pattern, g), g);
}

std::shared_ptr<Model> pspnet(const ModelSpec& spec, const std::string& backbone, Generator& g) {
  const Dilation pattern = is_mmseg(spec) ? Dilation::kMmseg : Dilation::kTd;
  return std::make_shared<PspNet>(spec, make_backbone(backbone, spec, pattern, g), g);
}

std::shared_ptr<Model> ka_student(const ModelSpec& spec, const std::string& backbone, Generator& g) {
  return std::make_shared<KaStudent>(spec, make_backbone(backbone, spec, Dilation::kTv, g), g);
}

std::shared_ptr<Model> plain(const ModelSpec& spec, const std::string& backbone, Generator& g) {
  if (spec.aux) fail<ConfigError>("mobilenet_v2_seg", "there is no auxiliary head; use aux=false");
  return std::make_shared<PlainSegmentation>(spec, make_backbone(backbone, spec, Dilation::kTv, g), g);
}

struct Entry {
  const char* name;
  Factory make;
  const char* argument;
};

constexpr Entry kModels[] = {
    {"resnet18", resnet, "18"},
    {"resnet34", resnet, "34"},
    {"resnet50", resnet, "50"},
    {"resnet101", resnet, "101"},
    {"mobilenet_v1", mobilenet_v1, ""},
    {"mobilenet_v2", mobilenet_v2, ""},
    {"mobilenet_v2_seg", plain, "mobilenet_v2"},
    {"ka_student_mobilenet_v2", ka_student, "mobilenet_v2"},
    {"deeplabv3_resnet18", deeplabv3, "resnet18"},
    {"deeplabv3_resnet34", deeplabv3, "resnet34"},
    {"deeplabv3_resnet50", deeplabv3, "resnet50"},
    {"deeplabv3_resnet101", deeplabv3, "resnet101"},
    {"deeplabv3_mobilenet_v1", deeplabv3, "mobilenet_v1"},
    {"deeplabv3_mobilenet_v2", deeplabv3, "mobilenet_v2"},
    {"deeplabv3_xception41", deeplabv3, "xception41"},
    {"deeplabv3_xception65", deeplabv3, "xception65"},
    {"deeplabv3plus_resnet18", deeplabv3plus, "resnet18"},
    {"deeplabv3plus_resnet34", deeplabv3plus, "resnet34"},
    {"deeplabv3plus_resnet50", deeplabv3plus, "resnet50"},
    {"deeplabv3plus_resnet101", deeplabv3plus, "resnet101"},
    {"deeplabv3plus_mobilenet_v1", deeplabv3plus, "mobilenet_v1"},
    {"deeplabv3plus_mobilenet_v2", deeplabv3plus, "mobilenet_v2"},
    {"deeplabv3plus_xception41", deeplabv3plus, "xception41"},
    {"deeplabv3plus_xception65", deeplabv3plus, "xception65"},
    {"pspnet_resnet18", pspnet, "resnet18"},
    {"pspnet_resnet34", pspnet, "resnet34"},
    {"pspnet_resnet50", pspnet, "resnet50"},
    {"pspnet_resnet101", pspnet, "resnet101"},
    {"pspnet_mobilenet_v2", pspnet, "mobilenet_v2"},
};

/// Options that only some networks have: asking another network for one is a mistake, not a wish that may be ignored.
void reject_foreign_options(const ModelSpec& spec) {
  const auto has = [&](const char* part) { return spec.name.find(part) != std::string::npos; };
  const auto only = [&](bool asked, bool fits, const std::string& option, const char* who) {
    if (asked && !fits) fail<ConfigError>("model", "{}: only {}, not {}", option, who, spec.name);
  };
  const ModelSpec usual;
  const bool whole_pictures = is_classification(spec.name), deeplab = spec.name.starts_with("deeplabv3"),
             plain_head = spec.name == "mobilenet_v2_seg", mobilenet = has("mobilenet");
  only(!spec.variant.empty(), deeplab || spec.name.starts_with("pspnet"), fmt::format("variant '{}'", spec.variant),
       "the DeepLab and PSPNet heads have variants");
  only(spec.separable, deeplab, "separable=true", "the DeepLab heads have a separable form");
  only(spec.aspp_rates != usual.aspp_rates || spec.aspp_dropout >= 0, deeplab, "aspp_rates and aspp_dropout",
       "the DeepLab heads have an ASPP");
  only(!spec.padding.empty(), has("mobilenet_v2"), fmt::format("padding '{}'", spec.padding),
       "MobileNetV2 has a choice of paddings");
  only(spec.width != usual.width, mobilenet, fmt::format("width {}", spec.width), "MobileNets have a width multiplier");
  only(spec.width_divisor != usual.width_divisor, mobilenet, fmt::format("width_divisor {}", spec.width_divisor),
       "MobileNets have a width multiplier");
  only(!spec.relu6, mobilenet, "relu6=false", "MobileNets have a ReLU6");
  only(!spec.stem.empty(), has("resnet"), fmt::format("stem '{}'", spec.stem), "ResNets have a choice of stems");
  only(!spec.dilation.empty(), !whole_pictures, fmt::format("dilation '{}'", spec.dilation),
       "segmentation networks replace strides by dilation");
  only(spec.multi_grid != usual.multi_grid, !whole_pictures && (has("resnet") || has("xception")), "multi_grid",
       "ResNets and Xceptions in segmentation networks have one");
  only(spec.aux, !whole_pictures, "aux=true", "segmentation networks have auxiliary heads");
  if (spec.head_bn_eps > 0 && (whole_pictures || plain_head)) {
    fail<ConfigError>("model", "head_bn_eps {}: there is no batch norm behind the backbone of {}; use bn_eps",
                      spec.head_bn_eps, spec.name);
  }
  const bool drops = mobilenet ? !plain_head : !whole_pictures;
  if (!drops && !(spec.head_dropout <= 0)) {
    fail<ConfigError>("model", "head_dropout {}: there is no dropout in {}", spec.head_dropout, spec.name);
  }
}

void check_numbers(const ModelSpec& spec) {
  for (const auto& [option, p] :
       {std::pair{"head_dropout", spec.head_dropout}, std::pair{"aspp_dropout", spec.aspp_dropout}}) {
    if (!(p < 1)) {
      fail<ConfigError>("model", "{} {}, expected a probability below 1, or a negative number for the network's own",
                        option, p);
    }
  }
  const auto& grid = spec.multi_grid;
  if (grid != ModelSpec{}.multi_grid && std::any_of(grid.begin(), grid.end(), [](auto f) { return f < 1 || f > 1024; }))
    fail<ConfigError>("model", "multi_grid {}, expected three factors from 1 to 1024", fmt::join(grid, ", "));
  // Beyond these, sizes would overflow before anybody noticed that they are absurd.
  if (spec.classes > 1'000'000) fail<ConfigError>("model", "{} classes, expected at most 1000000", spec.classes);
  if (spec.width > 64 || spec.width_divisor > 1024) {
    fail<ConfigError>("model", "width {} with divisor {}, expected at most 64 and 1024", spec.width,
                      spec.width_divisor);
  }
}

}  // namespace

std::shared_ptr<Model> make_model(const ModelSpec& spec, Generator& g) {
  const auto* found =
      std::find_if(std::begin(kModels), std::end(kModels), [&](const Entry& e) { return spec.name == e.name; });
  if (found == std::end(kModels)) {
    const std::string nearest = nearest_word(spec.name, model_names());
    std::string list;
    for (const Entry& e : kModels) list += (list.empty() ? "" : ", ") + std::string(e.name);
    fail<ConfigError>("model", "unknown network '{}'{}; known: {}", spec.name,
                      nearest.empty() ? "" : fmt::format(" (did you mean '{}'?)", nearest), list);
  }
  reject_foreign_options(spec);
  check_numbers(spec);
  std::shared_ptr<Model> model = found->make(spec, found->argument, g);
  model->set_spec(spec);
  return model;
}

std::vector<std::string> model_names() {
  std::vector<std::string> out;
  for (const Entry& e : kModels) out.emplace_back(e.name);
  return out;
}

bool is_classification(const std::string& name) {
  return name == "mobilenet_v1" || name == "mobilenet_v2" ||
         (name.starts_with("resnet") && name.find('_') == std::string::npos);
}

std::map<std::string, std::string> spec_to_metadata(const ModelSpec& s) {
  return {{"model", s.name},
          {"classes", std::to_string(s.classes)},
          {"output_stride", std::to_string(s.output_stride)},
          {"width", json_number(s.width)},
          {"width_divisor", std::to_string(s.width_divisor)},
          {"aux", s.aux ? "true" : "false"},
          {"bn_eps", json_number(s.bn_eps)},
          {"head_bn_eps", json_number(s.head_bn_eps)},
          {"bn_momentum", json_number(s.bn_momentum)},
          {"relu6", s.relu6 ? "true" : "false"},
          {"dilation", s.dilation},
          {"padding", s.padding},
          {"variant", s.variant},
          {"stem", s.stem},
          {"separable", s.separable ? "true" : "false"},
          {"multi_grid", fmt::format("{}", fmt::join(s.multi_grid, ","))},
          {"head_dropout", json_number(s.head_dropout)},
          {"aspp_dropout", json_number(s.aspp_dropout)},
          {"aspp_rates", fmt::format("{}", fmt::join(s.aspp_rates, ","))}};
}

namespace {

template <class T>
void read_value(std::string_view key, std::string_view text, T& out) {
  if constexpr (std::is_same_v<T, bool>) {
    if (text == "true" || text == "false") {
      out = text == "true";
      return;
    }
  } else {
    if (const auto number = parse_number<T>(text)) {
      out = *number;
      return;
    }
  }
  fail<WeightsError>("model", "metadata '{}' is '{}', expected a {}", key, text,
                     std::is_same_v<T, bool> ? "true or false" : "number");
}

/// "1,2,4"
void read_three(std::string_view key, std::string_view rest, std::array<std::int64_t, 3>& out) {
  for (std::int64_t& number : out) {
    const std::size_t comma = std::min(rest.find(','), rest.size());
    read_value(key, rest.substr(0, comma), number);
    rest.remove_prefix(std::min(comma + 1, rest.size()));
  }
}

}  // namespace

std::optional<ModelSpec> spec_from_metadata(const std::map<std::string, std::string>& metadata) {
  const auto text = [&](const char* key) -> const std::string* {
    const auto found = metadata.find(key);
    return found == metadata.end() ? nullptr : &found->second;
  };
  if (text("model") == nullptr) return std::nullopt;
  ModelSpec s;
  s.name = *text("model");
  const auto read = [&](const char* key, auto& out) {
    if (const std::string* value = text(key)) read_value(key, *value, out);
  };
  read("classes", s.classes);
  read("output_stride", s.output_stride);
  read("width", s.width);
  read("width_divisor", s.width_divisor);
  read("aux", s.aux);
  read("bn_eps", s.bn_eps);
  read("head_bn_eps", s.head_bn_eps);
  read("bn_momentum", s.bn_momentum);
  read("relu6", s.relu6);
  read("separable", s.separable);
  read("head_dropout", s.head_dropout);
  read("aspp_dropout", s.aspp_dropout);
  if (const std::string* value = text("dilation")) s.dilation = *value;
  if (const std::string* value = text("padding")) s.padding = *value;
  if (const std::string* value = text("variant")) s.variant = *value;
  if (const std::string* value = text("stem")) s.stem = *value;
  if (const std::string* value = text("multi_grid")) read_three("multi_grid", *value, s.multi_grid);
  if (const std::string* value = text("aspp_rates")) read_three("aspp_rates", *value, s.aspp_rates);
  return s;
}

}  // namespace limbeck::models
