// What this is: engine, stream and descriptors; see core/onednn/engine.h.
#include "core/onednn/engine.h"

namespace limbeck::onednn {

const dnnl::engine& engine() {
  // Leaked on purpose: thread-local caches may outlive any destructor order.
  static const auto* instance = new dnnl::engine(dnnl::engine::kind::cpu, 0);
  return *instance;
}

dnnl::stream& stream() {
  thread_local dnnl::stream instance(engine());
  return instance;
}

dnnl::memory::data_type type_of(DType dtype) {
  switch (dtype) {
    case DType::kF32: return dnnl::memory::data_type::f32;
    case DType::kBF16: return dnnl::memory::data_type::bf16;
    case DType::kI32: return dnnl::memory::data_type::s32;
    case DType::kU8: return dnnl::memory::data_type::u8;
    default: break;
  }
  fail("onednn", "no kernels for {}, expected f32 or bf16; f64 runs the reference kernels", name_of(dtype));
}

Dims dims_of(const Shape& shape) { return {shape.begin(), shape.end()}; }

Desc strided_desc(const Shape& shape, const Strides& strides, DType dtype) {
  return {dims_of(shape), type_of(dtype), dims_of(strides)};
}

Desc desc_of(const TensorView& view) { return strided_desc(view.shape, view.strides, view.dtype); }

Desc dense_desc(const Shape& shape, DType dtype) { return strided_desc(shape, default_strides(shape), dtype); }

Desc vector_desc(std::int64_t count, DType dtype) { return strided_desc({count}, {1}, dtype); }

}  // namespace limbeck::onednn
