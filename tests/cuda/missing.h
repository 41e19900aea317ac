// What this is: the ops that the GPU backend does not have yet. Tests check that this list is true in both directions.
#pragma once

#include <array>
#include <string_view>

namespace limbeck::test {

/// Ops without a CUDA kernel so far: using one there is an error that names it. An op that is not in this list must work.
inline constexpr std::array kMissingOnCuda = std::to_array<std::string_view>({
    "attention_kd", "psd_kd", "pairwise_kd", "batch_similarity_kd", "inter_channel_kd", "csd_kd", "ifvd", "local_kd",
    "ka_autoencoder_loss", "icsd", "ka_adapt", "ka_affinity",
});

[[nodiscard]] inline bool is_missing_on_cuda(std::string_view op) {
  for (const auto name : kMissingOnCuda) {
    if (name == op) return true;
  }
  return false;
}

}  // namespace limbeck::test
