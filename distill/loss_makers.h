// What this is: the makers behind the table in loss.cpp that live in files of their own.
// What it is not: for users; they call make_loss() (distill/loss.h).
#pragma once

#include <memory>

#include "core/config.h"
#include "distill/loss.h"

namespace limbeck::distill {

/// For losses with layers of their own: both taps must tell their channels; ConfigError naming them otherwise.
/// Shapes:   none
void require_channels(const char* loss, const LossContext& context);  // loss.cpp

[[nodiscard]] std::shared_ptr<Loss> make_attention_kd(const Config& term);         // loss_attention.cpp
[[nodiscard]] std::shared_ptr<Loss> make_psd_kd(const Config& term);               // loss_attention.cpp
[[nodiscard]] std::shared_ptr<Loss> make_csd_kd(const Config& term);               // loss_similarity.cpp
[[nodiscard]] std::shared_ptr<Loss> make_pairwise_kd(const Config& term);          // loss_similarity.cpp
[[nodiscard]] std::shared_ptr<Loss> make_batch_similarity_kd(const Config& term);  // loss_similarity.cpp
[[nodiscard]] std::shared_ptr<Loss> make_inter_channel_kd(const Config& term);     // loss_similarity.cpp
[[nodiscard]] std::shared_ptr<Loss> make_icsd(const Config& term);                 // loss_similarity.cpp
[[nodiscard]] std::shared_ptr<Loss> make_local_kd(const Config& term);             // loss_similarity.cpp
[[nodiscard]] std::shared_ptr<Loss> make_ifvd(const Config& term);                 // loss_ifvd.cpp
[[nodiscard]] std::shared_ptr<Loss> make_ofd_kd(const Config& term);               // loss_ofd.cpp
[[nodiscard]] std::shared_ptr<Loss> make_fitnet(const Config& term);               // loss_features.cpp
[[nodiscard]] std::shared_ptr<Loss> make_channel_transform(const Config& term);    // loss_features.cpp
[[nodiscard]] std::shared_ptr<Loss> make_mgd(const Config& term);                  // loss_features.cpp
[[nodiscard]] std::shared_ptr<Loss> make_ka_adapt(const Config& term);             // loss_ka.cpp
[[nodiscard]] std::shared_ptr<Loss> make_ka_affinity(const Config& term);          // loss_ka.cpp
[[nodiscard]] std::shared_ptr<Loss> make_holistic(const Config& term);             // loss_holistic.cpp

}  // namespace limbeck::distill
