// Vectorised objective of the autoencoder for dense maps: one sweep over the map and its reconstruction, one over the
// code. Both are sums over numbers whose order does not matter, so the maps count as flat arrays.
#include "distill/flat_sum.h"
#include "distill/ka_autoencoder_loss_kernels.h"

namespace limbeck::distill {
namespace {

template <class R, class T>
double squared_error(const R* r, const T* map, R* gr, std::int64_t count) {
  const auto slope = static_cast<float>(2 / static_cast<double>(count));
  return flat_sums<1>(count, [=](std::int64_t begin, std::int64_t end) {
    float sum = 0;
    if (gr == nullptr) {
#pragma omp simd reduction(+ : sum)
      for (std::int64_t i = begin; i < end; ++i) {
        const float d = static_cast<float>(r[i]) - static_cast<float>(map[i]);
        sum += d * d;
      }
    } else {
#pragma omp simd reduction(+ : sum)
      for (std::int64_t i = begin; i < end; ++i) {
        const float d = static_cast<float>(r[i]) - static_cast<float>(map[i]);
        sum += d * d;
        gr[i] = static_cast<R>(slope * d);
      }
    }
    return std::array{sum};
  })[0];
}

template <class E>
double magnitudes(const E* e, E* ge, std::int64_t count, float slope) {
  return flat_sums<1>(count, [=](std::int64_t begin, std::int64_t end) {
    float sum = 0;
    if (ge == nullptr) {
#pragma omp simd reduction(+ : sum)
      for (std::int64_t i = begin; i < end; ++i) {
        const auto v = static_cast<float>(e[i]);
        sum += v < 0.0F ? -v : v;
      }
    } else {
#pragma omp simd reduction(+ : sum)
      for (std::int64_t i = begin; i < end; ++i) {
        const auto v = static_cast<float>(e[i]);
        sum += v < 0.0F ? -v : v;
        // 0 and NaN go through as they are
        ge[i] = static_cast<E>(v < 0.0F ? -slope : v > 0.0F ? slope : v);
      }
    }
    return std::array{sum};
  })[0];
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
      R* gr = greconstruction.defined() ? greconstruction.ptr<R>() : nullptr;
      total =
          squared_error(reconstruction.ptr<R>(), map.ptr<decltype(map_tag)>(), gr, count) / static_cast<double>(count);
    });
  });
  visit_fast_dtype(kLoss, code.dtype, [&](auto tag) {
    using E = decltype(tag);
    E* ge = gcode.defined() ? gcode.ptr<E>() : nullptr;
    total += factor * magnitudes(code.ptr<E>(), ge, code.numel(), static_cast<float>(factor));
  });
  *loss.ptr<float>() = static_cast<float>(total);
}

}  // namespace limbeck::distill
