// Channel-wise distillation on the GPU: a reduction over positions carries both softmaxes and the divergence together, so
// the loss reads each map once; a second pass writes the gradient.
#include "core/cuda/columns.cuh"
#include "distill/channel_kd_kernels.h"

namespace limbeck::distill {
namespace {

using namespace cuda;

/// What the second pass needs of the softmaxes of one channel of one image.
struct ChannelSums {
  float largest_s, sum_s, largest_t, sum_t;
};

template <int V, class S, class U>
struct Divergence {
  struct Acc {
    float largest_s[V], sum_s[V], largest_t[V], sum_t[V];
    // In double: it nearly cancels against the logarithms in finish() where student and teacher agree.
    double dot[V];  // sum of exp(t - largest_t) times (t - s), or times -s in the cross-entropy form
  };
  const S* student;
  const U* teacher;
  ChannelSums* sums;  // [N][C]
  double* loss;       // [N][C]
  float inverse_tau;
  bool cross_entropy;
  unsigned rows, channels;

  __device__ void start(Acc& a) const {
    for (int j = 0; j < V; ++j) {
      a.largest_s[j] = a.largest_t[j] = -INFINITY;
      a.sum_s[j] = a.sum_t[j] = 0;
      a.dot[j] = 0;
    }
  }
  /// Joins sums of exponentials that are relative to their own maxima; `dot` is relative to the same as `sum`.
  __device__ static void join(float& largest, float& sum, double& dot, float other, float other_sum, double other_dot) {
    if (other_sum == 0 || other == -INFINITY) return;
    const float top = Max{}(largest, other);
    const float here = sum == 0 ? 0.0F : expf(largest - top);
    const float there = expf(other - top);
    sum = sum * here + other_sum * there;
    dot = dot * static_cast<double>(here) + other_dot * static_cast<double>(there);
    largest = top;
  }
  __device__ void add(Acc& a, unsigned image, unsigned row, unsigned v) const {
    const std::size_t at = (static_cast<std::size_t>(image) * rows + row) * channels + v * V;
    float s[V];
    float t[V];
    load<V>(student + at, s);
    load<V>(teacher + at, t);
    for (int j = 0; j < V; ++j) {
      s[j] *= inverse_tau;
      t[j] *= inverse_tau;
      double nothing = 0;
      join(a.largest_s[j], a.sum_s[j], nothing, s[j], 1.0F, 0.0);
      const auto wide = static_cast<double>(s[j]);
      join(a.largest_t[j], a.sum_t[j], a.dot[j], t[j], 1.0F, cross_entropy ? -wide : static_cast<double>(t[j]) - wide);
    }
  }
  __device__ void merge(Acc& a, const Acc& b) const {
    for (int j = 0; j < V; ++j) {
      double nothing = 0;
      join(a.largest_s[j], a.sum_s[j], nothing, b.largest_s[j], b.sum_s[j], 0.0);
      join(a.largest_t[j], a.sum_t[j], a.dot[j], b.largest_t[j], b.sum_t[j], b.dot[j]);
    }
  }
  /// sum p_t (ln p_t - ln p_s) = sum p_t (t - s) - ln Z_t + ln Z_s
  __device__ void finish(const Acc& a, unsigned image, unsigned v) const {
    for (int j = 0; j < V; ++j) {
      const unsigned at = image * channels + v * V + static_cast<unsigned>(j);
      sums[at] = {a.largest_s[j], a.sum_s[j], a.largest_t[j], a.sum_t[j]};
      const double ln_s = static_cast<double>(a.largest_s[j]) + ::log(static_cast<double>(a.sum_s[j]));
      const double ln_t = static_cast<double>(a.largest_t[j]) + ::log(static_cast<double>(a.sum_t[j]));
      loss[at] = a.dot[j] / static_cast<double>(a.sum_t[j]) + ln_s - (cross_entropy ? 0.0 : ln_t);
    }
  }
};

template <int V, class S, class U>
__global__ void gradient_kernel(const S* student, const U* teacher, const ChannelSums* sums, float inverse_tau,
                                float scale, S* g, unsigned rows, unsigned channels, unsigned vectors) {
  for (unsigned i = first(); i < vectors; i += step()) {
    const unsigned per_row = channels / V;
    const unsigned k = i / per_row / rows * channels + i % per_row * V;
    float s[V];
    float t[V];
    load<V>(student + static_cast<std::size_t>(i) * V, s);
    load<V>(teacher + static_cast<std::size_t>(i) * V, t);
    for (int j = 0; j < V; ++j) {
      const ChannelSums q = sums[k + static_cast<unsigned>(j)];
      const float p_s = expf(s[j] * inverse_tau - q.largest_s) / q.sum_s;
      const float p_t = expf(t[j] * inverse_tau - q.largest_t) / q.sum_t;
      s[j] = scale * (p_s - p_t);
    }
    store<V>(g + static_cast<std::size_t>(i) * V, s);
  }
}

}  // namespace

void channel_kd_cuda(const TensorView& student, const TensorView& teacher, const TensorView& loss,
                     const TensorView& gstudent, const ChannelKdOptions& options) {
  const auto channels = static_cast<unsigned>(student.c());
  const auto rows = static_cast<unsigned>(student.h() * student.w());
  const auto maps = static_cast<unsigned>(student.n()) * channels;
  const auto inverse_tau = static_cast<float>(1 / options.tau);
  const double divisor = channel_kd_divisor(student, options);
  const Scratch sums(maps * sizeof(ChannelSums));
  const Scratch parts(maps * sizeof(double));
  visit_fast_dtype("channel_kd", student.dtype, [&](auto s_tag) {
    visit_fast_dtype("channel_kd", teacher.dtype, [&](auto t_tag) {
      using S = decltype(s_tag);
      using U = decltype(t_tag);
      using Wide = std::conditional_t<(sizeof(S) < sizeof(U)), S, U>;  // the type with more elements in 16 bytes
      visit_lanes<Wide>(
          student.c(),
          [&](auto lanes) {
            constexpr int V = decltype(lanes)::value;
            reduce_columns(
                Divergence<V, S, U>{student.ptr<const S>(), teacher.ptr<const U>(), sums.as<ChannelSums>(),
                                    parts.as<double>(), inverse_tau, options.cross_entropy_form, rows, channels},
                student.n(), rows, student.c() / V);
            if (!gstudent.defined()) return;
            const auto vectors = static_cast<unsigned>(student.numel() / V);
            launch(gradient_kernel<V, S, U>, grid_for(vectors), kBlock, student.ptr<const S>(), teacher.ptr<const U>(),
                   sums.as<const ChannelSums>(), inverse_tau, static_cast<float>(options.tau / divisor),
                   gstudent.ptr<S>(), rows, channels, vectors);
          },
          student.ptr<const S>(), teacher.ptr<const U>(), gstudent.ptr<const S>());
    });
  });
  launch(finish_sum_kernel<float>, 1, kBlock, parts.as<double>(), maps, options.tau * options.tau / divisor,
         loss.ptr<float>());
}

}  // namespace limbeck::distill
