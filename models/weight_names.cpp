// What this is: models/weight_names.h: one table of prefixes per code base, and the reader of user-written lists.
#include "models/weight_names.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <optional>
#include <set>
#include <span>
#include <sstream>
#include <string_view>

#include "core/error.h"
#include "core/file_io.h"
#include "core/parse_number.h"

namespace limbeck::models {
namespace {

using nn::StateDict;

bool any_starts_with(const StateDict& state, std::string_view prefix) {
  return std::any_of(state.begin(), state.end(), [&](const auto& e) { return e.first.starts_with(prefix); });
}

/// Prefixes; # stands for a number, the same on both sides.
struct Prefix {
  std::string_view theirs;
  std::string_view ours;
};

/// `name` with its prefix replaced, if it has the one of `rule`.
std::optional<std::string> renamed(const Prefix& rule, std::string_view name) {
  std::string_view number;
  std::size_t at = 0;
  for (const char c : rule.theirs) {
    if (c == '#') {
      const std::size_t begin = at;
      while (at < name.size() && name[at] >= '0' && name[at] <= '9') ++at;
      number = name.substr(begin, at - begin);
      if (number.empty()) return std::nullopt;
    } else if (at < name.size() && name[at] == c) {
      ++at;
    } else {
      return std::nullopt;
    }
  }
  std::string out;
  for (const char c : rule.ours) {
    if (c == '#') {
      out += number;
    } else {
      out += c;
    }
  }
  return out += name.substr(at);
}

constexpr Prefix kMmsegPsp[] = {{"decode_head.psp_modules.#.1.conv.", "classifier.stages.#.0."},
                                {"decode_head.psp_modules.#.1.bn.", "classifier.stages.#.1."},
                                {"decode_head.bottleneck.conv.", "classifier.bottleneck.0."},
                                {"decode_head.bottleneck.bn.", "classifier.bottleneck.1."},
                                {"decode_head.conv_seg.", "classifier.classifier."}};

constexpr Prefix kMmsegV3[] = {{"decode_head.image_pool.1.conv.", "classifier.0.convs.4.1."},
                               {"decode_head.image_pool.1.bn.", "classifier.0.convs.4.2."},
                               {"decode_head.aspp_modules.#.conv.", "classifier.0.convs.#.0."},
                               {"decode_head.aspp_modules.#.bn.", "classifier.0.convs.#.1."},
                               {"decode_head.bottleneck.conv.", "classifier.0.project.0."},
                               {"decode_head.bottleneck.bn.", "classifier.0.project.1."},
                               {"decode_head.conv_seg.", "classifier.4."}};

constexpr Prefix kMmsegV3Plus[] = {
    {"decode_head.image_pool.1.conv.", "classifier.aspp.convs.4.1."},
    {"decode_head.image_pool.1.bn.", "classifier.aspp.convs.4.2."},
    {"decode_head.aspp_modules.#.conv.", "classifier.aspp.convs.#.0."},
    {"decode_head.aspp_modules.#.bn.", "classifier.aspp.convs.#.1."},
    {"decode_head.aspp_modules.#.depthwise_conv.conv.", "classifier.aspp.convs.#.0.depthwise.0."},
    {"decode_head.aspp_modules.#.depthwise_conv.bn.", "classifier.aspp.convs.#.0.depthwise.1."},
    {"decode_head.aspp_modules.#.pointwise_conv.conv.", "classifier.aspp.convs.#.0.pointwise.0."},
    {"decode_head.aspp_modules.#.pointwise_conv.bn.", "classifier.aspp.convs.#.0.pointwise.1."},
    {"decode_head.bottleneck.conv.", "classifier.aspp.project.0."},
    {"decode_head.bottleneck.bn.", "classifier.aspp.project.1."},
    {"decode_head.c1_bottleneck.conv.", "classifier.project.0."},
    {"decode_head.c1_bottleneck.bn.", "classifier.project.1."},
    {"decode_head.sep_bottleneck.0.depthwise_conv.conv.", "classifier.classifier.0.depthwise.0."},
    {"decode_head.sep_bottleneck.0.depthwise_conv.bn.", "classifier.classifier.0.depthwise.1."},
    {"decode_head.sep_bottleneck.0.pointwise_conv.conv.", "classifier.classifier.0.pointwise.0."},
    {"decode_head.sep_bottleneck.0.pointwise_conv.bn.", "classifier.classifier.0.pointwise.1."},
    {"decode_head.sep_bottleneck.1.depthwise_conv.conv.", "classifier.classifier.4.depthwise.0."},
    {"decode_head.sep_bottleneck.1.depthwise_conv.bn.", "classifier.classifier.4.depthwise.1."},
    {"decode_head.sep_bottleneck.1.pointwise_conv.conv.", "classifier.classifier.4.pointwise.0."},
    {"decode_head.sep_bottleneck.1.pointwise_conv.bn.", "classifier.classifier.4.pointwise.1."},
    {"decode_head.conv_seg.", "classifier.classifier.8."}};

constexpr Prefix kMmsegAux[] = {{"auxiliary_head.convs.0.conv.", "aux_classifier.0."},
                                {"auxiliary_head.convs.0.bn.", "aux_classifier.1."},
                                {"auxiliary_head.conv_seg.", "aux_classifier.4."}};

constexpr Prefix kMmclsClassifier[] = {{"backbone.", ""}, {"head.fc.", "fc."}};

constexpr Prefix kTdPsp[] = {{"pspmodule.stages.#.1.", "classifier.stages.#.0."},
                             {"pspmodule.stages.#.2.", "classifier.stages.#.1."},
                             {"pspmodule.bottleneck.#.", "classifier.bottleneck.#."},
                             {"head.", "classifier.classifier."},
                             {"dsn.0.", "aux_classifier.0."},
                             {"dsn.1.", "aux_classifier.1."},
                             {"dsn.3.", "aux_classifier.4."}};

constexpr Prefix kJfHead[] = {{"aspp.aspp1.atrous_conv.", "classifier.aspp.convs.0.0."},
                              {"aspp.aspp1.bn.", "classifier.aspp.convs.0.1."},
                              {"aspp.aspp2.atrous_conv.", "classifier.aspp.convs.1.0."},
                              {"aspp.aspp2.bn.", "classifier.aspp.convs.1.1."},
                              {"aspp.aspp3.atrous_conv.", "classifier.aspp.convs.2.0."},
                              {"aspp.aspp3.bn.", "classifier.aspp.convs.2.1."},
                              {"aspp.aspp4.atrous_conv.", "classifier.aspp.convs.3.0."},
                              {"aspp.aspp4.bn.", "classifier.aspp.convs.3.1."},
                              {"aspp.global_avg_pool.#.", "classifier.aspp.convs.4.#."},
                              {"aspp.conv1.", "classifier.aspp.project.0."},
                              {"aspp.bn1.", "classifier.aspp.project.1."},
                              {"decoder.conv1.", "classifier.project.0."},
                              {"decoder.bn1.", "classifier.project.1."}};

constexpr Prefix kJfDecoder[] = {{"decoder.last_conv.#.", "classifier.classifier.#."}};

// Before its dropout layers were added, the decoder counted 0, 1, 3, 4, 6.
constexpr Prefix kJfOldDecoder[] = {{"decoder.last_conv.0.", "classifier.classifier.0."},
                                    {"decoder.last_conv.1.", "classifier.classifier.1."},
                                    {"decoder.last_conv.3.", "classifier.classifier.4."},
                                    {"decoder.last_conv.4.", "classifier.classifier.5."},
                                    {"decoder.last_conv.6.", "classifier.classifier.8."}};

constexpr Prefix kVfV3[] = {{"classifier.classifier.", "classifier."}};

constexpr Prefix kSplitFeatures[] = {{"backbone.low_level_features.", "backbone.features."},
                                     {"backbone.high_level_features.", "backbone.features."}};

/// A table applies if the file and the network have names that start like this.
struct Naming {
  std::string_view in_file;
  std::string_view in_network;
  std::span<const Prefix> table;
  bool absolute_scales = false;  ///< see with_absolute_scales()
};

constexpr Naming kNamings[] = {{"decode_head.psp_modules.", "classifier.stages.", kMmsegPsp},
                               {"decode_head.aspp_modules.", "classifier.0.convs.", kMmsegV3},
                               {"decode_head.aspp_modules.", "classifier.aspp.", kMmsegV3Plus},
                               {"auxiliary_head.convs.0.", "backbone.", kMmsegAux},
                               {"head.fc.", "fc.", kMmclsClassifier},
                               {"pspmodule.", "classifier.stages.", kTdPsp, true},
                               {"aspp.aspp1.", "classifier.aspp.", kJfHead},
                               {"decoder.last_conv.8.", "classifier.aspp.", kJfDecoder},
                               {"decoder.last_conv.6.", "classifier.aspp.", kJfOldDecoder},
                               {"classifier.classifier.0.convs.", "classifier.0.convs.", kVfV3},
                               {"backbone.low_level_features.", "backbone.features.", kSplitFeatures}};

/// A name that is in the file twice, because its authors registered a module under two names, is kept once.
StateDict translated(std::span<const Prefix> table, const StateDict& file, std::vector<std::string>& ignored) {
  StateDict out;
  for (const auto& [name, tensor] : file) {
    std::string to = name;
    for (const Prefix& rule : table) {
      if (const auto other = renamed(rule, name)) {
        to = *other;
        break;
      }
    }
    if (to != name && file.contains(to)) {
      ignored.push_back(name);
    } else {
      out.emplace(std::move(to), tensor);
    }
  }
  return out;
}

/// The batch norms of the CWD experiments multiply by |gamma| + 1e-5, as InPlaceABN does; others by gamma.
StateDict with_absolute_scales(const StateDict& file) {
  constexpr double kEps = 1e-5;
  StateDict out = file;
  for (auto& [name, tensor] : out) {
    constexpr std::string_view kWeight = ".weight";
    if (!name.ends_with(kWeight) || tensor.ndim() != 1) continue;
    if (!file.contains(name.substr(0, name.size() - kWeight.size()) + ".running_var")) continue;
    std::vector<double> scales = tensor.to_vector<double>();
    for (double& s : scales) s = std::abs(s) + kEps;
    tensor = Tensor::from(scales, tensor.shape()).copy_as(tensor.dtype());
  }
  return out;
}

/// Flat MobileNetV2 names. In torchvision's form "features.2.conv.3.weight" is a batch norm (one dimension).
StateDict with_nested_blocks(StateDict file) {
  const std::string prefix = any_starts_with(file, "backbone.features.") ? "backbone.features." : "features.";
  const auto probe = file.find(prefix + "2.conv.3.weight");
  if (probe == file.end() || probe->second.ndim() != 4) return file;
  static const std::map<int, const char*> kBlock{{0, "0.0"}, {1, "0.1"}, {3, "1.0"}, {4, "1.1"}, {6, "2"}, {7, "3"}};
  static const std::map<int, const char*> kFirst{{0, "0.0"}, {1, "0.1"}, {3, "1"}, {4, "2"}};
  StateDict out;
  for (auto& [name, tensor] : file) {
    const std::size_t at = name.find(".conv.");
    if (!name.starts_with(prefix) || at == std::string::npos) {
      out.emplace(name, tensor);
      continue;
    }
    const std::size_t digits = at + 6;
    const std::size_t dot = name.find('.', digits);
    const int index = parse_number<int>(std::string_view(name).substr(digits, dot - digits)).value_or(-1);
    const auto& table = name.starts_with(prefix + "1.") ? kFirst : kBlock;
    const auto found = table.find(index);
    const std::string tail = dot == std::string::npos ? "" : name.substr(dot);
    out.emplace(found == table.end() ? name : name.substr(0, digits) + found->second + tail, tensor);
  }
  return out;
}

}  // namespace

StateDict without_wrapper(StateDict file, const StateDict& own, std::string& removed) {
  removed.clear();
  for (const std::string prefix : {"module.", "model.", "net.", "backbone."}) {
    const bool all = !file.empty() &&
                     std::all_of(file.begin(), file.end(), [&](const auto& e) { return e.first.starts_with(prefix); });
    if (!all || any_starts_with(own, prefix)) continue;
    StateDict out;
    for (auto& [name, tensor] : file) out.emplace(name.substr(prefix.size()), tensor);
    file = std::move(out);
    removed += prefix;
  }
  return file;
}

std::optional<PublishedForm> published_form(const StateDict& file) {
  const auto has = [&](std::string_view part) {
    return std::any_of(file.begin(), file.end(),
                       [&](const auto& e) { return e.first.find(part) != std::string::npos; });
  };
  if (!has("backbone.low_level_features.")) return std::nullopt;
  if (has("aspp.aspp1.atrous_conv.")) return PublishedForm{"jfzhang95's", "before_expansion", "jf"};
  return PublishedForm{"VainF's", "before_expansion", ""};
}

StateDict with_our_names(StateDict file, const StateDict& own, std::vector<std::string>& ignored) {
  for (const Naming& naming : kNamings) {
    if (!any_starts_with(file, naming.in_file) || !any_starts_with(own, naming.in_network)) continue;
    if (naming.absolute_scales) file = with_absolute_scales(file);
    file = translated(naming.table, file, ignored);
  }
  file = with_nested_blocks(std::move(file));
  if (any_starts_with(own, "aux_classifier.") || !any_starts_with(own, "backbone.")) return file;
  std::erase_if(file, [&](const auto& e) {
    const bool aux = e.first.starts_with("aux_classifier.");
    if (aux) ignored.push_back(e.first);
    return aux;
  });
  return file;
}

// --- lists of names ----------------------------------------------------------------------------------------------------

WeightMap WeightMap::read(const std::filesystem::path& path) {
  return parse(read_file<WeightsError>(path), path.string());
}

WeightMap WeightMap::parse(const std::string& text, const std::string& source) {
  WeightMap map;
  map.source_ = source;
  std::istringstream in(text);
  std::string row;
  std::map<std::string, int> seen;
  for (int number = 1; std::getline(in, row); ++number) {
    row.resize(std::min(row.find('#'), row.size()));
    std::istringstream words(row);
    Line line;
    line.number = number;
    std::string rest;
    if (!(words >> line.theirs)) continue;
    const bool two = static_cast<bool>(words >> line.ours) && !(words >> rest);
    if (line.theirs.ends_with(':')) line.theirs.pop_back();
    if (!two || line.theirs.empty()) {
      fail<WeightsError>(
          "weights",
          "{}:{}: '{}', expected two names: the one in the weight file, then the network's (or - to leave it out)",
          source, number, row);
    }
    line.pattern = line.theirs.ends_with('*');
    if (line.ours != "-" && line.pattern != line.ours.ends_with('*')) {
      fail<WeightsError>("weights", "{}:{}: '{}' and '{}': a * must end both names or none", source, number,
                         line.theirs, line.ours);
    }
    if (const auto [at, fresh] = seen.emplace(line.theirs, number); !fresh) {
      fail<WeightsError>("weights", "{}:{}: '{}' is already in line {}", source, number, line.theirs, at->second);
    }
    if (line.pattern) {
      line.theirs.pop_back();
      if (line.ours != "-") line.ours.pop_back();
    }
    map.lines_.push_back(std::move(line));
  }
  if (map.lines_.empty()) fail<WeightsError>("weights", "{}: no pair of names in it", source);
  return map;
}

const WeightMap::Line* WeightMap::find(const std::string& name, const std::string& wrapper) const {
  const Line* best = nullptr;
  std::size_t best_length = 0;
  for (const Line& line : lines_) {
    std::string_view theirs = line.theirs;
    if (!wrapper.empty() && theirs.starts_with(wrapper)) theirs.remove_prefix(wrapper.size());
    if (!line.pattern && name == theirs) return &line;
    if (!line.pattern || !name.starts_with(theirs)) continue;
    if (best == nullptr || theirs.size() > best_length) {
      best = &line;
      best_length = theirs.size();
    }
  }
  return best;
}

StateDict WeightMap::rename(const StateDict& file, const std::string& wrapper, std::vector<Use>& uses) const {
  StateDict out;
  std::set<int> used;
  std::map<std::string, std::string> origin;
  for (const auto& [name, tensor] : file) {
    const Line* line = find(name, wrapper);
    std::string to = name;
    if (line != nullptr) {
      used.insert(line->number);
      std::string_view theirs = line->theirs;
      if (!wrapper.empty() && theirs.starts_with(wrapper)) theirs.remove_prefix(wrapper.size());
      to = line->ours;
      if (line->pattern && to != "-") to += name.substr(theirs.size());
      uses.push_back({line->number, line->theirs + (line->pattern ? "*" : ""), name, to});
      if (to == "-") continue;
    }
    if (const auto [at, fresh] = origin.emplace(to, name); !fresh) {
      fail<WeightsError>("weights", "{}: '{}' and '{}' would both become '{}'", source_, at->second, name, to);
    }
    out.emplace(std::move(to), tensor);
  }
  for (const Line& line : lines_) {
    if (!used.contains(line.number))
      uses.push_back({line.number, line.theirs + (line.pattern ? "*" : ""), "", line.ours});
  }
  return out;
}

}  // namespace limbeck::models
