// The released code's form of the inter-class similarity loss on the GPU (Note [released code] in inter_class_kd_ref.cpp). Channels-last,
// every (column, class) of an image is a column of the matrix [h][w c], so the softmax over h is one over its rows.
#include "core/cuda/products.cuh"
#include "distill/inter_class_kd_kernels.h"
#include "distill/inter_class_kd_matrices.cuh"
#include "distill/position_softmax.cuh"

namespace limbeck::distill {
namespace {

using namespace cuda;

/// entropy[image][class] = sum over positions of p ln p.
template <class T>
struct Entropy {
  struct Acc {
    double sum;
  };
  PositionScores<T> scores;
  double* entropy;
  __device__ void start(Acc& a) const { a.sum = 0; }
  __device__ void add(Acc& a, unsigned image, unsigned row, unsigned channel) const {
    a.sum += static_cast<double>(scores.p(image, row, channel)) * static_cast<double>(scores.ln_p(image, row, channel));
  }
  __device__ void merge(Acc& a, const Acc& b) const { a.sum += b.sum; }
  __device__ void finish(const Acc& a, unsigned image, unsigned channel) const {
    entropy[image * scores.channels + channel] = a.sum;
  }
};

/// k holds sum p_i p_j and becomes sum p_j ln p_j - sum p_i p_j for i <= j, mirrored.
__global__ void code_matrix_kernel(double* k, const double* entropy, unsigned c, unsigned count) {
  for (unsigned e = first(); e < count; e += step()) {
    const unsigned j = e % c;
    const unsigned i = e / c % c;
    k[e] = entropy[e / (c * c) * c + (i > j ? i : j)] - k[e];
  }
}

/// weights_ij = D_ij + D_ji, and slope_j = D_jj + sum_{i<j} (D_ij + D_ji). One thread per (image, j).
__global__ void code_slopes_kernel(MatrixSlope d, unsigned images, double* weights, double* slope) {
  const unsigned c = d.classes;
  for (unsigned e = first(); e < images * c; e += step()) {
    const unsigned image = e / c;
    const unsigned j = e % c;
    double sum = d(image, j, j);
    for (unsigned i = 0; i < c; ++i) {
      const double both = d(image, i, j) + d(image, j, i);
      weights[(static_cast<std::size_t>(image) * c + i) * c + j] = both;
      if (i < j) sum += both;
    }
    slope[e] = sum;
  }
}

/// dp = slope (ln p + 1) - mix, with mix = weights p.
template <class S>
struct CodeSlope {
  PositionScores<S> scores;
  const double* slope;
  const float* mix;
  __device__ float operator()(unsigned image, unsigned position, unsigned channel) const {
    const std::size_t at = (static_cast<std::size_t>(image) * scores.positions + position) * scores.channels + channel;
    const auto weight = static_cast<float>(slope[image * scores.channels + channel]);
    return weight * (scores.ln_p(image, position, channel) + 1.0F) - mix[at];
  }
};

/// along[image][w c] = sum over h of p dp.
template <class S>
struct CodeAlong {
  struct Acc {
    double sum;
  };
  CodeSlope<S> slope;
  double* along;
  __device__ void start(Acc& a) const { a.sum = 0; }
  __device__ void add(Acc& a, unsigned image, unsigned row, unsigned column) const {
    const PositionScores<S>& s = slope.scores;
    const unsigned position = row * (s.columns / s.channels) + column / s.channels;
    const unsigned channel = column % s.channels;
    a.sum += static_cast<double>(s.p(image, position, channel)) * static_cast<double>(slope(image, position, channel));
  }
  __device__ void merge(Acc& a, const Acc& b) const { a.sum += b.sum; }
  __device__ void finish(const Acc& a, unsigned image, unsigned column) const {
    along[static_cast<std::size_t>(image) * slope.scores.columns + column] = a.sum;
  }
};

/// g = p (dp - along) / tau.
template <class S>
__global__ void code_gradient_kernel(CodeSlope<S> slope, const double* along, unsigned count, S* gs) {
  const PositionScores<S>& s = slope.scores;
  for (unsigned e = first(); e < count; e += step()) {
    const unsigned channel = e % s.channels;
    const unsigned position = e / s.channels % s.positions;
    const unsigned image = e / s.channels / s.positions;
    const double off =
        along[static_cast<std::size_t>(image) * s.columns + (position * s.channels + channel) % s.columns];
    gs[e] = from_float<S>(s.inverse_tau * s.p(image, position, channel) *
                          (slope(image, position, channel) - static_cast<float>(off)));
  }
}

template <class T>
PositionScores<T> scores_of(const TensorView& x, double tau, const PositionSum* sums) {
  return {x.ptr<const T>(),
          sums,
          static_cast<float>(1 / tau),
          static_cast<unsigned>(x.h() * x.w()),
          static_cast<unsigned>(x.c()),
          static_cast<unsigned>(x.w() * x.c())};
}

/// Softmax sums [N][w c] and matrices of every image.
void code_matrices(const TensorView& x, double tau, PositionSum* sums, double* k) {
  const std::int64_t c = x.c();
  const std::int64_t count = x.n() * c * c;
  const Scratch entropy(static_cast<std::size_t>(x.n() * c) * sizeof(double));
  visit_fast_dtype("icsd", x.dtype, [&](auto tag) {
    using T = decltype(tag);
    sum_exponentials(x.ptr<const T>(), tau, x.n(), x.h(), x.w() * c, sums);
    const auto scores = scores_of<T>(x, tau, sums);
    channel_products(ProbabilityElement<T>{scores}, k, x.n(), x.h() * x.w(), c);
    reduce_columns(Entropy<T>{scores, entropy.as<double>()}, x.n(), x.h() * x.w(), c);
  });
  launch(code_matrix_kernel, grid_for(count), kBlock, k, entropy.as<double>(), c, count);
}

}  // namespace

void icsd_code_cuda(const TensorView& student, const TensorView& teacher, const TensorView& loss,
                    const TensorView& gstudent, const IcsdOptions& options) {
  const std::int64_t images = student.n();
  const std::int64_t c = student.c();
  const std::int64_t matrix = images * c * c;
  LIMBECK_CHECK(student.numel() < (std::int64_t{1} << 31) && matrix < (std::int64_t{1} << 31), "icsd",
                "maps of shape {} have too many elements", student.shape);
  const Scratch sums_s(static_cast<std::size_t>(images * student.w() * c) * sizeof(PositionSum));
  const Scratch sums_t(static_cast<std::size_t>(images * teacher.w() * c) * sizeof(PositionSum));
  const Scratch doubles(static_cast<std::size_t>(5 * matrix + images * c * (1 + student.w())) * sizeof(double));
  auto* k_s = doubles.as<double>();
  double* k_t = k_s + matrix;
  double* d = k_t + matrix;
  double* spare = d + matrix;
  double* weights = spare + matrix;
  double* slope = weights + matrix;
  double* along = slope + images * c;
  code_matrices(student, options.tau, sums_s.as<PositionSum>(), k_s);
  code_matrices(teacher, options.tau, sums_t.as<PositionSum>(), k_t);
  const MatrixSlope of_matrix = compare_matrices_cuda(options, images, c, k_s, k_t, d, spare, loss.ptr<float>());
  if (!gstudent.defined()) return;
  launch(code_slopes_kernel, grid_for(images * c), kBlock, of_matrix, images, weights, slope);
  const Scratch mix(static_cast<std::size_t>(student.numel()) * sizeof(float));
  visit_fast_dtype("icsd", student.dtype, [&](auto tag) {
    using S = decltype(tag);
    const auto scores = scores_of<S>(student, options.tau, sums_s.as<PositionSum>());
    product(OverChannels<ProbabilityElement<S>>{{scores}},
            MatrixOperand<double>{weights, scores.channels, scores.channels},
            StoreMatrix<float>{mix.as<float>(), scores.positions, scores.channels}, images, scores.positions, c, c);
    const CodeSlope<S> dp{scores, slope, mix.as<float>()};
    reduce_columns(CodeAlong<S>{dp, along}, images, student.h(), scores.columns);
    launch(code_gradient_kernel<S>, grid_for(student.numel()), kBlock, dp, along, student.numel(), gstudent.ptr<S>());
  });
}

}  // namespace limbeck::distill
