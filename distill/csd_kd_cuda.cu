// The category-wise similarity loss on the GPU: pooled maps in f32, softmax sums, the overlaps as products of the softmaxes, and back.
#include "core/cuda/products.cuh"
#include "distill/csd_kd_kernels.h"
#include "distill/position_softmax.cuh"

namespace limbeck::distill {
namespace {

using namespace cuda;

/// Windows of 2x2 pixels of images of h x w; those at the lower and right border may be smaller.
struct Windows {
  unsigned h, w, c, rows, columns;
  explicit Windows(const TensorView& x)
      : h(static_cast<unsigned>(x.h())),
        w(static_cast<unsigned>(x.w())),
        c(static_cast<unsigned>(x.c())),
        rows((h + 1) / 2),
        columns((w + 1) / 2) {}
  [[nodiscard]] std::int64_t count() const { return static_cast<std::int64_t>(rows) * columns; }
  __device__ unsigned height(unsigned top) const { return h - top < 2 ? h - top : 2; }
  __device__ unsigned width(unsigned left) const { return w - left < 2 ? w - left : 2; }
};

template <class T>
__global__ void pool_kernel(const T* x, Windows win, unsigned count, float* z) {
  for (unsigned i = first(); i < count; i += step()) {
    const unsigned channel = i % win.c;
    const unsigned window = i / win.c;
    const unsigned left = window % win.columns * 2;
    const unsigned top = window / win.columns % win.rows * 2;
    const unsigned image = window / (win.columns * win.rows);
    float sum = 0;
    for (unsigned r = top; r < top + win.height(top); ++r) {
      for (unsigned k = left; k < left + win.width(left); ++k) {
        sum += to_float(x[((static_cast<std::size_t>(image) * win.h + r) * win.w + k) * win.c + channel]);
      }
    }
    z[i] = sum / static_cast<float>(win.height(top) * win.width(left));
  }
}

/// d = 4 factor (G_S - G_T); partial = its squares before they are scaled.
__global__ void compare_kernel(const double* g_s, const double* g_t, unsigned count, double factor, float* d,
                               double* partial) {
  __shared__ double scratch[32];
  double total = 0;
  for (unsigned i = first(); i < count; i += step()) {
    const double difference = g_s[i] - g_t[i];
    total += difference * difference;
    d[i] = static_cast<float>(4 * factor * difference);
  }
  total = block_all(total, Add{}, 0.0, scratch);
  if (threadIdx.x == 0) partial[blockIdx.x] = total;
}

/// mean[image][channel] = sum over the positions of p g.
struct Along {
  struct Acc {
    double sum;
  };
  PositionScores<float> scores;
  const float* g;
  double* mean;
  __device__ void start(Acc& a) const { a.sum = 0; }
  __device__ void add(Acc& a, unsigned image, unsigned row, unsigned channel) const {
    const float slope = g[(static_cast<std::size_t>(image) * scores.positions + row) * scores.channels + channel];
    a.sum += static_cast<double>(scores.p(image, row, channel)) * static_cast<double>(slope);
  }
  __device__ void merge(Acc& a, const Acc& b) const { a.sum += b.sum; }
  __device__ void finish(const Acc& a, unsigned image, unsigned channel) const {
    mean[image * scores.channels + channel] = a.sum;
  }
};

/// gs = p (g - mean) / tau, shared out over the pixels of the window.
template <class S>
__global__ void spread_kernel(Windows win, PositionScores<float> scores, const float* g, const double* mean,
                              unsigned count, S* gs) {
  for (unsigned i = first(); i < count; i += step()) {
    const unsigned channel = i % win.c;
    const unsigned pixel = i / win.c;
    const unsigned left = pixel % win.w / 2 * 2;
    const unsigned top = pixel / win.w % win.h / 2 * 2;
    const unsigned image = pixel / (win.w * win.h);
    const unsigned window = top / 2 * win.columns + left / 2;
    const float slope = g[(static_cast<std::size_t>(image) * scores.positions + window) * win.c + channel];
    const float share = scores.inverse_tau / static_cast<float>(win.height(top) * win.width(left));
    const float centred = slope - static_cast<float>(mean[image * win.c + channel]);
    gs[i] = from_float<S>(share * scores.p(image, window, channel) * centred);
  }
}

}  // namespace

void csd_kd_cuda(const TensorView& student, const TensorView& teacher, const TensorView& loss,
                 const TensorView& gstudent, const CsdKdOptions& options) {
  const Windows win(student);
  const std::int64_t images = student.n();
  const std::int64_t m = win.count();
  const std::int64_t c = student.c();
  LIMBECK_CHECK(student.numel() < (std::int64_t{1} << 31), "csd_kd", "maps of shape {} have too many elements",
                student.shape);
  const std::int64_t pooled = images * m * c;
  const std::int64_t matrix = images * c * c;
  const Scratch maps(static_cast<std::size_t>(3 * pooled + matrix) * sizeof(float));
  auto* z_s = maps.as<float>();
  float* z_t = z_s + pooled;
  float* g = z_t + pooled;
  float* d = g + pooled;
  const Scratch sums(static_cast<std::size_t>(2 * images * c) * sizeof(PositionSum));
  const Scratch doubles(static_cast<std::size_t>(2 * matrix + images * c) * sizeof(double));
  auto* k_s = doubles.as<double>();
  double* k_t = k_s + matrix;
  double* mean = k_t + matrix;
  const auto overlaps = [&](const TensorView& x, float* z, PositionSum* s, double* k) {
    visit_fast_dtype("csd_kd", x.dtype, [&](auto tag) {
      using T = decltype(tag);
      launch(pool_kernel<T>, grid_for(pooled), kBlock, x.ptr<const T>(), win, pooled, z);
    });
    sum_exponentials(static_cast<const float*>(z), options.tau, images, m, c, s);
    const PositionScores<float> scores{z,     s,    static_cast<float>(1 / options.tau), static_cast<unsigned>(m),
                                       win.c, win.c};
    channel_products(ProbabilityElement<float>{scores}, k, images, m, c);
    return scores;
  };
  const auto scores = overlaps(student, z_s, sums.as<PositionSum>(), k_s);
  static_cast<void>(overlaps(teacher, z_t, sums.as<PositionSum>() + images * c, k_t));
  const double factor = 1 / static_cast<double>(images * c * c);
  const unsigned blocks = std::min(ceil_div(matrix, 4 * kBlock), 512U);
  const Scratch partial(blocks * sizeof(double));
  launch(compare_kernel, blocks, kBlock, k_s, k_t, matrix, factor, d, partial.as<double>());
  launch(finish_sum_kernel<float>, 1, kBlock, partial.as<double>(), blocks, factor, loss.ptr<float>());
  if (!gstudent.defined()) return;
  const auto positions = static_cast<unsigned>(m);
  product(OverChannels<ProbabilityElement<float>>{{scores}}, MatrixOperand<float>{d, win.c, win.c},
          StoreMatrix<float>{g, positions, win.c}, images, m, c, c);
  reduce_columns(Along{scores, g, mean}, images, m, c);
  visit_fast_dtype("csd_kd", student.dtype, [&](auto tag) {
    using S = decltype(tag);
    launch(spread_kernel<S>, grid_for(student.numel()), kBlock, win, scores, g, mean, student.numel(),
           gstudent.ptr<S>());
  });
}

}  // namespace limbeck::distill
