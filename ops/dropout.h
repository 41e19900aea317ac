// What this is: dropout of single elements and of whole channels.
// Read next: ops/dropout.cpp, core/rng.h.
//
// Note [dropout masks]
//   Whether element i is kept is a function of (seed, stream, offset + i), i being its logical row-major (NCHW) index,
//   whatever the memory order, the number of threads or the device. Backward draws the mask again: only the generator's
//   position is kept, no mask is stored.
#pragma once

#include "core/rng.h"
#include "core/tensor.h"

namespace limbeck::ops {

/// Sets elements to zero with probability p and scales the others so that the expectation stays.
/// Formula:  y_i = m_i x_i / (1 - p), m_i = 0 with probability p, else 1
/// Shapes:   x any; returns the same shape
/// Types:    f32/bf16/f64(ref). Autocast: keep.
/// Gradient: of x: m gy / (1 - p), with the same mask. Saves the generator's position.
/// Throws:   p outside [0, 1].
/// Source:   Srivastava et al., JMLR 15 (2014), in the inverted form: with training == false y is x itself.
[[nodiscard]] Tensor dropout(const Tensor& x, double p, bool training, Generator& generator);

/// Sets whole channels of a sample to zero with probability p and scales the others.
/// Formula:  y[n,c,:,:] = m[n,c] x[n,c,:,:] / (1 - p)
/// Shapes:   x [N,C,H,W] (or [N,C]); returns the same shape
/// Types:    as dropout
/// Gradient: as dropout
/// Throws:   p outside [0, 1]; x of another rank.
/// Source:   Tompson et al., CVPR 2015, section 3.2.
[[nodiscard]] Tensor dropout2d(const Tensor& x, double p, bool training, Generator& generator);

}  // namespace limbeck::ops
