// What this is: random numbers of losses, made where they are used: on a GPU by a kernel, so that nothing is sent there and a
//   step can be recorded. The numbers are those of Generator::uniform(), one after the other, on every device.
#pragma once

#include "core/rng.h"
#include "core/tensor.h"

namespace limbeck::distill {

/// Uniform in [0, 1], rounded to f32.
/// Shapes:  returns f32 `shape`, filled in row-major order
[[nodiscard]] Tensor draw_uniform(const Shape& shape, const Generator& generator, Device device);

/// 1 where a number of draw_uniform() before rounding is at most `keep`, else 0.
/// Shapes:  returns `shape`, filled in row-major order; one row or one channel, so that this is the memory order too
[[nodiscard]] Tensor draw_mask(const Shape& shape, double keep, const Generator& generator, DType dtype, Device device);

/// The numbers of draw_uniform(), or with `mask` those of draw_mask(), into consecutive memory.
/// Shapes:  out any f32, dense
void draw_cuda(const Generator& generator, bool mask, double keep, const TensorView& out);

}  // namespace limbeck::distill
