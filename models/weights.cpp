// What this is: the rules of models/weights.h. Each rule turns the file's dictionary into another one; the last step
//   compares with the network and copies.
#include "models/weights.h"

#include <algorithm>
#include <charconv>
#include <set>

#include "core/safetensors.h"
#include "core/torch_file.h"
#include "models/zoo.h"

namespace limbeck::models {
namespace {

namespace fs = std::filesystem;
using nn::StateDict;

bool starts_with_any(const std::string& name, std::initializer_list<const char*> prefixes) {
  return std::any_of(prefixes.begin(), prefixes.end(), [&](const char* p) { return name.starts_with(p); });
}

/// Rule 1: a prefix that all names share and that the network does not have.
StateDict without_wrapper(StateDict file) {
  for (const std::string prefix : {"module.", "model.", "net."}) {
    const bool all = !file.empty() && std::all_of(file.begin(), file.end(), [&](const auto& e) { return e.first.starts_with(prefix); });
    if (!all) continue;
    StateDict out;
    for (auto& [name, tensor] : file) out.emplace(name.substr(prefix.size()), tensor);
    file = std::move(out);
  }
  return file;
}

/// Rule 2: flat MobileNetV2 names. In torchvision's form "features.2.conv.3.weight" is a batch norm (one dimension).
StateDict with_nested_blocks(StateDict file) {
  const auto probe = file.find("features.2.conv.3.weight");
  if (probe == file.end() || probe->second.ndim() != 4) return file;
  static const std::map<int, const char*> kBlock{{0, "0.0"}, {1, "0.1"}, {3, "1.0"}, {4, "1.1"}, {6, "2"}, {7, "3"}};
  static const std::map<int, const char*> kFirst{{0, "0.0"}, {1, "0.1"}, {3, "1"}, {4, "2"}};
  StateDict out;
  for (auto& [name, tensor] : file) {
    const std::size_t at = name.find(".conv.");
    if (!name.starts_with("features.") || at == std::string::npos) {
      out.emplace(name, tensor);
      continue;
    }
    const std::size_t digits = at + 6;
    const std::size_t dot = name.find('.', digits);
    int index = -1;
    std::from_chars(name.data() + digits, name.data() + std::min(dot, name.size()), index);
    const auto& table = name.starts_with("features.1.") ? kFirst : kBlock;
    const auto found = table.find(index);
    const std::string tail = dot == std::string::npos ? "" : name.substr(dot);
    out.emplace(found == table.end() ? name : name.substr(0, digits) + found->second + tail, tensor);
  }
  return out;
}

/// Rule 3: which of the file's names belong to an ImageNet classifier that this network does not have. A classifier's
/// weight is a matrix; "classifier.1.weight" of DeepLabV3 is a 3x3 convolution and is not meant.
bool is_foreign_classifier(const std::string& name, const StateDict& file, const StateDict& own) {
  const bool segmentation = std::any_of(own.begin(), own.end(), [](const auto& e) { return e.first.starts_with("backbone."); });
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

/// Rule 4: where a name of the file lives in the network: as it is, or below "backbone."; empty if nowhere.
std::string place_of(const std::string& name, const StateDict& own) {
  if (own.contains(name)) return name;
  if (own.contains("backbone." + name)) return "backbone." + name;
  return "";
}

/// "a.b.3" -> "a.b.4": in this folder's networks a batch norm follows its convolution. Empty if there is no number.
std::string next_sibling(const std::string& module) {
  const std::size_t dot = module.rfind('.');
  const std::size_t begin = dot == std::string::npos ? 0 : dot + 1;
  int index = -1;
  const char* end = module.data() + module.size();
  const auto result = std::from_chars(module.data() + begin, end, index);
  if (result.ec != std::errc() || result.ptr != end) return "";
  return module.substr(0, begin) + std::to_string(index + 1);
}

/// Rule 5: a folded convolution. Adds the entries of the batch norm and returns true if `module` (of the file) is one.
bool unfold(const std::string& module, const Tensor& weight, const Tensor& bias, double eps, const StateDict& own,
            StateDict& out) {
  for (const std::string& candidate : {module, module + ".0"}) {
    const std::string place = place_of(candidate + ".weight", own);
    if (place.empty()) continue;
    const std::string conv = place.substr(0, place.size() - std::string(".weight").size());
    const std::string bn = next_sibling(conv);
    if (own.contains(conv + ".bias") || bn.empty() || !own.contains(bn + ".running_var")) continue;
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

Translation translate(const StateDict& file, const StateDict& own, double eps) {
  Translation t;
  constexpr std::string_view kWeight = ".weight";
  constexpr std::string_view kBias = ".bias";
  std::set<std::string> done;
  for (const auto& [name, tensor] : file) {  // folded convolutions first: they use up two names at once
    if (!name.ends_with(kWeight) || is_foreign_classifier(name, file, own)) continue;
    const std::string module = name.substr(0, name.size() - kWeight.size());
    const auto bias = file.find(module + std::string(kBias));
    if (bias == file.end() || tensor.ndim() != 4) continue;
    if (!unfold(module, tensor, bias->second, eps, own, t.tensors)) continue;
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

WeightsReport load_weights(Model& model, const StateDict& file_in, const std::string& source,
                           const WeightsOptions& options) {
  const StateDict own = model.state_dict();
  const StateDict file = with_nested_blocks(without_wrapper(file_in));
  const double eps = model.spec().bn_eps;
  auto [tensors, report] = translate(file, own, eps);

  const auto in_backbone = [](const std::string& name) { return name.starts_with("backbone."); };
  const bool has_backbone = std::any_of(own.begin(), own.end(), [&](const auto& e) { return in_backbone(e.first); });
  const bool bare = has_backbone && std::all_of(tensors.begin(), tensors.end(), [&](const auto& e) { return in_backbone(e.first); });
  std::vector<std::pair<Tensor, Tensor>> copies;
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
    } else {
      report.loaded.push_back(name);
      copies.emplace_back(found->second, to);
    }
  }
  const bool names_differ = !report.missing.empty() || !report.unexpected.empty();
  const bool bad = copies.empty() || (options.strict && names_differ) ||
                   (!options.allow_shape_mismatch_skip && !report.mismatched.empty());
  if (bad) {
    fail<WeightsError>("weights", "{} does not fit {}: {}; nothing was changed", source, model.type(), report.to_string(20));
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
  for (SafetensorsEntry& e : file.entries) dict.emplace(e.name, std::move(e.tensor));
  WeightsReport report = load_weights(model, dict, path.string(), options);
  report.metadata = std::move(file.metadata);
  return report;
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
