// What this is: the choice of element type and vector width that nearly every kernel on maps begins with.
#pragma once

#include <utility>

#include "core/cuda/kernel.cuh"

namespace limbeck::cuda {

/// Calls f(T(), std::integral_constant<int, V>()) with the element type (f32 or bf16) and the vectors of visit_lanes() for rows of
/// `row` elements. `pointers`: of all operands, for their alignment; null is aligned.
template <class F, class... P>
void visit_vectors(const char* op, DType dtype, std::int64_t row, F&& f, P*... pointers) {
  visit_fast_dtype(op, dtype, [&](auto tag) {
    visit_lanes<decltype(tag)>(
        row, [&](auto lanes) { f(tag, lanes); }, pointers...);
  });
}

}  // namespace limbeck::cuda
