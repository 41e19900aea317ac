// Matrix product by oneDNN. It reads both orders of a matrix, so transposed views need no copy; any other layout is
// copied first.
#include <array>

#include "core/onednn/primitive.h"
#include "ops/matmul_kernels.h"

namespace limbeck::ops {
namespace {

using namespace onednn;  // NOLINT(google-build-using-namespace): one backend per file

/// Shape, types and layouts of one product; the whole identity of a primitive.
struct MatmulKey {
  std::array<std::int64_t, 3> a_shape, b_shape;  // batch (1 without), rows, columns
  std::array<std::int64_t, 3> a_strides, b_strides;
  std::int64_t batched;
  std::int64_t input_type, output_type, bias_type;  // DType; bias -1: none
};

/// Strides as oneDNN wants them: those of dimensions of size 1 are free for us, but checked by it.
Strides plain_strides(const TensorView& v) {
  Strides s = v.strides;
  const std::size_t rank = s.size();
  const std::size_t row = rank - 2;
  const std::size_t column = rank - 1;
  if (v.shape[row] == 1) s[row] = v.shape[column] * s[column];
  if (rank == 3 && v.shape[0] == 1) s[0] = v.shape[1] * v.shape[2];
  return s;
}

/// True if rows or columns are consecutive and nothing overlaps.
bool is_readable(const TensorView& v, const Strides& s) {
  const std::size_t row = s.size() - 2;
  const std::size_t column = s.size() - 1;
  const bool by_rows = s[column] == 1 && s[row] >= v.shape[column];
  const bool by_columns = s[row] == 1 && s[column] >= v.shape[row];
  if (!by_rows && !by_columns) return false;
  return s.size() == 2 || s[0] >= (by_rows ? s[row] * v.shape[row] : s[column] * v.shape[column]);
}

/// An operand in a layout that oneDNN reads; owns a copy if one was needed.
struct Operand {
  explicit Operand(const TensorView& v) : view(v) {
    view.strides = plain_strides(v);
    if (is_readable(view, view.strides)) return;
    copy = Tensor::empty_strided(v.shape, row_major_strides(v.shape), v.dtype);
    copy_view(v, copy.view());
    view = copy.view();
    view.strides = plain_strides(view);
  }
  TensorView view;
  Tensor copy;
};

MatmulKey make_key(const TensorView& a, const TensorView& b, const TensorView& bias, const TensorView& c) {
  MatmulKey key{};
  const std::size_t lead = 3 - a.shape.size();
  for (std::size_t d = 0; d < a.shape.size(); ++d) {
    key.a_shape[lead + d] = a.shape[d];
    key.b_shape[lead + d] = b.shape[d];
    key.a_strides[lead + d] = a.strides[d];
    key.b_strides[lead + d] = b.strides[d];
  }
  key.batched = lead == 0 ? 1 : 0;
  key.input_type = static_cast<std::int64_t>(a.dtype);
  key.output_type = static_cast<std::int64_t>(c.dtype);
  key.bias_type = bias.defined() ? static_cast<std::int64_t>(bias.dtype) : -1;
  return key;
}

}  // namespace

void matmul_onednn(const TensorView& a_in, const TensorView& b_in, const TensorView& bias_in, const TensorView& c) {
  const Operand a(a_in);
  const Operand b(b_in);
  Tensor bias_copy;  // oneDNN wants a bias without gaps
  TensorView bias = bias_in;
  if (bias.defined() && bias.shape[0] > 1 && bias.strides[0] != 1) {
    bias_copy = Tensor::empty(bias.shape, bias.dtype);
    copy_view(bias_in, bias_copy.view());
    bias = bias_copy.view();
  }
  // The output is the glue's: dense row-major, or its transpose.
  TensorView out = c;
  out.strides = plain_strides(c);
  LIMBECK_CHECK(is_readable(out, out.strides), "matmul", "internal: result with strides {}", c.strides);

  thread_local LruCache<MatmulKey, Primitive> cache(kPrimitiveCacheSize);
  Primitive& product = cache.get(make_key(a.view, b.view, bias, out), [&] {
    const Desc ad = desc_of(a.view);
    const Desc bd = desc_of(b.view);
    const Desc cd = desc_of(out);
    Shape bias_shape = out.shape;  // oneDNN broadcasts a bias of the rank of the result
    std::fill(bias_shape.begin(), bias_shape.end() - 1, 1);
    const Desc bias_desc =
        bias.defined() ? strided_desc(bias_shape, row_major_strides(bias_shape), bias.dtype) : Desc();
    const auto pd = compat::matmul(engine(), ad, bd, bias_desc, cd, Attributes().build());
    if (!bias.defined()) {
      return Primitive(pd, {{DNNL_ARG_SRC, ad}, {DNNL_ARG_WEIGHTS, bd}, {DNNL_ARG_DST, cd}});
    }
    return Primitive(pd, {{DNNL_ARG_SRC, ad}, {DNNL_ARG_WEIGHTS, bd}, {DNNL_ARG_BIAS, bias_desc}, {DNNL_ARG_DST, cd}});
  });
  if (bias.defined()) {
    product.run({{DNNL_ARG_SRC, a.view.data},
                 {DNNL_ARG_WEIGHTS, b.view.data},
                 {DNNL_ARG_BIAS, bias.data},
                 {DNNL_ARG_DST, c.data}});
  } else {
    product.run({{DNNL_ARG_SRC, a.view.data}, {DNNL_ARG_WEIGHTS, b.view.data}, {DNNL_ARG_DST, c.data}});
  }
}

}  // namespace limbeck::ops
