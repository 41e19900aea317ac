// Channel-wise distillation on the GPU: a reduction over positions carries both softmaxes and the divergence together, so
// the loss reads each map once; a second pass writes the gradient.
//
// Note [pixels side by side]
//   Classes are rarely a multiple of the elements in 16 bytes. A few pixels together are: 4 pixels of 19 classes are 19 vectors of 4.
//   The reduction then takes them as one row with 4 * 19 columns, and what belongs to one class is joined behind it.
#include <numeric>

#include "core/cuda/columns.cuh"
#include "distill/channel_kd_kernels.h"

namespace limbeck::distill {
namespace {

using namespace cuda;

/// What the second pass needs of the softmaxes of one channel of one image.
struct ChannelSums {
  float largest_s, inverse_s, largest_t, inverse_t;  // inverse: 1 / sum of exp(x - largest)
};

/// Both softmaxes over some of the positions of a channel. Sums are relative to the largest number.
struct Softmaxes {
  float largest_s, sum_s, largest_t, sum_t;
  // In double: it nearly cancels against the logarithms in the end where student and teacher agree.
  double dot;  // sum of exp(t - largest_t) times (t - s), or times -s in the cross-entropy form
};

/// One more number of a softmax: one exponential, `factor`. True if it became the largest: then `factor` belongs to the sum so far,
/// otherwise to the number.
__device__ inline bool take(float x, float& largest, float& sum, float& factor) {
  const bool larger = x > largest;
  factor = x == -INFINITY ? 0.0F : expf(larger ? largest - x : x - largest);
  sum = larger ? sum * factor + 1 : sum + factor;
  if (larger) largest = x;
  return larger;
}

/// Joins the sums of two sets of positions; `dot` is relative to the same as `sum`.
__device__ inline void join(float& largest, float& sum, double& dot, float other, float other_sum, double other_dot) {
  if (other_sum == 0 || other == -INFINITY) return;
  const float top = Max{}(largest, other);
  const float here = sum == 0 ? 0.0F : expf(largest - top);
  const float there = expf(other - top);
  sum = sum * here + other_sum * there;
  dot = dot * static_cast<double>(here) + other_dot * static_cast<double>(there);
  largest = top;
}
__device__ inline void join(Softmaxes& a, const Softmaxes& b) {
  double nothing = 0;
  join(a.largest_s, a.sum_s, nothing, b.largest_s, b.sum_s, 0.0);
  join(a.largest_t, a.sum_t, a.dot, b.largest_t, b.sum_t, b.dot);
}

template <int V, class S, class U>
struct Divergence {
  struct Acc {
    Softmaxes of[V];
  };
  const S* student;
  const U* teacher;
  Softmaxes* out;  // [N][columns]
  float inverse_tau;
  bool cross_entropy;
  unsigned rows, columns;

  __device__ void start(Acc& a) const {
    for (int j = 0; j < V; ++j) a.of[j] = {-INFINITY, 0, -INFINITY, 0, 0};
  }
  __device__ void add(Acc& a, unsigned image, unsigned row, unsigned v) const {
    const std::size_t at = (static_cast<std::size_t>(image) * rows + row) * columns + v * V;
    float s[V];
    float t[V];
    load<V>(student + at, s);
    load<V>(teacher + at, t);
    for (int j = 0; j < V; ++j) {
      Softmaxes& q = a.of[j];
      s[j] *= inverse_tau;
      t[j] *= inverse_tau;
      float factor;
      take(s[j], q.largest_s, q.sum_s, factor);
      const bool larger = take(t[j], q.largest_t, q.sum_t, factor);
      if (factor == 0 && !larger) continue;  // a difference of infinity counts as nothing
      const auto wide = static_cast<double>(s[j]);
      const double ratio = cross_entropy ? -wide : static_cast<double>(t[j]) - wide;
      q.dot = larger ? q.dot * static_cast<double>(factor) + ratio : q.dot + ratio * static_cast<double>(factor);
    }
  }
  __device__ void merge(Acc& a, const Acc& b) const {
    for (int j = 0; j < V; ++j) join(a.of[j], b.of[j]);
  }
  __device__ void finish(const Acc& a, unsigned image, unsigned v) const {
    for (int j = 0; j < V; ++j) out[image * columns + v * V + static_cast<unsigned>(j)] = a.of[j];
  }
};

/// Joins the columns of each channel. loss = sum p_t (ln p_t - ln p_s) = sum p_t (t - s) - ln Z_t + ln Z_s
__global__ void channel_kernel(const Softmaxes* columns, unsigned count, unsigned channels, unsigned maps,
                               bool cross_entropy, ChannelSums* sums, double* loss) {
  for (unsigned i = first(); i < maps; i += step()) {
    const unsigned image = i / channels;
    Softmaxes q = columns[image * count + i % channels];
    for (unsigned c = i % channels + channels; c < count; c += channels) join(q, columns[image * count + c]);
    sums[i] = {q.largest_s, 1 / q.sum_s, q.largest_t, 1 / q.sum_t};
    const double ln_s = static_cast<double>(q.largest_s) + ::log(static_cast<double>(q.sum_s));
    const double ln_t = static_cast<double>(q.largest_t) + ::log(static_cast<double>(q.sum_t));
    loss[i] = q.dot / static_cast<double>(q.sum_t) + ln_s - (cross_entropy ? 0.0 : ln_t);
  }
}

/// `per_image`: vectors of an image. A vector may hold the last channels of one pixel and the first of the next.
template <int V, class S, class U>
__global__ void gradient_kernel(const S* student, const U* teacher, const ChannelSums* sums, float inverse_tau,
                                float scale, S* g, unsigned per_image, unsigned channels, unsigned vectors) {
  for (unsigned i = first(); i < vectors; i += step()) {
    const ChannelSums* of_image = sums + i / per_image * channels;
    unsigned c = i % per_image * V % channels;
    float s[V];
    float t[V];
    load<V>(student + static_cast<std::size_t>(i) * V, s);
    load<V>(teacher + static_cast<std::size_t>(i) * V, t);
    for (int j = 0; j < V; ++j) {
      const ChannelSums q = of_image[c];
      const float p_s = expf(s[j] * inverse_tau - q.largest_s) * q.inverse_s;
      const float p_t = expf(t[j] * inverse_tau - q.largest_t) * q.inverse_t;
      s[j] = scale * (p_s - p_t);
      c = c + 1 == channels ? 0 : c + 1;
    }
    store<V>(g + static_cast<std::size_t>(i) * V, s);
  }
}

/// How many pixels are taken as one row; see Note [pixels side by side].
std::int64_t pixels_of_row(std::int64_t pixels, std::int64_t channels, std::int64_t lanes) {
  const std::int64_t wanted = lanes / std::gcd(channels, lanes);
  return pixels % wanted == 0 ? wanted : 1;
}

}  // namespace

void channel_kd_cuda(const TensorView& student, const TensorView& teacher, const TensorView& loss,
                     const TensorView& gstudent, const ChannelKdOptions& options) {
  const auto channels = static_cast<unsigned>(student.c());
  const std::int64_t pixels = student.h() * student.w();
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
      const std::int64_t together = pixels_of_row(pixels, student.c(), kLanes<Wide>);
      visit_lanes<Wide>(
          student.c() * together,
          [&](auto lanes) {
            constexpr int V = decltype(lanes)::value;
            const std::int64_t side_by_side = V == 1 ? 1 : together;
            const std::int64_t rows = pixels / side_by_side;
            const std::int64_t columns = student.c() * side_by_side;
            const Scratch softmaxes(static_cast<std::size_t>(student.n() * columns) * sizeof(Softmaxes));
            reduce_columns(Divergence<V, S, U>{student.ptr<const S>(), teacher.ptr<const U>(),
                                               softmaxes.as<Softmaxes>(), inverse_tau, options.cross_entropy_form,
                                               static_cast<unsigned>(rows), static_cast<unsigned>(columns)},
                           student.n(), rows, columns / V);
            launch(channel_kernel, grid_for(maps), kBlock, softmaxes.as<const Softmaxes>(), columns, channels, maps,
                   options.cross_entropy_form, sums.as<ChannelSums>(), parts.as<double>());
            if (!gstudent.defined()) return;
            const auto vectors = static_cast<unsigned>(student.numel() / V);
            launch(gradient_kernel<V, S, U>, grid_for(vectors), kBlock, student.ptr<const S>(), teacher.ptr<const U>(),
                   sums.as<const ChannelSums>(), inverse_tau, static_cast<float>(options.tau / divisor),
                   gstudent.ptr<S>(), pixels * student.c() / V, channels, vectors);
          },
          student.ptr<const S>(), teacher.ptr<const U>(), gstudent.ptr<const S>());
    });
  });
  launch(finish_sum_kernel<float>, 1, kBlock, parts.as<double>(), maps, options.tau * options.tau / divisor,
         loss.ptr<float>());
}

}  // namespace limbeck::distill
