// What this is: a loss that is a sum of squares of one number per element, with its gradient, in one pass over both maps:
//   the common kernel of feature_mse, ofd_kd and ka_autoencoder_loss on the GPU.
#pragma once

#include <algorithm>

#include "core/cuda/columns.cuh"

namespace limbeck::distill {

/// loss += d^2, g = 2 factor d, with d = difference(student, teacher, channel) element by element.
template <int V, class S, class U, class Difference>
__global__ void distance_kernel(Difference difference, const S* student, const U* teacher, S* gstudent, float factor,
                                unsigned channels, unsigned vectors, double* partial) {
  __shared__ double scratch[32];
  double total = 0;
  for (unsigned i = cuda::first(); i < vectors; i += cuda::step()) {
    const std::size_t at = static_cast<std::size_t>(i) * V;
    float s[V];
    float t[V];
    cuda::load<V>(student + at, s);
    cuda::load<V>(teacher + at, t);
    float sum = 0;
    for (int j = 0; j < V; ++j) {
      const float d = difference(s[j], t[j], (i % (channels / V)) * V + static_cast<unsigned>(j));
      sum += d * d;
      s[j] = 2 * factor * d;
    }
    total += static_cast<double>(sum);
    if (gstudent != nullptr) cuda::store<V>(gstudent + at, s);
  }
  total = cuda::block_all(total, cuda::Add{}, 0.0, scratch);
  if (threadIdx.x == 0) partial[blockIdx.x] = total;
}

/// Blocks that distance_partials() leaves a sum of.
[[nodiscard]] inline unsigned distance_blocks(const TensorView& student) {
  return std::clamp(cuda::ceil_div(student.numel(), 8 * cuda::kBlock), 1U, 1056U);
}

/// partial [distance_blocks()] = sums of d^2. Dense maps of equal shape; `channels` is the length of their innermost dimension.
template <class Difference>
void distance_partials(const char* name, const Difference& difference, const TensorView& student,
                       const TensorView& teacher, const TensorView& gstudent, double factor, std::int64_t channels,
                       double* partial) {
  visit_fast_dtype(name, student.dtype, [&](auto s_tag) {
    visit_fast_dtype(name, teacher.dtype, [&](auto t_tag) {
      using S = decltype(s_tag);
      using U = decltype(t_tag);
      using Narrow = std::conditional_t<(sizeof(S) < sizeof(U)), S, U>;  // more elements in 16 bytes
      cuda::visit_lanes<Narrow>(
          channels,
          [&](auto lanes) {
            constexpr int V = decltype(lanes)::value;
            const std::int64_t vectors = student.numel() / V;
            LIMBECK_CHECK(vectors < (std::int64_t{1} << 32), name, "maps of shape {} have too many elements",
                          student.shape);
            cuda::launch(distance_kernel<V, S, U, Difference>, distance_blocks(student), cuda::kBlock, difference,
                         student.ptr<const S>(), teacher.ptr<const U>(), gstudent.ptr<S>(), static_cast<float>(factor),
                         static_cast<unsigned>(channels), static_cast<unsigned>(vectors), partial);
          },
          student.ptr<const S>(), teacher.ptr<const U>(), gstudent.ptr<const S>());
    });
  });
}

/// loss = factor * sum of d^2.
template <class Difference>
void distance_loss(const char* name, const Difference& difference, const TensorView& student, const TensorView& teacher,
                   const TensorView& loss, const TensorView& gstudent, double factor, std::int64_t channels) {
  const unsigned blocks = distance_blocks(student);
  const cuda::Scratch partial(blocks * sizeof(double));
  distance_partials(name, difference, student, teacher, gstudent, factor, channels, partial.as<double>());
  cuda::launch(cuda::finish_sum_kernel<float>, 1, cuda::kBlock, partial.as<double>(), blocks, factor,
               loss.ptr<float>());
}

/// s - t
struct PlainDifference {
  __device__ float operator()(float s, float t, unsigned) const { return s - t; }
};

}  // namespace limbeck::distill
