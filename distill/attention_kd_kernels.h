// What this is: kernels of the losses over attention maps. Two steps touch the maps: the energy of every position, and the
//   gradient. What lies between works on N*M numbers in double and exists once for the CPU.
#pragma once

#include <cstdint>
#include <vector>

#include "core/dispatch.h"
#include "core/tensor.h"
#include "distill/attention_kd.h"

namespace limbeck::distill {

/// q = mean over the channels of x^2.
/// Shapes:   x [N,C,H,W]; q [N,H,W] f64 row-major
using EnergyFn = void(const TensorView& x, const TensorView& q);
/// gx = 2 x gq / C.
/// Shapes:   x, gx [N,C,H,W]; gq [N,H,W] f64 row-major
using EnergyBackwardFn = void(const TensorView& x, const TensorView& gq, const TensorView& gx);

/// loss = the value of attention_kd from the energies; gq = its gradient with respect to q_s, or undefined.
/// Shapes:   map [N,C,H,W] (a shape); q_s, q_t, gq [N,H,W] f64 row-major; loss 0-d
using AttentionLossFn = void(const Shape& map, AttentionForm form, const TensorView& q_s, const TensorView& q_t,
                             const TensorView& loss, const TensorView& gq);
/// The same for psd_kd and the energies of all layers; gq is empty if no gradient is wanted.
/// Shapes:   as above, each of the lists as long as there are layers
using PsdLossFn = void(const Shape& map, const std::vector<TensorView>& q_s, const std::vector<TensorView>& q_t,
                       const TensorView& loss, const std::vector<TensorView>& gq);

void energy_ref(const TensorView& x, const TensorView& q);
void energy_cpu(const TensorView& x, const TensorView& q);
void energy_cuda(const TensorView& x, const TensorView& q);
void energy_backward_ref(const TensorView& x, const TensorView& gq, const TensorView& gx);
void energy_backward_cpu(const TensorView& x, const TensorView& gq, const TensorView& gx);
void energy_backward_cuda(const TensorView& x, const TensorView& gq, const TensorView& gx);
void attention_loss_ref(const Shape& map, AttentionForm form, const TensorView& q_s, const TensorView& q_t,
                        const TensorView& loss, const TensorView& gq);
void attention_loss_cuda(const Shape& map, AttentionForm form, const TensorView& q_s, const TensorView& q_t,
                         const TensorView& loss, const TensorView& gq);
void psd_loss_ref(const Shape& map, const std::vector<TensorView>& q_s, const std::vector<TensorView>& q_t,
                  const TensorView& loss, const std::vector<TensorView>& gq);
void psd_loss_cuda(const Shape& map, const std::vector<TensorView>& q_s, const std::vector<TensorView>& q_t,
                   const TensorView& loss, const std::vector<TensorView>& gq);

inline constexpr KernelTable<EnergyFn> kEnergy{"attention_kd", energy_ref, energy_cpu, energy_cuda};
inline constexpr KernelTable<EnergyBackwardFn> kEnergyBackward{"attention_kd", energy_backward_ref, energy_backward_cpu,
                                                               energy_backward_cuda};
inline constexpr KernelTable<AttentionLossFn> kAttentionLoss{"attention_kd", attention_loss_ref, nullptr,
                                                             attention_loss_cuda};
inline constexpr KernelTable<PsdLossFn> kPsdLoss{"psd_kd", psd_loss_ref, nullptr, psd_loss_cuda};

/// Norms below this are raised to it.
inline constexpr double kAttentionLeastNorm = 1e-12;

/// Groups of positions that are normalised together: `count` groups of `length`, element j of group g at start(g) + j step.
struct PositionGroups {
  std::int64_t count = 0, length = 0, step = 1;
  std::int64_t images = 0, width = 0;
  bool columns = false;
  PositionGroups(const Shape& map, bool by_columns);  ///< map [N,C,H,W]
  [[nodiscard]] std::int64_t start(std::int64_t g) const noexcept {
    return columns ? g / width * (length * width) + g % width : g * length;
  }
};

}  // namespace limbeck::distill
