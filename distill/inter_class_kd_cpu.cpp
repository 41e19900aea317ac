// Vectorised inter-class similarity loss for channels-last maps, f32 and bf16 in any mix.
//   visit 1  run by run of 512 positions, turned on its side: maxima, e = exp((x - top) / tau), and the product of e with
//            z = (x - top) / tau over all pairs of classes
//   between  runs, blocks and images are brought to common maxima, in double, in order; the matrices, the loss, dL/dK
//   visit 2  the student's gradient: two products of C x C matrices with tiles of z and p
// With Z_i = sum e_i: K_ij = sum p_i (l_i - l_j) = (P_ii - P_ij) / Z_i - ln Z_i + ln Z_j, P_ij = sum_m e_i z_j.
#include <algorithm>
#include <cmath>

#include "core/memory.h"
#include "core/parallel.h"
#include "core/vec_math.h"
#include "distill/channel_gram.h"
#include "distill/inter_class_kd_kernels.h"

namespace limbeck::distill {
namespace {

using ops::kTilePixels;

constexpr std::int64_t kRun = 512;  // positions that are added in f32
constexpr std::int64_t kMostBlocks = 16;

/// What the matrix of one image (or of a part of it) is made of.
struct Sums {
  double* top;      // [c]
  double* sum;      // [c] sum of e
  double* product;  // [c][c] sum of e_i z_j
  static constexpr std::int64_t slots(std::int64_t c) { return c * (c + 2); }
  Sums(double* base, std::int64_t c) : top(base), sum(base + c), product(base + 2 * c) {}
};

/// `into` and `other` describe parts of one image; afterwards `into` describes both.
void join(std::int64_t c, double tau, const Sums& other, const Sums& into) {
  for (std::int64_t i = 0; i < c; ++i) {
    const double top_i = std::max(into.top[i], other.top[i]);
    const double a = std::exp((into.top[i] - top_i) / tau);
    const double b = std::exp((other.top[i] - top_i) / tau);
    for (std::int64_t j = 0; j < c; ++j) {
      const double top_j = std::max(into.top[j], other.top[j]);
      double& p = into.product[i * c + j];
      p = a * (p + (into.top[j] - top_j) / tau * into.sum[i]) +
          b * (other.product[i * c + j] + (other.top[j] - top_j) / tau * other.sum[i]);
    }
    into.sum[i] = a * into.sum[i] + b * other.sum[i];
  }
  for (std::int64_t i = 0; i < c; ++i) into.top[i] = std::max(into.top[i], other.top[i]);
}

/// x[ch][m] of `count` <= kRun pixels; channels up to the next multiple of 4 and pixels beyond `count` are 0.
template <class T>
void load_run(const T* x, std::int64_t c, std::int64_t count, float* tile, float* run) {
  for (std::int64_t at = 0; at < kRun; at += kTilePixels) {
    ops::load_tile(x + std::min(at, count) * c, c, std::clamp<std::int64_t>(count - at, 0, kTilePixels), tile);
    for (std::int64_t ch = 0; ch < c; ++ch) {
      std::memcpy(run + ch * kRun + at, tile + ch * kTilePixels, kTilePixels * sizeof(float));
    }
  }
  std::fill_n(run + c * kRun, (round_up_rows(c) - c) * kRun, 0.0F);
}

/// Sums of one run: z becomes (z - top) / tau, e its exponential.
void run_sums(std::int64_t c, std::int64_t count, float inverse_tau, float* z, float* e, const Sums& out) {
  for (std::int64_t ch = 0; ch < c; ++ch) {
    float* zr = z + ch * kRun;
    float* er = e + ch * kRun;
    float top = zr[0];
#pragma omp simd reduction(max : top)
    for (std::int64_t m = 1; m < count; ++m) top = zr[m] > top ? zr[m] : top;
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (std::int64_t m = 0; m < count; ++m) {
      zr[m] = (zr[m] - top) * inverse_tau;
      er[m] = fast_exp(zr[m]);
      sum += er[m];
    }
    std::fill(er + count, er + kRun, 0.0F);  // z is 0 there already
    out.top[ch] = static_cast<double>(top);
    out.sum[ch] = static_cast<double>(sum);
  }
  std::fill_n(e + c * kRun, (round_up_rows(c) - c) * kRun, 0.0F);
  multiply_runs<kRun>(e, z, c, false,
                      [&](std::int64_t i, std::int64_t j, double sum) { out.product[i * c + j] = sum; });
}

/// Sums of every image of one map.
/// Shapes:   sums [N] times Sums::slots
template <class T>
void map_sums(const TensorView& x, double tau, double* sums) {
  const std::int64_t c = x.c();
  const std::int64_t pixels = x.h() * x.w();
  const std::int64_t runs = (pixels + kRun - 1) / kRun;
  const std::int64_t blocks = std::clamp<std::int64_t>(runs / 2, 1, kMostBlocks);
  const std::int64_t slots = Sums::slots(c);
  const Workspace partial(static_cast<std::size_t>(x.n() * blocks * slots) * sizeof(double));
  parallel_for(x.n() * blocks, 1, [&](std::int64_t begin, std::int64_t end) {
    const Workspace floats(static_cast<std::size_t>(2 * round_up_rows(c) * kRun + c * kTilePixels) * sizeof(float));
    const Workspace doubles(static_cast<std::size_t>(slots) * sizeof(double));
    float* z = floats.as<float>();
    float* e = z + round_up_rows(c) * kRun;
    float* tile = e + round_up_rows(c) * kRun;
    const Sums one(doubles.as<double>(), c);
    for (std::int64_t k = begin; k < end; ++k) {
      const std::int64_t block = k % blocks;
      const Sums all(partial.as<double>() + k * slots, c);
      for (std::int64_t r = runs * block / blocks; r < runs * (block + 1) / blocks; ++r) {
        const std::int64_t first = r * kRun;
        const std::int64_t count = std::min(kRun, pixels - first);
        const bool fresh = r == runs * block / blocks;
        load_run(x.ptr<T>() + (k / blocks * pixels + first) * c, c, count, tile, z);
        run_sums(c, count, static_cast<float>(1 / tau), z, e, fresh ? all : one);
        if (!fresh) join(c, tau, one, all);
      }
    }
  });
  for (std::int64_t n = 0; n < x.n(); ++n) {
    const Sums image(sums + n * slots, c);
    std::copy_n(partial.as<double>() + n * blocks * slots, slots, sums + n * slots);
    for (std::int64_t b = 1; b < blocks; ++b)
      join(c, tau, Sums(partial.as<double>() + (n * blocks + b) * slots, c), image);
  }
}

/// Sums and matrices of all images.
/// Shapes:   sums [N] times Sums::slots, k [N][c][c]
void matrices(const TensorView& x, double tau, double* sums, double* k) {
  const std::int64_t c = x.c();
  visit_fast_dtype("icsd", x.dtype, [&](auto tag) { map_sums<decltype(tag)>(x, tau, sums); });
  for (std::int64_t n = 0; n < x.n(); ++n) {
    const Sums image(sums + n * Sums::slots(c), c);
    for (std::int64_t i = 0; i < c; ++i) {
      const double* row = image.product + i * c;
      for (std::int64_t j = 0; j < c; ++j) {
        const double offset = std::log(image.sum[j]) - std::log(image.sum[i]);
        // Outside the diagonal, where the difference is 0 but a NaN must show.
        const double d = i == j ? image.sum[i] - image.sum[i] : (row[i] - row[j]) / image.sum[i] + offset;
        k[(n * c + i) * c + j] = d;
      }
    }
  }
}

/// The matrices of one image's gradient: g_k = p_k (sum_j along_kj z_j + constant_k) - sum_i across_ki p_i, in units of
/// 1/tau.
struct Slopes {
  float* along;     // [c][c]
  float* across;    // [c][c]
  float* constant;  // [c]
  float* top;       // [c]
  float* inverse;   // [c] 1 / Z
};

void fill_slopes(std::int64_t c, double tau, const Sums& image, const double* d, const double* k, const Slopes& out) {
  for (std::int64_t i = 0; i < c; ++i) {
    double row_sum = 0;
    double constant = 0;
    for (std::int64_t j = 0; j < c; ++j) {
      const double slope = d[i * c + j];
      row_sum += slope;
      constant += slope * (std::log(image.sum[j]) - k[i * c + j]) + d[j * c + i];
      out.along[i * c + j] = static_cast<float>(-slope / tau);
      out.across[i * c + j] = static_cast<float>(d[j * c + i] / tau);
    }
    out.along[i * c + i] += static_cast<float>(row_sum / tau);
    out.constant[i] = static_cast<float>((constant - row_sum * std::log(image.sum[i])) / tau);
    out.top[i] = static_cast<float>(image.top[i]);
    out.inverse[i] = static_cast<float>(1 / image.sum[i]);
  }
}

template <class S>
void image_gradient(const S* x, std::int64_t pixels, std::int64_t c, double tau, const Slopes& slopes, S* g) {
  const auto inverse_tau = static_cast<float>(1 / tau);
  const std::int64_t tiles = (pixels + kTilePixels - 1) / kTilePixels;
  parallel_for(tiles, 1 + 16384 / (c * c), [&](std::int64_t begin, std::int64_t end) {
    const Workspace scratch(static_cast<std::size_t>(4 * c * kTilePixels) * sizeof(float));
    float* z = scratch.as<float>();
    float* p = z + c * kTilePixels;
    float* along = p + c * kTilePixels;
    float* across = along + c * kTilePixels;
    for (std::int64_t t = begin; t < end; ++t) {
      const std::int64_t first = t * kTilePixels;
      const std::int64_t count = std::min(kTilePixels, pixels - first);
      ops::load_tile(x + first * c, c, count, z);
      for (std::int64_t ch = 0; ch < c; ++ch) {
        float* zr = z + ch * kTilePixels;
        float* pr = p + ch * kTilePixels;
#pragma omp simd
        for (std::int64_t m = 0; m < kTilePixels; ++m) {
          zr[m] = (zr[m] - slopes.top[ch]) * inverse_tau;
          pr[m] = slopes.inverse[ch] * fast_exp(zr[m]);
        }
      }
      mix_tile(slopes.along, z, c, along);
      mix_tile(slopes.across, p, c, across);
      for (std::int64_t ch = 0; ch < c; ++ch) {
        const float* pr = p + ch * kTilePixels;
        const float* ar = along + ch * kTilePixels;
        float* out = across + ch * kTilePixels;
#pragma omp simd
        for (std::int64_t m = 0; m < kTilePixels; ++m) out[m] = pr[m] * (ar[m] + slopes.constant[ch]) - out[m];
      }
      ops::store_tile(across, c, count, g + first * c);
    }
  });
}

}  // namespace

void icsd_cpu(const TensorView& student, const TensorView& teacher, const TensorView& loss, const TensorView& gstudent,
              const IcsdOptions& options) {
  if (options.mode == IcsdMode::kOfficialCode) return icsd_code_cpu(student, teacher, loss, gstudent, options);
  const std::int64_t c = student.c();
  const std::int64_t images = student.n();
  const std::int64_t matrix = images * c * c;
  const Workspace doubles(static_cast<std::size_t>(images * Sums::slots(c) + 3 * matrix) * sizeof(double));
  double* sums = doubles.as<double>();
  double* k_s = sums + images * Sums::slots(c);
  double* k_t = k_s + matrix;
  double* d = k_t + matrix;
  matrices(teacher, options.tau, sums, k_t);  // the student's sums stay for the gradient
  matrices(student, options.tau, sums, k_s);
  std::copy_n(k_s, matrix, d);
  *loss.ptr<float>() = static_cast<float>(compare_matrices(options, images, c, d, k_t));
  if (!gstudent.defined()) return;
  const Workspace floats(static_cast<std::size_t>(c * (2 * c + 3)) * sizeof(float));
  float* f = floats.as<float>();
  const Slopes slopes{f, f + c * c, f + 2 * c * c, f + 2 * c * c + c, f + 2 * c * c + 2 * c};
  const std::int64_t pixels = student.h() * student.w();
  visit_fast_dtype("icsd", student.dtype, [&](auto tag) {
    using S = decltype(tag);
    for (std::int64_t n = 0; n < images; ++n) {
      fill_slopes(c, options.tau, Sums(sums + n * Sums::slots(c), c), d + n * c * c, k_s + n * c * c, slopes);
      image_gradient(student.ptr<S>() + n * pixels * c, pixels, c, options.tau, slopes,
                     gstudent.ptr<S>() + n * pixels * c);
    }
  });
}

void inter_class_similarity_cpu(const TensorView& logits, double tau, const TensorView& matrix) {
  const std::int64_t c = logits.c();
  const Workspace doubles(static_cast<std::size_t>(logits.n() * (Sums::slots(c) + c * c)) * sizeof(double));
  double* k = doubles.as<double>() + logits.n() * Sums::slots(c);
  matrices(logits, tau, doubles.as<double>(), k);
  average_matrices(logits.n(), c * c, k);
  for (std::int64_t i = 0; i < c * c; ++i) matrix.ptr<float>()[i] = static_cast<float>(k[i]);
}

}  // namespace limbeck::distill
