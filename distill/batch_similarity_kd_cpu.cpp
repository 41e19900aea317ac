// Vectorised similarity-preserving loss, at the speed of the memory. Samples are taken in groups of kGroup, so that every
// number loaded serves kGroup products whose sums stay in registers; a run of kRun elements of all samples stays in cache
// while all pairs of groups use it, and each map is read from memory once. The gradient mixes the samples with N x N
// weights in the same manner.
#include <algorithm>
#include <type_traits>

#include "core/memory.h"
#include "core/parallel.h"
#include "distill/batch_similarity_kd_kernels.h"
#include "distill/channel_gram.h"
#include "distill/gram_rows.h"
#include "ops/row_store.h"
#include "ops/simd.h"

namespace limbeck::distill {
namespace {

namespace simd = ops::simd;

constexpr std::int64_t kRun = 2048;  // elements whose products are added in f32
constexpr std::int64_t kGroup = 4;

/// Stretches of kGroup samples. Beyond the last sample it is repeated; what comes of that is not used.
template <class T>
struct Group {
  const T* row[kGroup];
  std::int64_t count;  ///< how many exist

  Group(const TensorView& f, std::int64_t first, std::int64_t element) : count(std::min(kGroup, f.shape[0] - first)) {
    for (std::int64_t r = 0; r < kGroup; ++r) {
      row[r] = f.ptr<T>() + (first + std::min(r, count - 1)) * f.shape[1] + element;
    }
  }
};

/// k[r][q] += a.row[r] . b.row[q], k with n numbers from row to row.
template <class T>
void add_products(const Group<T>& a, const Group<T>& b, std::int64_t length, double* k, std::int64_t n) {
  simd::Vec sums[kGroup][kGroup] = {};
  const auto add = [&](const auto& load) {
    simd::Vec left[kGroup];
    simd::Vec right[kGroup];
#pragma GCC unroll 4
    for (int r = 0; r < kGroup; ++r) {
      left[r] = load(a.row[r]);
      right[r] = load(b.row[r]);
    }
#pragma GCC unroll 4
    for (int r = 0; r < kGroup; ++r) {
#pragma GCC unroll 4
      for (int q = 0; q < kGroup; ++q) sums[r][q] += left[r] * right[q];
    }
  };
  std::int64_t m = 0;
  for (; m + simd::kLanes <= length; m += simd::kLanes) add([m](const T* p) { return simd::load(p + m); });
  if (m < length) add([m, length](const T* p) { return simd::load_some(p + m, length - m); });
  for (std::int64_t r = 0; r < a.count; ++r) {
    for (std::int64_t q = 0; q < b.count; ++q) k[r * n + q] += static_cast<double>(sum_of_lanes(sums[r][q]));
  }
}

/// k[i][j] = sum over elements of f[i] f[j].
template <class T>
void gram(const TensorView& f, double* k) {
  const std::int64_t n = f.shape[0];
  const std::int64_t size = f.shape[1];
  const std::int64_t runs = (size + kRun - 1) / kRun;
  const std::int64_t blocks = std::clamp<std::int64_t>(runs / 4, 1, 32);
  const Workspace partial(static_cast<std::size_t>(blocks * n * n) * sizeof(double));
  parallel_for(blocks, 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t b = begin; b < end; ++b) {
      double* sums = partial.as<double>() + b * n * n;
      std::fill_n(sums, n * n, 0.0);
      for (std::int64_t r = runs * b / blocks; r < runs * (b + 1) / blocks; ++r) {
        const std::int64_t at = r * kRun;
        const std::int64_t length = std::min(kRun, size - at);
        for (std::int64_t i = 0; i < n; i += kGroup) {
          const Group<T> left(f, i, at);
          for (std::int64_t j = 0; j <= i; j += kGroup) {
            add_products(left, Group<T>(f, j, at), length, sums + i * n + j, n);
          }
        }
      }
    }
  });
  for (std::int64_t i = 0; i < n; ++i) {
    for (std::int64_t j = 0; j <= i; ++j) {
      double sum = 0;
      for (std::int64_t b = 0; b < blocks; ++b) sum += partial.as<double>()[b * n * n + i * n + j];
      k[i * n + j] = sum;
      k[j * n + i] = sum;
    }
  }
}

/// out[r][m] = sum_j weights[r][j] f[j][element + m] for the rows of a group; f has n rows of `size` elements.
/// Two vectors at a time: with one, the sums would wait for each other.
template <class T>
void mix(const T* f, std::int64_t n, std::int64_t size, const float* const (&weights)[kGroup], std::int64_t length,
         float* const (&out)[kGroup]) {
  const auto sums_of = [&](auto vectors, const auto& load, const auto& store) {
    constexpr int kVectors = decltype(vectors)::value;
    simd::Vec sums[kGroup][kVectors] = {};
    for (std::int64_t j = 0; j < n; ++j) {
#pragma GCC unroll 2
      for (int v = 0; v < kVectors; ++v) {
        const simd::Vec x = load(f + j * size + v * simd::kLanes);
#pragma GCC unroll 4
        for (int r = 0; r < kGroup; ++r) sums[r][v] += simd::broadcast(weights[r][j]) * x;
      }
    }
#pragma GCC unroll 4
    for (int r = 0; r < kGroup; ++r) {
#pragma GCC unroll 2
      for (int v = 0; v < kVectors; ++v) store(out[r] + v * simd::kLanes, sums[r][v]);
    }
  };
  using One = std::integral_constant<int, 1>;
  using Two = std::integral_constant<int, 2>;
  std::int64_t m = 0;
  for (; m + 2 * simd::kLanes <= length; m += 2 * simd::kLanes) {
    sums_of(
        Two{}, [m](const T* p) { return simd::load(p + m); }, [m](float* p, simd::Vec v) { simd::store(p + m, v); });
  }
  for (; m < length; m += simd::kLanes) {
    const std::int64_t count = std::min(simd::kLanes, length - m);
    sums_of(
        One{}, [m, count](const T* p) { return simd::load_some(p + m, count); },
        [m, count](float* p, simd::Vec v) { simd::store_some(p + m, v, count); });
  }
}

template <class T>
void gradient(const TensorView& f, const float* weights, const TensorView& g) {
  constexpr std::int64_t kPiece = 512;  // elements of a group's rows on their way out
  const std::int64_t n = f.shape[0];
  const std::int64_t size = f.shape[1];
  const ops::RowStore<T> store(g);
  parallel_for((size + kPiece - 1) / kPiece, 1 + 16384 / n / kPiece, [&](std::int64_t begin, std::int64_t end) {
    alignas(64) float buffers[kGroup][ops::row_store_floats(kPiece)];
    for (std::int64_t piece = begin; piece < end; ++piece) {
      const std::int64_t at = piece * kPiece;
      const std::int64_t length = std::min(kPiece, size - at);
      for (std::int64_t i = 0; i < n; i += kGroup) {
        const std::int64_t rows = std::min(kGroup, n - i);
        const float* row_weights[kGroup];
        float* out[kGroup];
        for (std::int64_t r = 0; r < kGroup; ++r) {
          row_weights[r] = weights + (i + std::min(r, rows - 1)) * n;
          out[r] = r < rows ? store.target(g.ptr<T>() + (i + r) * size + at, buffers[r]) : buffers[r];
        }
        mix(f.ptr<T>() + at, n, size, row_weights, length, out);
        for (std::int64_t r = 0; r < rows; ++r) store.finish(out[r], g.ptr<T>() + (i + r) * size + at, length);
      }
    }
    store.fence();
  });
}

}  // namespace

void batch_similarity_kd_cpu(const TensorView& student, const TensorView& teacher, const TensorView& loss,
                             const TensorView& gstudent) {
  const std::int64_t n = student.shape[0];
  const Workspace matrices(static_cast<std::size_t>(2 * n * n) * sizeof(double));
  double* k_s = matrices.as<double>();
  double* k_t = k_s + n * n;
  // The student last: the caches then hold what the gradient reads again.
  visit_fast_dtype("batch_similarity_kd", teacher.dtype, [&](auto tag) { gram<decltype(tag)>(teacher, k_t); });
  visit_fast_dtype("batch_similarity_kd", student.dtype, [&](auto tag) { gram<decltype(tag)>(student, k_s); });
  const double factor = 1 / static_cast<double>(n * n);
  *loss.ptr<float>() = static_cast<float>(row_normalised_gram_loss(n, factor, gstudent.defined(), k_s, k_t));
  if (!gstudent.defined()) return;
  const Workspace weights(static_cast<std::size_t>(n * n) * sizeof(float));
  for (std::int64_t i = 0; i < n * n; ++i) weights.as<float>()[i] = static_cast<float>(k_s[i]);
  visit_fast_dtype("batch_similarity_kd", student.dtype,
                   [&](auto tag) { gradient<decltype(tag)>(student, weights.as<float>(), gstudent); });
}

}  // namespace limbeck::distill
