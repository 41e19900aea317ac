// The partial distance of overhaul distillation on the GPU.
#include "distill/distance.cuh"
#include "distill/ofd_kd_kernels.h"

namespace limbeck::distill {
namespace {

/// s - u where the element counts, else 0; u is the teacher's value, not below the margin of its channel.
struct Partial {
  const double* margin;
  __device__ float operator()(float s, float t, unsigned c) const {
    const auto m = static_cast<float>(margin[c]);
    const float u = t < m ? m : t;  // a NaN stays
    return u <= 0 && s <= u ? 0.0F : s - u;
  }
};

}  // namespace

void ofd_kd_cuda(const TensorView& student, const TensorView& teacher, const TensorView& margin, const TensorView& loss,
                 const TensorView& gstudent) {
  distance_loss("ofd_kd", Partial{margin.ptr<const double>()}, student, teacher, loss, gstudent,
                1 / static_cast<double>(student.n()), student.c());
}

}  // namespace limbeck::distill
