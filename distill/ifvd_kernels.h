// What this is: kernel signature and table of the intra-class variation loss.
#pragma once

#include <vector>

#include "core/dispatch.h"
#include "core/tensor.h"
#include "distill/ifvd.h"
#include "ops/map_view.h"

namespace limbeck::distill {

/// loss = the value of distill/ifvd.h; gstudent = its gradient, or undefined if none is wanted.
/// Shapes:   student, gstudent [N,C,H,W]; teacher [N,D,H,W]; labels [N,H,W]; loss 0-d
using IfvdFn = void(const TensorView& student, const TensorView& teacher, const TensorView& labels,
                    const TensorView& loss, const TensorView& gstudent, const IfvdOptions& options);

void ifvd_ref(const TensorView& student, const TensorView& teacher, const TensorView& labels, const TensorView& loss,
              const TensorView& gstudent, const IfvdOptions& options);
void ifvd_cpu(const TensorView& student, const TensorView& teacher, const TensorView& labels, const TensorView& loss,
              const TensorView& gstudent, const IfvdOptions& options);
void ifvd_cuda(const TensorView& student, const TensorView& teacher, const TensorView& labels, const TensorView& loss,
               const TensorView& gstudent, const IfvdOptions& options);

inline constexpr KernelTable<IfvdFn> kIfvd{"ifvd", ifvd_ref, ifvd_cpu, ifvd_cuda};

inline constexpr double kIfvdCountEpsilon = 1e-6;
inline constexpr double kIfvdLeastNorm = 1e-8;

/// The classes of one image: per pixel (row-major) a slot, -1 where ignored, and how many pixels each slot has.
struct ClassSlots {
  std::vector<std::int32_t> slot;
  std::vector<double> count;

  ClassSlots(const TensorView& labels, std::int64_t n, std::int64_t ignore) {
    std::vector<std::int32_t> slot_of(256, -1);
    for (std::int64_t h = 0; h < labels.shape[1]; ++h) {
      for (std::int64_t w = 0; w < labels.shape[2]; ++w) {
        const std::int64_t id = ops::label_at(labels, n, h, w);
        if (id == ignore) {
          slot.push_back(-1);
          continue;
        }
        if (id < 0 || id > 255) fail("ifvd", "label {} at pixel ({}, {}) of image {}, expected 0..255", id, h, w, n);
        std::int32_t& s = slot_of[static_cast<std::size_t>(id)];
        if (s < 0) {
          s = static_cast<std::int32_t>(count.size());
          count.push_back(0);
        }
        slot.push_back(s);
        count[static_cast<std::size_t>(s)] += 1;
      }
    }
  }
};

}  // namespace limbeck::distill
