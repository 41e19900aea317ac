// What this is: taps and parameter groups of models/model.h.
#include "models/model.h"

#include <algorithm>

#include "core/nearest_word.h"

namespace limbeck::models {
namespace {

[[noreturn]] void unknown_tap(std::string_view name, const std::vector<std::string>& known, const std::string& model) {
  const std::string nearest = nearest_word(name, known);
  std::string list;
  for (const std::string& k : known) list += (list.empty() ? "" : ", ") + k;
  fail<ConfigError>("tap", "{} has no tap '{}'{}; it has: {}", model, name,
                    nearest.empty() ? "" : fmt::format(" (did you mean '{}'?)", nearest), list);
}

}  // namespace

TapInfo Model::tap_info(std::string_view name) const {
  for (TapInfo& info : tap_infos()) {
    if (info.name == name) return info;
  }
  unknown_tap(name, tap_names(), type());
}

TapSet::TapSet(std::span<const std::string> requested, const Model& model) : requested_(requested) {
  if (requested.empty()) return;
  const std::vector<std::string> known = model.tap_names();
  for (const std::string& name : requested) {
    if (std::find(known.begin(), known.end(), name) == known.end()) unknown_tap(name, known, model.type());
  }
}

bool TapSet::wants(std::string_view name) const noexcept {
  return std::find(requested_.begin(), requested_.end(), name) != requested_.end();
}

void TapSet::put(std::string_view name, const Tensor& t) {
  if (wants(name)) found_.insert_or_assign(std::string(name), t);
}

std::vector<nn::ParameterGroup> parameter_groups(const nn::Module& model, const GroupOptions& o) {
  std::vector<nn::ParameterGroup> groups(4);
  const auto set_up = [&](std::size_t i, const char* name, double multiplier, double decay) {
    groups[i].name = name;
    groups[i].lr_multiplier = multiplier;
    groups[i].weight_decay = decay;
  };
  set_up(0, "backbone", 1.0, o.weight_decay);
  set_up(1, "backbone, no decay", 1.0, 0.0);
  set_up(2, "head", o.head_lr_multiplier, o.weight_decay);
  set_up(3, "head, no decay", o.head_lr_multiplier, 0.0);
  nn::assign_parameters(groups, model, [&](const nn::NamedTensor& p) {
    const int part = p.name.starts_with("backbone.") ? 0 : 2;
    return part + (nn::is_vector_parameter(p) && !o.decay_vectors ? 1 : 0);
  });
  std::erase_if(groups, [](const nn::ParameterGroup& g) { return g.params.empty(); });
  return groups;
}

}  // namespace limbeck::models
