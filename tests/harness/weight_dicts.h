// What this is: what the tests of weight files share: two small networks, dictionaries under other names, comparisons.
#pragma once

#include <algorithm>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "core/rng.h"
#include "models/zoo.h"

namespace limbeck::test {

inline const models::ModelSpec kSmall{.name = "ka_student_mobilenet_v2", .classes = 5, .width = 0.35};
inline const models::ModelSpec kImageNet{.name = "mobilenet_v2", .classes = 9, .width = 0.35};

[[nodiscard]] inline std::shared_ptr<models::Model> make(const models::ModelSpec& spec, std::uint64_t seed = 1) {
  Generator g(seed);
  return models::make_model(spec, g);
}

/// Batch norms with statistics unlike the initial ones, so that a forgotten tensor shows.
inline void shake(models::Model& model, std::uint64_t seed) {
  Generator g(seed);
  for (const auto& b : model.named_buffers()) {
    if (b.name.ends_with("running_var")) fill_uniform_(b.tensor, g, 0.5, 2.0);
    if (b.name.ends_with("running_mean")) fill_normal_(b.tensor, g, 0.0, 0.5);
  }
  for (const auto& p : model.named_parameters()) {
    if (p.tensor.ndim() == 1) fill_uniform_(p.tensor.detach(), g, 0.5, 1.5);
  }
}

/// Copies under the names that `rename` gives; an empty one leaves the tensor out.
[[nodiscard]] inline nn::StateDict renamed(const nn::StateDict& state,
                                           const std::function<std::string(const std::string&)>& rename) {
  nn::StateDict out;
  for (const auto& [name, tensor] : state) {
    const std::string to = rename(name);
    if (!to.empty()) out.emplace(to, tensor.copy());
  }
  return out;
}

[[nodiscard]] inline bool same(const Tensor& a, const Tensor& b) {
  return a.to_vector<double>() == b.to_vector<double>();
}

[[nodiscard]] inline bool contains(const std::vector<std::string>& list, const std::string& name) {
  return std::find(list.begin(), list.end(), name) != list.end();
}

}  // namespace limbeck::test
