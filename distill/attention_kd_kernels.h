// What this is: kernels of the losses over attention maps. Only two steps touch the maps, and only they have a fast form:
//   the energy of every position, and the gradient. What lies between works on N*M numbers in double and exists once.
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

void energy_ref(const TensorView& x, const TensorView& q);
void energy_cpu(const TensorView& x, const TensorView& q);
void energy_backward_ref(const TensorView& x, const TensorView& gq, const TensorView& gx);
void energy_backward_cpu(const TensorView& x, const TensorView& gq, const TensorView& gx);

inline constexpr KernelTable<EnergyFn> kEnergy{"attention_kd", energy_ref, energy_cpu, nullptr};
inline constexpr KernelTable<EnergyBackwardFn> kEnergyBackward{"attention_kd", energy_backward_ref, energy_backward_cpu,
                                                               nullptr};

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

/// x / max(||x||, 1e-12) in every group, and the norms.
struct Normalised {
  std::vector<double> value;
  std::vector<double> norm;
};
[[nodiscard]] Normalised normalise_groups(const PositionGroups& groups, const double* x);
/// Gradient of x given that of the normalised value: (d - a (a.d)) / norm; d / 1e-12 where the norm was raised to 1e-12.
void normalise_backward(const PositionGroups& groups, const Normalised& a, const double* d, double* gx);

/// Value of attention_kd from the energies; gq = its gradient with respect to q_s, or null.
[[nodiscard]] double attention_loss(const Shape& map, AttentionForm form, const double* q_s, const double* q_t,
                                    double* gq);
/// Value of psd_kd from the energies of all layers; gq[k] = gradient with respect to q_s[k], filled if not empty.
[[nodiscard]] double psd_loss(const Shape& map, const std::vector<std::vector<double>>& q_s,
                              const std::vector<std::vector<double>>& q_t, std::vector<std::vector<double>>* gq);

}  // namespace limbeck::distill
