// What this is: the names of all distillation losses that are ops of their own; see ops/catalogue.h.
#pragma once

#include <array>
#include <string_view>

namespace limbeck::distill {

/// Shapes: not applicable; names as they appear in error messages and configurations.
inline constexpr std::array kCatalogue = std::to_array<std::string_view>({
    "pixel_kd",
    "channel_kd",
    "attention_kd",
    "psd_kd",
    "pairwise_kd",
    "batch_similarity_kd",
    "inter_channel_kd",
    "csd_kd",
    "ifvd",
    "ofd_kd",
    "local_kd",
    "ka_autoencoder_loss",
    "icsd",
    "feature_mse",
    "ka_adapt",
    "ka_affinity",
});

}  // namespace limbeck::distill
