// The pair-wise similarity loss on the GPU: max-pooling that remembers the winners, the difference of the affinities of the pooled
// positions (position_affinity_cuda.cu), and the gradient on its way back to the winners.
#include "core/cuda/columns.cuh"
#include "distill/pairwise_kd_kernels.h"
#include "distill/position_affinity.h"

namespace limbeck::distill {
namespace {

using namespace cuda;

constexpr std::int64_t kLargeWindow = 64;  // pixels from which on several threads share a window

/// Pooling windows of maps [h][w][c].
struct Windows {
  unsigned h, w, c, kernel_h, kernel_w, rows, columns;
  Windows(const TensorView& x, const PairwiseWindows& win)
      : h(static_cast<unsigned>(x.h())),
        w(static_cast<unsigned>(x.w())),
        c(static_cast<unsigned>(x.c())),
        kernel_h(static_cast<unsigned>(win.kernel_h)),
        kernel_w(static_cast<unsigned>(win.kernel_w)),
        rows(static_cast<unsigned>(win.rows)),
        columns(static_cast<unsigned>(win.columns)) {}
};

/// The largest number of a window, and its pixel; of equals the first.
struct Best {
  float value = -INFINITY;
  int pixel = -1;
  __device__ void take(float v, int from) {
    const bool here_nan = value != value;
    const bool wins = pixel < 0 || v > value || (v != v && (!here_nan || from > pixel)) || (v == value && from < pixel);
    value = wins ? v : value;
    pixel = wins ? from : pixel;
  }
};

template <class T>
struct Pool {
  struct Acc {
    Best best;
  };
  const T* x;
  Windows win;
  float* f;
  int* from;  // may be null

  __device__ void start(Acc& a) const { a.best = Best{}; }
  /// `stack` counts the windows of all images, `row` the pixels of a window.
  __device__ void add(Acc& a, unsigned stack, unsigned row, unsigned channel) const {
    const unsigned image = stack / (win.rows * win.columns);
    const unsigned r = stack / win.columns % win.rows * win.kernel_h + row / win.kernel_w;
    const unsigned k = stack % win.columns * win.kernel_w + row % win.kernel_w;
    if (r >= win.h || k >= win.w) return;
    const unsigned pixel = r * win.w + k;
    a.best.take(to_float(x[(static_cast<std::size_t>(image) * win.h * win.w + pixel) * win.c + channel]),
                static_cast<int>(pixel));
  }
  __device__ void merge(Acc& a, const Acc& b) const {
    if (b.best.pixel >= 0) a.best.take(b.best.value, b.best.pixel);
  }
  __device__ void finish(const Acc& a, unsigned stack, unsigned channel) const {
    const std::size_t at = static_cast<std::size_t>(stack) * win.c + channel;
    f[at] = a.best.value;
    if (from != nullptr) from[at] = a.best.pixel;
  }
};

/// One thread per window and channel.
template <class T>
__global__ void pool_kernel(Pool<T> pool, unsigned count) {
  for (unsigned i = first(); i < count; i += step()) {
    typename Pool<T>::Acc acc;
    pool.start(acc);
    for (unsigned row = 0; row < pool.win.kernel_h * pool.win.kernel_w; ++row)
      pool.add(acc, i / pool.win.c, row, i % pool.win.c);
    pool.finish(acc, i / pool.win.c, i % pool.win.c);
  }
}

template <class T>
void pool_map(const TensorView& x, const PairwiseWindows& win, float* f, int* from) {
  const Pool<T> pool{x.ptr<const T>(), Windows(x, win), f, from};
  const std::int64_t windows = x.n() * win.count();
  if (win.kernel_h * win.kernel_w >= kLargeWindow && windows < 65536) {
    reduce_columns(pool, windows, win.kernel_h * win.kernel_w, x.c());
  } else {
    launch(pool_kernel<T>, grid_for(windows * x.c()), kBlock, pool, windows * x.c());
  }
}

/// The gradient of every window's number at its winner, 0 elsewhere.
template <class S>
__global__ void unpool_kernel(Windows win, const float* g, const int* from, unsigned count, S* gs) {
  for (unsigned i = first(); i < count; i += step()) {
    const unsigned channel = i % win.c;
    const unsigned pixel = i / win.c % (win.h * win.w);
    const unsigned image = i / win.c / (win.h * win.w);
    const unsigned window = pixel / win.w / win.kernel_h * win.columns + pixel % win.w / win.kernel_w;
    const std::size_t at = (static_cast<std::size_t>(image) * win.rows * win.columns + window) * win.c + channel;
    gs[i] = from_float<S>(from[at] == static_cast<int>(pixel) ? g[at] : 0.0F);
  }
}

/// Pooled maps [n][c][1][m], channels-last.
TensorView pooled_view(float* data, std::int64_t n, std::int64_t c, std::int64_t m) {
  TensorView v;
  v.data = data;
  v.dtype = DType::kF32;
  v.shape = Shape{n, c, 1, m};
  v.strides = Strides{m * c, 1, m * c, c};
  return v;
}

}  // namespace

void pairwise_kd_cuda(const TensorView& student, const TensorView& teacher, const TensorView& loss,
                      const TensorView& gstudent, const PairwiseKdOptions& options) {
  const PairwiseWindows win(student.h(), student.w(), options);
  const AffinityForm form{.epsilon = kPairwiseEpsilon, .detach_norm = options.detach_norm};
  const std::int64_t n = student.n();
  const std::int64_t m = win.count();
  const double factor = 1 / (static_cast<double>(n) * static_cast<double>(m) * static_cast<double>(m));
  if (win.kernel_h * win.kernel_w == 1)
    return affinity_difference_cuda(student, teacher, gstudent, form, factor, factor, loss);
  LIMBECK_CHECK(student.numel() < (std::int64_t{1} << 31) && teacher.numel() < (std::int64_t{1} << 31), "pairwise_kd",
                "maps of shapes {} and {} have too many elements", student.shape, teacher.shape);
  const bool gradient = gstudent.defined();
  const std::int64_t numbers = n * m * student.c();
  const Scratch maps(static_cast<std::size_t>(numbers * (gradient ? 2 : 1) + n * m * teacher.c()) * sizeof(float));
  const Scratch winners(static_cast<std::size_t>(gradient ? numbers : 1) * sizeof(int));
  auto* p_s = maps.as<float>();
  float* p_t = p_s + numbers;
  float* g = gradient ? p_t + n * m * teacher.c() : nullptr;
  int* from = gradient ? winners.as<int>() : nullptr;
  visit_fast_dtype("pairwise_kd", student.dtype, [&](auto tag) { pool_map<decltype(tag)>(student, win, p_s, from); });
  visit_fast_dtype("pairwise_kd", teacher.dtype,
                   [&](auto tag) { pool_map<decltype(tag)>(teacher, win, p_t, nullptr); });
  affinity_difference_cuda(pooled_view(p_s, n, student.c(), m), pooled_view(p_t, n, teacher.c(), m),
                           gradient ? pooled_view(g, n, student.c(), m) : TensorView{}, form, factor, factor, loss);
  if (!gradient) return;
  visit_fast_dtype("pairwise_kd", student.dtype, [&](auto tag) {
    using S = decltype(tag);
    launch(unpool_kernel<S>, grid_for(student.numel()), kBlock, Windows(student, win), g, from, student.numel(),
           gstudent.ptr<S>());
  });
}

}  // namespace limbeck::distill
