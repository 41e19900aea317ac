// What this is: the oneDNN engine and stream of limbeck, and the translation of shapes and types into its descriptors.
// What it is not: primitives and their caches (core/onednn/primitive.h).
// Read next: core/onednn/primitive.h.
#pragma once

#include "core/onednn/compat.h"
#include "core/tensor.h"

namespace limbeck::onednn {

using Dims = compat::Dims;
using Desc = compat::Desc;
using compat::ConvGeometry;

/// The CPU engine of the process. Created on first use and never destroyed, because cached primitives refer to it.
[[nodiscard]] const dnnl::engine& engine();
/// The in-order stream of the calling thread. CPU execution is synchronous: execute() returns when the result is there.
[[nodiscard]] dnnl::stream& stream();

/// f32, bf16, i32 and u8; throws for types that oneDNN does not compute with (f64, i64, bool).
[[nodiscard]] dnnl::memory::data_type type_of(DType dtype);
[[nodiscard]] Dims dims_of(const Shape& shape);

/// Descriptor with exactly the shape and strides of the view.
[[nodiscard]] Desc desc_of(const TensorView& view);
/// Descriptor of a dense tensor in limbeck's default layout (4-D: channels-last).
[[nodiscard]] Desc dense_desc(const Shape& shape, DType dtype);
/// Descriptor with given strides, e.g. the two transposed readings of a matrix.
[[nodiscard]] Desc strided_desc(const Shape& shape, const Strides& strides, DType dtype);
/// A one-dimensional descriptor of `count` elements, e.g. a bias.
[[nodiscard]] Desc vector_desc(std::int64_t count, DType dtype);

}  // namespace limbeck::onednn
