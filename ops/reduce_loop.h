// What this is: the plain double loop of a reduction, "for each result, for each term", for any strides. The reference
//   kernels use it, and the fast ones for shapes that have no better plan.
// Read next: ops/reduce_ref.cpp.
#pragma once

#include <array>
#include <cstdint>

#include "core/tensor.h"

namespace limbeck::ops {

/// Splits the dimensions of a reduction into kept and reduced ones.
/// Shapes:   that of the input; the result repeated over it with stride 0
class ReduceLoop {
 public:
  /// `y` has the shape of the input and stride 0 along the reduced dimensions.
  explicit ReduceLoop(const TensorView& y) : shape_(y.shape) {
    for (std::size_t d = 0; d < y.shape.size(); ++d) {
      const bool is_reduced = y.strides[d] == 0 && y.shape[d] != 1;
      if (is_reduced) {
        reduced_[reduced_count_++] = d;
        terms_ *= y.shape[d];
      } else {
        kept_[kept_count_++] = d;
        results_ *= y.shape[d];
      }
    }
  }
  [[nodiscard]] std::int64_t results() const noexcept { return results_; }
  [[nodiscard]] std::int64_t terms() const noexcept { return terms_; }

  /// Offset in `v` of result number `i`.
  [[nodiscard]] std::int64_t result(const TensorView& v, std::int64_t i) const noexcept {
    return offset(v, kept_, kept_count_, i);
  }
  /// Offset in `v`, from a result's offset, of its term number `i`.
  [[nodiscard]] std::int64_t term(const TensorView& v, std::int64_t i) const noexcept {
    return offset(v, reduced_, reduced_count_, i);
  }

 private:
  using Dims = std::array<std::size_t, kMaxDims>;
  [[nodiscard]] std::int64_t offset(const TensorView& v, const Dims& dims, std::size_t count,
                                    std::int64_t i) const noexcept {
    std::int64_t at = 0;
    for (std::size_t k = count; k-- > 0;) {
      at += i % shape_[dims[k]] * v.strides[dims[k]];
      i /= shape_[dims[k]];
    }
    return at;
  }

  Shape shape_;
  Dims kept_{}, reduced_{};
  std::size_t kept_count_ = 0, reduced_count_ = 0;
  std::int64_t results_ = 1, terms_ = 1;
};

}  // namespace limbeck::ops
