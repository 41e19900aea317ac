// What this is: reading, comparing, copying. The names have been translated by models/weight_names.h; what is left here are the
//   rules that look at shapes: foreign classifiers, folded batch norm, heads of another class count.
#include "models/weights.h"

#include <algorithm>
#include <set>

#include "core/nearest_word.h"
#include "core/parse_number.h"
#include "core/safetensors.h"
#include "core/torch_file.h"
#include "models/spec_options.h"
#include "models/weight_names.h"
#include "models/zoo.h"

namespace limbeck::models {
namespace {

namespace fs = std::filesystem;
using nn::StateDict;

bool starts_with_any(const std::string& name, std::initializer_list<const char*> prefixes) {
  return std::any_of(prefixes.begin(), prefixes.end(), [&](const char* p) { return name.starts_with(p); });
}

/// Rule: which of the file's names belong to an ImageNet classifier that this network does not have. A classifier's
/// weight is a matrix; "classifier.1.weight" of DeepLabV3 is a 3x3 convolution and is not meant.
bool is_foreign_classifier(const std::string& name, const StateDict& file, const StateDict& own) {
  const bool segmentation =
      std::any_of(own.begin(), own.end(), [](const auto& e) { return e.first.starts_with("backbone."); });
  if (!segmentation) return false;
  const auto matrix = [&](const char* weight) {
    const auto found = file.find(weight);
    return found != file.end() && found->second.ndim() == 2;
  };
  if (starts_with_any(name, {"fc."})) return matrix("fc.weight");
  if (starts_with_any(name, {"classifier.1."})) return matrix("classifier.1.weight");
  if (starts_with_any(name, {"features.18.", "backbone.features.18."})) return true;
  return false;
}

/// Rule: where a name of the file lives in the network: as it is, or below "backbone."; empty if nowhere.
std::string place_of(const std::string& name, const StateDict& own) {
  if (own.contains(name)) return name;
  if (own.contains("backbone." + name)) return "backbone." + name;
  return "";
}

/// "a.b.3" -> "a.b.4": in this folder's networks a batch norm follows its convolution. Empty if there is no number.
std::string next_sibling(const std::string& module) {
  const std::size_t dot = module.rfind('.');
  const std::size_t begin = dot == std::string::npos ? 0 : dot + 1;
  const auto index = parse_number<std::uint64_t>(std::string_view(module).substr(begin));
  return index ? module.substr(0, begin) + std::to_string(*index + 1) : "";
}

/// Rule: a folded convolution. Adds the entries of the batch norm and returns true if `module` (of the file) is one.
bool unfold(const std::string& module, const Tensor& weight, const Tensor& bias, const ModelSpec& spec,
            const StateDict& own, StateDict& out) {
  for (const std::string& candidate : {module, module + ".0"}) {
    const std::string place = place_of(candidate + ".weight", own);
    if (place.empty()) continue;
    const std::string conv = place.substr(0, place.size() - std::string(".weight").size());
    const std::string bn = next_sibling(conv);
    if (own.contains(conv + ".bias") || bn.empty() || !own.contains(bn + ".running_var")) continue;
    const double eps = (bn.starts_with("backbone.") ? bn_args(spec) : head_bn_args(spec)).eps;
    out.emplace(conv + ".weight", weight);
    out.emplace(bn + ".bias", bias);
    out.emplace(bn + ".weight", Tensor::full(bias.shape(), 1.0));
    out.emplace(bn + ".running_mean", Tensor::full(bias.shape(), 0.0));
    out.emplace(bn + ".running_var", Tensor::full(bias.shape(), 1.0 - eps));
    return true;
  }
  return false;
}

struct Translation {
  StateDict tensors;  // under the network's names
  WeightsReport report;
};

Translation translate(const StateDict& file, const StateDict& own, const ModelSpec& spec) {
  Translation t;
  constexpr std::string_view kWeight = ".weight";
  constexpr std::string_view kBias = ".bias";
  std::set<std::string> done;
  for (const auto& [name, tensor] : file) {  // folded convolutions first: they use up two names at once
    if (!name.ends_with(kWeight) || is_foreign_classifier(name, file, own)) continue;
    const std::string module = name.substr(0, name.size() - kWeight.size());
    const auto bias = file.find(module + std::string(kBias));
    if (bias == file.end() || tensor.ndim() != 4) continue;
    if (!unfold(module, tensor, bias->second, spec, own, t.tensors)) continue;
    t.report.folded = true;
    done.insert(name);
    done.insert(bias->first);
  }
  for (const auto& [name, tensor] : file) {
    if (done.contains(name)) continue;
    if (is_foreign_classifier(name, file, own)) {
      t.report.ignored.push_back(name);
      continue;
    }
    const std::string place = place_of(name, own);
    if (!place.empty()) {
      t.tensors.emplace(place, tensor);
    } else if (name.ends_with(".num_batches_tracked")) {
      t.report.ignored.push_back(name);
    } else {
      t.report.unexpected.push_back(name);
    }
  }
  return t;
}

std::string list(const std::vector<std::string>& names, const char* title, std::size_t most) {
  std::string text = fmt::format("{} {}", names.size(), title);
  if (names.empty()) return text;
  text += " (";
  for (std::size_t i = 0; i < std::min(most, names.size()); ++i) text += (i > 0 ? ", " : "") + names[i];
  if (names.size() > most) text += fmt::format(", and {} more", names.size() - most);
  return text + ")";
}

}  // namespace

std::string WeightsReport::to_string(std::size_t most) const {
  std::string text = fmt::format("{} loaded, {}, {}, {}", loaded.size(), list(missing, "missing", most),
                                 list(unexpected, "unexpected", most), list(mismatched, "mismatched", most));
  if (!ignored.empty()) text += ", " + list(ignored, "ignored", most);
  if (!fresh.empty()) text += ", " + list(fresh, "fresh", most);
  if (folded) text += ", batch norm was folded";
  return text;
}

namespace {

/// Every line of a map must name something in the file, and lead to something in the network.
StateDict apply_map(const WeightMap& map, StateDict file, const std::string& wrapper, const StateDict& own,
                    const std::string& source, std::vector<std::string>& ignored) {
  std::vector<WeightMap::Use> uses;
  StateDict out = map.rename(file, wrapper, uses);
  std::vector<std::string> known;
  for (const auto& [name, tensor] : own) known.push_back(name);
  for (const WeightMap::Use& use : uses) {
    if (use.theirs.empty()) {
      std::vector<std::string> names;
      for (const auto& [name, tensor] : file) names.push_back(name);
      const std::string nearest = nearest_word(use.pattern, names);
      fail<WeightsError>("weights", "{}:{}: no tensor of {} is called '{}'{}", map.source(), use.line, source,
                         use.pattern, nearest.empty() ? "" : fmt::format("; did you mean '{}'?", nearest));
    }
    if (use.ours == "-") {
      ignored.push_back(use.theirs);
      continue;
    }
    const bool folded_bias =
        use.ours.ends_with(".bias") && !place_of(use.ours.substr(0, use.ours.size() - 4) + "weight", own).empty();
    if (place_of(use.ours, own).empty() && !folded_bias) {
      const std::string nearest = nearest_word(use.ours, known);
      fail<WeightsError>("weights", "{}:{}: the network has no tensor '{}'{}", map.source(), use.line, use.ours,
                         nearest.empty() ? "" : fmt::format("; did you mean '{}'?", nearest));
    }
  }
  return out;
}

/// The layer that makes logits, in a file for another number of classes: only the first dimension differs.
bool is_other_class_count(const std::string& name, const Shape& file, const Shape& own, std::int64_t classes) {
  if (name.starts_with("backbone.") || file.size() != own.size() || own.size() == 0 || own[0] != classes) return false;
  for (std::size_t d = 1; d < own.size(); ++d) {
    if (file[d] != own[d]) return false;
  }
  return true;
}

}  // namespace

WeightsReport load_weights(Model& model, const StateDict& file_in, const std::string& source,
                           const WeightsOptions& options) {
  const StateDict own = model.state_dict();
  std::vector<std::string> ignored;
  std::string wrapper;
  StateDict file = without_wrapper(file_in, own, wrapper);
  if (options.map) file = apply_map(*options.map, std::move(file), wrapper, own, source, ignored);
  file = with_our_names(std::move(file), own, ignored);
  auto [tensors, report] = translate(file, own, model.spec());
  report.ignored.insert(report.ignored.end(), ignored.begin(), ignored.end());
  if (const auto form = published_form(file_in)) report.metadata.emplace("padding", form->padding);

  const auto in_backbone = [](const std::string& name) { return name.starts_with("backbone."); };
  const bool has_backbone = std::any_of(own.begin(), own.end(), [&](const auto& e) { return in_backbone(e.first); });
  const bool bare =
      has_backbone && std::all_of(tensors.begin(), tensors.end(), [&](const auto& e) { return in_backbone(e.first); });
  std::vector<std::pair<Tensor, Tensor>> copies;
  bool wrong_shapes = false;
  for (const auto& [name, to] : own) {
    const auto found = tensors.find(name);
    if (found == tensors.end()) {
      if (bare && !in_backbone(name)) {
        report.fresh.push_back(name);
      } else if (!name.ends_with(".num_batches_tracked")) {
        report.missing.push_back(name);
      }
    } else if (found->second.shape() != to.shape()) {
      report.mismatched.push_back(fmt::format("{}: file {}, network {}", name, found->second.shape(), to.shape()));
      const bool other_classes = is_other_class_count(name, found->second.shape(), to.shape(), model.spec().classes);
      if (options.new_classifier && other_classes) report.fresh.push_back(name);
      wrong_shapes = wrong_shapes || !(options.new_classifier && other_classes);
    } else {
      report.loaded.push_back(name);
      copies.emplace_back(found->second, to);
    }
  }
  const bool names_differ = !report.missing.empty() || !report.unexpected.empty();
  if (copies.empty() || (options.strict && names_differ) || wrong_shapes) {
    fail<WeightsError>("weights", "{} does not fit {}: {}; nothing was changed", source, model.type(),
                       report.to_string(20));
  }
  for (const auto& [from, to] : copies) to.copy_(from);
  return report;
}

WeightsReport load_weights(Model& model, const fs::path& path_in, const WeightsOptions& options) {
  const fs::path path = fs::is_directory(path_in) ? path_in / "model.safetensors" : path_in;
  StateDict dict;
  if (is_torch_file(path)) {
    for (NamedTensor& t : load_torch_file(path).tensors) dict.emplace(t.name, std::move(t.tensor));
    return load_weights(model, dict, path.string(), options);
  }
  SafetensorsFile file = load_safetensors(path);
  if (has_int8_weights(file.metadata)) {
    fail<WeightsError>("weights",
                       "{}: its weights are in 8 bits, for inference; start from the network that was calibrated",
                       path.string());
  }
  for (SafetensorsEntry& e : file.entries) dict.emplace(e.name, std::move(e.tensor));
  WeightsReport report = load_weights(model, dict, path.string(), options);
  for (auto& [key, value] : file.metadata) report.metadata.insert_or_assign(key, std::move(value));
  return report;
}

bool has_int8_weights(const std::map<std::string, std::string>& metadata) {
  const auto entry = metadata.find("weights");
  return entry != metadata.end() && entry->second == "int8";
}

void save_weights(const Model& model, const fs::path& path, const std::map<std::string, std::string>& extra) {
  std::map<std::string, std::string> metadata = spec_to_metadata(model.spec());
  for (const auto& [key, value] : extra) metadata.insert_or_assign(key, value);
  std::vector<NamedTensor> tensors;
  for (auto& [name, tensor] : model.state_dict()) tensors.push_back({name, tensor});
  save_safetensors(path, tensors, metadata);
}

ModelSpec read_spec(const fs::path& path_in) {
  const fs::path path = fs::is_directory(path_in) ? path_in / "model.safetensors" : path_in;
  const auto spec = spec_from_metadata(inspect_safetensors(path).metadata);
  if (!spec) {
    fail<WeightsError>("weights", "{}: the metadata does not name a network; give one (model=NAME)", path.string());
  }
  return *spec;
}

}  // namespace limbeck::models
