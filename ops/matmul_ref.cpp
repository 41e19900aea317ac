// Reference matrix product: three loops in the order of the formula, accumulated in double.
#include "ops/matmul_kernels.h"

namespace limbeck::ops {
namespace {

/// Matrix number `index` of a batch; the matrix itself if there is no batch.
TensorView matrix(const TensorView& v, std::int64_t index) {
  if (v.shape.size() == 2) return v;
  auto* data = static_cast<char*>(v.data) + index * v.strides[0] * static_cast<std::int64_t>(size_of(v.dtype));
  return {data, v.dtype, {v.shape[1], v.shape[2]}, {v.strides[1], v.strides[2]}};
}

}  // namespace

void matmul_ref(const TensorView& a, const TensorView& b, const TensorView& bias, const TensorView& c) {
  visit_reference_dtype("matmul", a.dtype, [&](auto tag) {
    using T = decltype(tag);
    const std::int64_t batches = c.shape.size() == 3 ? c.shape[0] : 1;
    for (std::int64_t batch = 0; batch < batches; ++batch) {
      const TensorView am = matrix(a, batch);
      const TensorView bm = matrix(b, batch);
      const TensorView cm = matrix(c, batch);
      for (std::int64_t m = 0; m < cm.shape[0]; ++m) {
        for (std::int64_t n = 0; n < cm.shape[1]; ++n) {
          double total = bias.defined() ? static_cast<double>(bias.at<T>(n)) : 0.0;
          for (std::int64_t k = 0; k < am.shape[1]; ++k) {
            total += static_cast<double>(am.at<T>(m, k)) * static_cast<double>(bm.at<T>(k, n));
          }
          cm.at<T>(m, n) = static_cast<T>(total);
        }
      }
    }
  });
}

}  // namespace limbeck::ops
