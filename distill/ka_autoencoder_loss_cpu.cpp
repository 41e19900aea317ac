// Vectorised objective of the autoencoder for dense maps: one sweep over the map and its reconstruction, one over the
// code. Both are sums over numbers whose order does not matter, so the maps count as flat arrays.
#include "distill/flat_sum.h"
#include "distill/ka_autoencoder_loss_kernels.h"

namespace limbeck::distill {
namespace {

/// Sum of (r - map)^2; gr = slope (r - map), or null.
template <class R, class T>
float squared_errors(const R* r, const T* map, R* gr, std::int64_t count, float slope) {
  float sum = 0;
  if (gr == nullptr) {
#pragma omp simd reduction(+ : sum)
    for (std::int64_t i = 0; i < count; ++i) {
      const float d = static_cast<float>(r[i]) - static_cast<float>(map[i]);
      sum += d * d;
    }
  } else {
#pragma omp simd reduction(+ : sum)
    for (std::int64_t i = 0; i < count; ++i) {
      const float d = static_cast<float>(r[i]) - static_cast<float>(map[i]);
      sum += d * d;
      gr[i] = static_cast<R>(slope * d);
    }
  }
  return sum;
}

/// Sum of |e|; ge = slope sign(e), or null.
template <class E>
float magnitudes(const E* e, E* ge, std::int64_t count, float slope) {
  float sum = 0;
  if (ge == nullptr) {
#pragma omp simd reduction(+ : sum)
    for (std::int64_t i = 0; i < count; ++i) {
      const auto v = static_cast<float>(e[i]);
      sum += v < 0.0F ? -v : v;
    }
  } else {
#pragma omp simd reduction(+ : sum)
    for (std::int64_t i = 0; i < count; ++i) {
      const auto v = static_cast<float>(e[i]);
      sum += v < 0.0F ? -v : v;
      ge[i] = static_cast<E>(v < 0.0F ? -slope : v > 0.0F ? slope : v);  // 0 and NaN go through as they are
    }
  }
  return sum;
}

/// The place of number i, or null.
template <class T>
T* from(T* p, std::int64_t i) {
  return p == nullptr ? nullptr : p + i;
}

}  // namespace

void ka_autoencoder_loss_cpu(const TensorView& reconstruction, const TensorView& code, const TensorView& map,
                             const TensorView& loss, const TensorView& greconstruction, const TensorView& gcode,
                             const KaAutoencoderOptions& options) {
  constexpr const char* kLoss = "ka_autoencoder_loss";
  const std::int64_t count = map.numel();
  const double factor = ka_code_factor(code, options);
  double total = 0;
  visit_fast_dtype(kLoss, reconstruction.dtype, [&](auto reconstruction_tag) {
    visit_fast_dtype(kLoss, map.dtype, [&](auto map_tag) {
      using R = decltype(reconstruction_tag);
      const R* r = reconstruction.ptr<R>();
      const auto* t = map.ptr<decltype(map_tag)>();
      R* gr = greconstruction.defined() ? greconstruction.ptr<R>() : nullptr;
      const auto slope = static_cast<float>(2 / static_cast<double>(count));
      const auto sums = flat_sums<1>(count, [=](std::int64_t begin, std::int64_t end) {
        return std::array{squared_errors(r + begin, t + begin, from(gr, begin), end - begin, slope)};
      });
      total = sums[0] / static_cast<double>(count);
    });
  });
  visit_fast_dtype(kLoss, code.dtype, [&](auto tag) {
    using E = decltype(tag);
    const E* e = code.ptr<E>();
    E* ge = gcode.defined() ? gcode.ptr<E>() : nullptr;
    const auto slope = static_cast<float>(factor);
    const auto sums = flat_sums<1>(code.numel(), [=](std::int64_t begin, std::int64_t end) {
      return std::array{magnitudes(e + begin, from(ge, begin), end - begin, slope)};
    });
    total += factor * sums[0];
  });
  *loss.ptr<float>() = static_cast<float>(total);
}

}  // namespace limbeck::distill
