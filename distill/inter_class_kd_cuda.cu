// The inter-class similarity loss on the GPU. With z = (x - top) / tau, e = exp(z) and Z_i = sum e_i:
//   K_ij = (P_ii - P_ij) / Z_i - ln Z_i + ln Z_j, P_ij = sum_m e_i z_j,
// so that the matrices are one product of the map with itself per image; the gradient is two products of the map with C x C
// matrices. See inter_class_kd_cpu.cpp.
#include "core/cuda/products.cuh"
#include "distill/inter_class_kd_kernels.h"
#include "distill/inter_class_kd_matrices.cuh"
#include "distill/position_softmax.cuh"

namespace limbeck::distill {
namespace {

using namespace cuda;

/// K of every image from its products and sums.
__global__ void matrix_kernel(const double* product, const PositionSum* sums, unsigned c, unsigned count, double* k) {
  for (unsigned e = first(); e < count; e += step()) {
    const unsigned j = e % c;
    const unsigned i = e / c % c;
    const unsigned image = e / (c * c);
    const double z_i = sums[image * c + i].sum;
    const double z_j = sums[image * c + j].sum;
    // Outside the diagonal, where the difference is 0 but a NaN must show.
    k[e] = i == j ? z_i - z_i : (product[e - j + i] - product[e]) / z_i + ::log(z_j) - ::log(z_i);
  }
}

/// What the gradient needs: g_k = p_k (sum_j along_kj z_j + constant_k) - sum_i across_ki p_i; stored for products: [j][k], [i][k].
struct Slopes {
  double* along;
  double* across;
  double* constant;
};

/// One thread per (image, class k).
__global__ void slopes_kernel(MatrixSlope d, const double* k, const PositionSum* sums, unsigned images,
                              float inverse_tau, Slopes out) {
  const unsigned c = d.classes;
  const auto scale = static_cast<double>(inverse_tau);
  for (unsigned e = first(); e < images * c; e += step()) {
    const unsigned image = e / c;
    const unsigned i = e % c;
    const std::size_t matrix = static_cast<std::size_t>(image) * c * c;
    double row_sum = 0;
    double constant = 0;
    for (unsigned j = 0; j < c; ++j) {
      const double slope = d(image, i, j);
      const double back = d(image, j, i);
      row_sum += slope;
      constant += slope * (::log(sums[image * c + j].sum) - k[matrix + i * c + j]) + back;
      out.along[matrix + j * c + i] = -slope * scale;
      out.across[matrix + j * c + i] = back * scale;
    }
    out.along[matrix + i * c + i] += row_sum * scale;
    out.constant[e] = (constant - row_sum * ::log(sums[e].sum)) * scale;
  }
}

/// The last product gives sum_i across_ki p_i; the first has left its result in `along`.
template <class S>
struct StoreGradient {
  PositionScores<S> scores;
  const float* along;
  const double* constant;
  S* gs;
  __device__ void operator()(unsigned image, unsigned position, unsigned k, double across) const {
    const std::size_t at = (static_cast<std::size_t>(image) * scores.positions + position) * scores.channels + k;
    const float slope = along[at] + static_cast<float>(constant[image * scores.channels + k]);
    gs[at] = from_float<S>(scores.p(image, position, k) * slope - static_cast<float>(across));
  }
};

/// Softmax sums and matrices of every image.
void matrices_of(const TensorView& x, double tau, PositionSum* sums, double* k) {
  const std::int64_t c = x.c();
  const std::int64_t positions = x.h() * x.w();
  const std::int64_t count = x.n() * c * c;
  LIMBECK_CHECK(count < (std::int64_t{1} << 31), "icsd", "{} matrices of {} x {} are too many", x.n(), c, c);
  const Scratch products(static_cast<std::size_t>(count) * sizeof(double));
  visit_fast_dtype("icsd", x.dtype, [&](auto tag) {
    using T = decltype(tag);
    sum_exponentials(x.ptr<const T>(), tau, x.n(), positions, c, sums);
    const auto channels = static_cast<unsigned>(c);
    const PositionScores<T> scores{
        x.ptr<const T>(), sums, static_cast<float>(1 / tau), static_cast<unsigned>(positions), channels, channels};
    product(OverPositions<ExponentialElement<T>>{{scores}}, OverPositions<ScoreElement<T>>{{scores}},
            StoreMatrix<double>{products.as<double>(), channels, channels}, x.n(), c, c, positions);
  });
  launch(matrix_kernel, grid_for(count), kBlock, products.as<double>(), sums, c, count, k);
}

}  // namespace

void icsd_cuda(const TensorView& student, const TensorView& teacher, const TensorView& loss, const TensorView& gstudent,
               const IcsdOptions& options) {
  if (options.mode == IcsdMode::kOfficialCode) return icsd_code_cuda(student, teacher, loss, gstudent, options);
  const std::int64_t images = student.n();
  const std::int64_t c = student.c();
  const std::int64_t matrix = images * c * c;
  const Scratch sums_s(static_cast<std::size_t>(images * c) * sizeof(PositionSum));
  const Scratch sums_t(static_cast<std::size_t>(images * c) * sizeof(PositionSum));
  const Scratch doubles(static_cast<std::size_t>(6 * matrix + images * c) * sizeof(double));
  auto* k_s = doubles.as<double>();
  double* k_t = k_s + matrix;
  double* d = k_t + matrix;
  double* spare = d + matrix;
  const Slopes slopes{spare + matrix, spare + 2 * matrix, spare + 3 * matrix};
  matrices_of(student, options.tau, sums_s.as<PositionSum>(), k_s);
  matrices_of(teacher, options.tau, sums_t.as<PositionSum>(), k_t);
  const MatrixSlope slope = compare_matrices_cuda(options, images, c, k_s, k_t, d, spare, loss.ptr<float>());
  if (!gstudent.defined()) return;
  const auto inverse_tau = static_cast<float>(1 / options.tau);
  launch(slopes_kernel, grid_for(images * c), kBlock, slope, k_s, sums_s.as<PositionSum>(), images, inverse_tau,
         slopes);
  const std::int64_t positions = student.h() * student.w();
  const auto m = static_cast<unsigned>(positions);
  const auto classes = static_cast<unsigned>(c);
  const Scratch along(static_cast<std::size_t>(student.numel()) * sizeof(float));
  visit_fast_dtype("icsd", student.dtype, [&](auto tag) {
    using S = decltype(tag);
    const PositionScores<S> scores{student.ptr<const S>(), sums_s.as<PositionSum>(), inverse_tau, m, classes, classes};
    product(OverChannels<ScoreElement<S>>{{scores}}, MatrixOperand<double>{slopes.along, classes, classes},
            StoreMatrix<float>{along.as<float>(), m, classes}, images, positions, c, c);
    product(OverChannels<ProbabilityElement<S>>{{scores}}, MatrixOperand<double>{slopes.across, classes, classes},
            StoreGradient<S>{scores, along.as<float>(), slopes.constant, gstudent.ptr<S>()}, images, positions, c, c);
  });
}

void inter_class_similarity_cuda(const TensorView& logits, double tau, const TensorView& matrix) {
  const std::int64_t c = logits.c();
  const Scratch sums(static_cast<std::size_t>(logits.n() * c) * sizeof(PositionSum));
  const Scratch k(static_cast<std::size_t>(logits.n() * c * c) * sizeof(double));
  matrices_of(logits, tau, sums.as<PositionSum>(), k.as<double>());
  launch(average_kernel<float>, grid_for(c * c), kBlock, k.as<double>(), logits.n(), c * c, matrix.ptr<float>());
}

}  // namespace limbeck::distill
