// What this is: how the texts and defaults of a ModelSpec become options; shared by the networks of this folder.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "models/model.h"

namespace limbeck::models {

/// What happens behind a removed stride. kTv: the first block of a stage still samples at the old rate, as in the strided
/// network; kJf: the pattern of the AICSD code base. See the notes in models/mobilenet_v2.h and models/resnet.h.
enum class Dilation : std::uint8_t { kTv, kJf };

/// "tv" or "jf"; empty gives `fallback`.
/// Shapes: none
/// Throws: ConfigError for another word.
[[nodiscard]] inline Dilation parse_dilation(const std::string& text, Dilation fallback) {
  if (text.empty()) return fallback;
  if (text == "tv") return Dilation::kTv;
  if (text == "jf") return Dilation::kJf;
  fail<ConfigError>("model", "unknown dilation pattern '{}'; choose tv or jf", text);
}

/// Shapes: none
[[nodiscard]] inline std::vector<std::string> names_of(const std::vector<TapInfo>& infos) {
  std::vector<std::string> out;
  out.reserve(infos.size());
  for (const TapInfo& info : infos) out.push_back(info.name);
  return out;
}

/// Shapes: none
[[nodiscard]] inline nn::BatchNormArgs bn_args(const ModelSpec& spec) {
  return {.eps = spec.bn_eps, .momentum = spec.bn_momentum};
}

/// The spec's dropout, or `own` where the spec leaves it to the network.
/// Shapes: none
[[nodiscard]] inline double dropout_of(const ModelSpec& spec, double own) {
  return spec.head_dropout < 0 ? own : spec.head_dropout;
}

}  // namespace limbeck::models
