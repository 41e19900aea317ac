// What this is: kernel signature and table of the autoencoder's objective.
#pragma once

#include "core/dispatch.h"
#include "core/tensor.h"
#include "distill/ka_autoencoder_loss.h"

namespace limbeck::distill {

/// loss = the value of distill/ka_autoencoder_loss.h; greconstruction, gcode = its gradients, or undefined if not wanted.
/// Shapes:   reconstruction, map, greconstruction [N,C,H,W]; code, gcode [N,D,h,w]; loss 0-d
using KaAutoencoderLossFn = void(const TensorView& reconstruction, const TensorView& code, const TensorView& map,
                                 const TensorView& loss, const TensorView& greconstruction, const TensorView& gcode,
                                 const KaAutoencoderOptions& options);

void ka_autoencoder_loss_ref(const TensorView& reconstruction, const TensorView& code, const TensorView& map,
                             const TensorView& loss, const TensorView& greconstruction, const TensorView& gcode,
                             const KaAutoencoderOptions& options);
void ka_autoencoder_loss_cpu(const TensorView& reconstruction, const TensorView& code, const TensorView& map,
                             const TensorView& loss, const TensorView& greconstruction, const TensorView& gcode,
                             const KaAutoencoderOptions& options);
void ka_autoencoder_loss_cuda(const TensorView& reconstruction, const TensorView& code, const TensorView& map,
                              const TensorView& loss, const TensorView& greconstruction, const TensorView& gcode,
                              const KaAutoencoderOptions& options);

inline constexpr KernelTable<KaAutoencoderLossFn> kKaAutoencoderLoss{"ka_autoencoder_loss", ka_autoencoder_loss_ref,
                                                                     ka_autoencoder_loss_cpu, ka_autoencoder_loss_cuda};

/// Factor in front of sum |E|.
[[nodiscard]] inline double ka_code_factor(const TensorView& code, const KaAutoencoderOptions& options) {
  return options.sum_over_batch ? options.alpha : options.alpha / static_cast<double>(code.n());
}

}  // namespace limbeck::distill
