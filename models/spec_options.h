// What this is: how the texts and defaults of a ModelSpec become options; shared by the networks of this folder.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <string>
#include <vector>

#include "models/model.h"

namespace limbeck::models {

/// What happens behind a removed stride. kTv, kMmseg: the first block of a stage still samples at the old rate, as in the
/// strided network; kTd, kJf: it does not. See the notes in models/resnet.h and models/mobilenet_v2.h.
enum class Dilation : std::uint8_t { kTv, kMmseg, kTd, kJf };

/// "tv" or "jf", for MobileNets and Xception; empty gives `fallback`.
/// Shapes: none
/// Throws: ConfigError for another word.
[[nodiscard]] inline Dilation parse_dilation(const std::string& text, Dilation fallback) {
  if (text.empty()) return fallback;
  if (text == "tv") return Dilation::kTv;
  if (text == "jf") return Dilation::kJf;
  fail<ConfigError>("model", "unknown dilation pattern '{}'; choose tv or jf", text);
}

/// "tv" (also called "v1b"), "mmseg", "td" or "jf", for ResNet; empty gives `fallback`.
/// Shapes: none
/// Throws: ConfigError for another word.
[[nodiscard]] inline Dilation parse_resnet_dilation(const std::string& text, Dilation fallback) {
  if (text == "v1b") return Dilation::kTv;
  if (text == "mmseg") return Dilation::kMmseg;
  if (text == "td") return Dilation::kTd;
  if (text.empty() || text == "tv" || text == "jf") return parse_dilation(text, fallback);
  fail<ConfigError>("model", "unknown dilation pattern '{}'; choose tv, v1b, mmseg, td or jf", text);
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

/// Of everything behind the backbone.
/// Shapes: none
[[nodiscard]] inline nn::BatchNormArgs head_bn_args(const ModelSpec& spec) {
  return {.eps = spec.head_bn_eps > 0 ? spec.head_bn_eps : spec.bn_eps, .momentum = spec.bn_momentum};
}

/// The spec's dropout, or `own` where the spec leaves it to the network.
/// Shapes: none
[[nodiscard]] inline double dropout_of(const ModelSpec& spec, double own) {
  return spec.head_dropout < 0 ? own : spec.head_dropout;
}

/// Behind the ASPP of a DeepLab head.
/// Shapes: none
[[nodiscard]] inline double aspp_dropout_of(const ModelSpec& spec, double own) {
  return spec.aspp_dropout < 0 ? dropout_of(spec, own) : spec.aspp_dropout;
}

/// The other dropouts of a head (decoder, auxiliary head) are fixed, unless a head dropout of 0 switches all of them off.
/// Shapes: none
[[nodiscard]] inline double fixed_dropout(const ModelSpec& spec, double own) {
  return spec.head_dropout == 0 ? 0.0 : own;
}

/// Position of `text` among `words`, the forms a head knows; empty is the first one.
/// Shapes: none
/// Throws: ConfigError for another word.
[[nodiscard]] inline std::size_t parse_variant(const char* network, const std::string& text,
                                               std::initializer_list<const char*> words) {
  if (text.empty()) return 0;
  std::string list;
  std::size_t i = 0;
  for (const char* word : words) {
    if (text == word) return i;
    list += (i == 0 ? "" : i + 1 == words.size() ? " or " : ", ") + std::string(word);
    ++i;
  }
  fail<ConfigError>(network, "unknown variant '{}'; choose {}", text, list);
}

}  // namespace limbeck::models
