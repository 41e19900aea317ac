// The local similarity loss on the GPU. A pair of neighbours is visited once, from the pixel that comes first: right, below left, below,
// below right. Pass 1 gives the value and one weight per pair; pass 2 gathers, for every pixel, its four own weights and those of the
// four neighbours before it.
#include "core/cuda/columns.cuh"
#include "distill/local_kd_kernels.h"
#include "ops/map_view.h"
#include "ops/pixel_rows.cuh"

namespace limbeck::distill {
namespace {

using namespace cuda;
using ops::PixelLane;

constexpr int kPairs = 4;

/// The images' grid of pixels.
struct Grid {
  int h, w;
  /// Offset in pixels to the end (sign 1) or the begin (sign -1) of pair k at pixel `at`; 0 outside of the image.
  __device__ int offset(unsigned at, int k, int sign) const {
    const int pixel = static_cast<int>(at % static_cast<unsigned>(h * w));
    const int down = k == 0 ? 0 : 1;
    const int right = k == 0 ? 1 : k - 2;
    const int i = pixel / w + sign * down;
    const int j = pixel % w + sign * right;
    return i >= 0 && i < h && j >= 0 && j < w ? sign * (down * w + right) : 0;
  }
};

/// Squared distance of two pixels; every lane gets it.
template <class T>
__device__ inline float distance2(const T* a, const T* b, unsigned channels, unsigned lane, unsigned lanes) {
  return ops::row_sum(a, channels, lane, lanes, [=](float v, unsigned c) {
    const float d = v - to_float(b[c]);
    return d * d;
  });
}

template <class S, class T>
__global__ void values_kernel(const S* student, const T* teacher, Grid grid, double slope, float* weights,
                              unsigned pixels, unsigned c, unsigned d, unsigned lanes, unsigned turns,
                              double* partial) {
  __shared__ double scratch[32];
  double total = 0;
  for (unsigned turn = 0; turn < turns; ++turn) {
    const PixelLane at(pixels, lanes, turn);
    const S* s = student + static_cast<std::size_t>(at.pixel) * c;
    const T* t = teacher + static_cast<std::size_t>(at.pixel) * d;
    for (int k = 0; k < kPairs; ++k) {
      // Without a neighbour the pixel is compared with itself: both distances are 0, and all lanes meet in the sums.
      const std::ptrdiff_t offset = grid.offset(at.pixel, k, 1);
      const double d_s = sqrt(static_cast<double>(distance2(s, s + offset * c, c, at.lane, lanes)));
      const double d_t = sqrt(static_cast<double>(distance2(t, t + offset * d, d, at.lane, lanes)));
      const double difference = offset == 0 ? 0 : d_s - d_t;
      if (!at.active || at.lane != 0) continue;
      total += difference * difference;
      if (weights != nullptr) {
        weights[static_cast<std::size_t>(at.pixel) * kPairs + static_cast<unsigned>(k)] =
            d_s > 0 ? static_cast<float>(slope * difference / d_s) : 0.0F;
      }
    }
  }
  total = block_all(total, Add{}, 0.0, scratch);
  if (threadIdx.x == 0) partial[blockIdx.x] = total;
}

template <class S>
__global__ void gradient_kernel(const S* student, const float* weights, Grid grid, unsigned pixels, unsigned c,
                                unsigned lanes, S* gs) {
  const PixelLane at(pixels, lanes);
  if (!at.active) return;
  const S* s = student + static_cast<std::size_t>(at.pixel) * c;
  std::ptrdiff_t offset[2 * kPairs];
  float weight[2 * kPairs];
  for (int k = 0; k < kPairs; ++k) {
    offset[k] = grid.offset(at.pixel, k, 1);
    offset[kPairs + k] = grid.offset(at.pixel, k, -1);
    weight[k] = weights[static_cast<std::ptrdiff_t>(at.pixel) * kPairs + k];
    const float before = weights[(static_cast<std::ptrdiff_t>(at.pixel) + offset[kPairs + k]) * kPairs + k];
    weight[kPairs + k] = offset[kPairs + k] == 0 ? 0.0F : before;
  }
  for (unsigned ch = at.lane; ch < c; ch += lanes) {
    const float here = to_float(s[ch]);
    float sum = 0;
    for (int k = 0; k < 2 * kPairs; ++k)
      sum += weight[k] * (here - to_float(s[offset[k] * static_cast<std::ptrdiff_t>(c) + ch]));
    gs[static_cast<std::size_t>(at.pixel) * c + ch] = from_float<S>(sum);
  }
}

}  // namespace

void local_kd_cuda(const TensorView& student, const TensorView& teacher, const TensorView& loss,
                   const TensorView& gstudent) {
  const std::int64_t pixels = ops::pixel_count(student);
  LIMBECK_CHECK(pixels < (std::int64_t{1} << 26), "local_kd", "{} pixels, expected at most 2^26", pixels);
  const double factor = local_kd_factor(student.n(), student.h(), student.w());
  const Grid grid{static_cast<int>(student.h()), static_cast<int>(student.w())};
  const unsigned lanes = ops::lanes_per_pixel(std::max(student.c(), teacher.c()));
  const ops::PixelTurns turns(pixels, lanes);
  const Scratch partial(turns.blocks * sizeof(double));
  const Scratch weights(static_cast<std::size_t>(gstudent.defined() ? kPairs * pixels : 1) * sizeof(float));
  visit_fast_dtype("local_kd", student.dtype, [&](auto s) {
    using S = decltype(s);
    visit_fast_dtype("local_kd", teacher.dtype, [&](auto t) {
      using T = decltype(t);
      launch(values_kernel<S, T>, turns.blocks, kBlock, student.ptr<const S>(), teacher.ptr<const T>(), grid,
             4 * factor, gstudent.defined() ? weights.as<float>() : nullptr, pixels, student.c(), teacher.c(), lanes,
             turns.turns, partial.as<double>());
    });
    if (!gstudent.defined()) return;
    launch(gradient_kernel<S>, ceil_div(pixels * lanes, kBlock), kBlock, student.ptr<const S>(), weights.as<float>(),
           grid, pixels, student.c(), lanes, gstudent.ptr<S>());
  });
  launch(finish_sum_kernel<float>, 1, kBlock, partial.as<double>(), turns.blocks, 2 * factor,
         loss.ptr<float>());  // both directions
}

}  // namespace limbeck::distill
