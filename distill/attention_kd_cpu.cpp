// Vectorised steps of the attention losses for channels-last maps: a pixel's channels lie together, so its energy is a
// dot product of a row with itself and its gradient a scaled row. Each reads the map once.
#include "core/parallel.h"
#include "distill/attention_kd_kernels.h"
#include "distill/row_math.h"
#include "ops/map_view.h"

namespace limbeck::distill {

void energy_cpu(const TensorView& x, const TensorView& q) {
  const std::int64_t c = x.c();
  visit_fast_dtype("attention_kd", x.dtype, [&](auto tag) {
    using T = decltype(tag);
    parallel_for(ops::pixel_count(x), pixel_grain(c), [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = begin; i < end; ++i) {
        const T* row = x.ptr<T>() + i * c;
        q.ptr<double>()[i] = static_cast<double>(row_dot(row, row, c)) / static_cast<double>(c);
      }
    });
  });
}

void energy_backward_cpu(const TensorView& x, const TensorView& gq, const TensorView& gx) {
  const std::int64_t c = x.c();
  visit_fast_dtype("attention_kd", x.dtype, [&](auto tag) {
    using T = decltype(tag);
    parallel_for(ops::pixel_count(x), pixel_grain(c), [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = begin; i < end; ++i) {
        const double factor = 2 * gq.ptr<double>()[i] / static_cast<double>(c);
        row_scale(static_cast<float>(factor), x.ptr<T>() + i * c, gx.ptr<T>() + i * c, c);
      }
    });
  });
}

}  // namespace limbeck::distill
