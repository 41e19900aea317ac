// Pixel-wise distillation on the GPU: one pass that reads both maps once (a pixel stays in registers, or with many classes in the
// cache) and writes the gradient; one thread per pixel, or a few lanes of a warp: see ops/pixel_rows.cuh.
#include "core/cuda/columns.cuh"
#include "distill/pixel_kd_kernels.h"
#include "ops/labels.cuh"
#include "ops/pixel_rows.cuh"

namespace limbeck::distill {
namespace {

using namespace cuda;
using ops::PixelLane;

/// What the sum over pixels is multiplied by: `scale`, for a mean over the pixels that count divided by their number.
struct Factor {
  double scale;
  bool per_pixel;
  const double* valid;
  __device__ double value() const {
    if (*valid == 0) return 0;
    return per_pixel ? scale / *valid : scale;
  }
};

__global__ void count_kernel(ops::LabelReader labels, unsigned pixels, double* partial) {
  __shared__ double scratch[32];
  double count = 0;
  for (unsigned i = first(); i < pixels; i += step()) count += labels.counts(i) ? 1 : 0;
  count = block_all(count, Add{}, 0.0, scratch);
  if (threadIdx.x == 0) partial[blockIdx.x] = count;
}

__global__ void sum_kernel(const double* partial, unsigned count, double* out) {
  __shared__ double scratch[32];
  const double sum = sum_all(partial, count, scratch);
  if (threadIdx.x == 0) *out = sum;
}

__global__ void finish_kernel(const double* partial, unsigned count, Factor factor, float* loss) {
  __shared__ double scratch[32];
  const double sum = sum_all(partial, count, scratch);
  if (threadIdx.x == 0) *loss = static_cast<float>(sum * factor.value());
}

/// A softmax at temperature 1 / inverse of one pixel: p(v) = exp(v * inverse - largest) / sum.
struct PixelSoftmax {
  float inverse, largest, ln_sum, inverse_sum;
  template <class Row>
  __device__ PixelSoftmax(const Row& row, float inverse_in) : inverse(inverse_in) {
    const float i = inverse;
    const float top = i * row.max();
    largest = top;
    const float sum = row.sum([=](float v, unsigned, unsigned) { return expf(v * i - top); });
    ln_sum = logf(sum);
    inverse_sum = 1 / sum;
  }
  __device__ float p(float v) const { return expf(v * inverse - largest) * inverse_sum; }
  __device__ float ln_p(float v) const { return v * inverse - largest - ln_sum; }
};

template <class Access, class S, class U>
__global__ void loss_kernel(Access access, const S* student, const U* teacher, ops::LabelReader labels, S* gstudent,
                            double* partial, Factor factor, float inverse_tau, bool cross_entropy, unsigned turns) {
  using Wide = std::conditional_t<(sizeof(S) < sizeof(U)), U, S>;
  __shared__ double scratch[32];
  alignas(16) __shared__ unsigned char tile[Access::template kTileBytes<Wide>];
  const auto scale = static_cast<float>(factor.value()) * inverse_tau;
  double total = 0;
  for (unsigned turn = 0; turn < turns; ++turn) {
    const PixelLane at = access.lane(turn);
    const auto s = access.load(student, at, turn, tile);
    const auto t = access.load(teacher, at, turn, tile);
    const bool counts = labels.counts(at.pixel);
    const PixelSoftmax ps(s, inverse_tau);
    const PixelSoftmax pt(t, inverse_tau);
    const bool writes = gstudent != nullptr && access.writes(at);
    S* out = access.place(gstudent, at, tile);
    const float loss = t.sum([&](float v, unsigned c, unsigned j) {
      const float p = pt.p(v);
      const float ln_ratio = (cross_entropy ? 0.0F : pt.ln_p(v)) - ps.ln_p(s.at(j));
      if (writes) out[c] = from_float<S>(counts ? scale * (ps.p(s.at(j)) - p) : 0.0F);
      return p == 0 ? 0.0F : p * ln_ratio;
    });
    if (gstudent != nullptr) access.flush(gstudent, turn, tile);
    if (at.active && at.lane == 0 && counts) total += static_cast<double>(loss);
  }
  total = block_all(total, Add{}, 0.0, scratch);
  if (threadIdx.x == 0) partial[blockIdx.x] = total;
}

}  // namespace

void pixel_kd_cuda(const TensorView& student, const TensorView& teacher, const TensorView& labels,
                   const TensorView& loss, const TensorView& gstudent, const PixelKdOptions& options) {
  const std::int64_t count = student.n() * student.h() * student.w();
  LIMBECK_CHECK(count > 0 && count < (std::int64_t{1} << 26), "pixel_kd", "{} pixels, expected 1 to 2^26", count);
  const auto pixels = static_cast<unsigned>(count);
  const unsigned count_blocks = std::min(ceil_div(count, 16 * kBlock), 512U);
  const Scratch counts(count_blocks * sizeof(double));
  const Scratch valid(sizeof(double));
  const ops::LabelReader y{labels.data, labels.dtype, options.ignore_index};
  launch(count_kernel, count_blocks, kBlock, y, pixels, counts.as<double>());
  launch(sum_kernel, 1, kBlock, counts.as<double>(), count_blocks, valid.as<double>());
  const Factor factor{pixel_kd_factor(student, 1, options), options.reduction == PixelKdReduction::kPerPixel,
                      valid.as<double>()};
  visit_fast_dtype("pixel_kd", student.dtype, [&](auto s) {
    visit_fast_dtype("pixel_kd", teacher.dtype, [&](auto t) {
      using S = decltype(s);
      using U = decltype(t);
      const auto run = [&]<class Access>(const Access& access) {
        const ops::PixelTurns turns(count, access.lanes_wanted);
        const Scratch partial(turns.blocks * sizeof(double));
        launch(loss_kernel<Access, S, U>, turns.blocks, kBlock, access, student.ptr<const S>(), teacher.ptr<const U>(),
               y, gstudent.ptr<S>(), partial.as<double>(), factor, static_cast<float>(1 / options.tau),
               options.reduction == PixelKdReduction::kSkdCrossEntropy, turns.turns);
        launch(finish_kernel, 1, kBlock, partial.as<double>(), turns.blocks, factor, loss.ptr<float>());
      };
      ops::visit_pixels(count, student.c(), run, student.ptr<const S>(), teacher.ptr<const U>(),
                        gstudent.ptr<const S>());
    });
  });
}

}  // namespace limbeck::distill
