#include "distill/draws.h"

#include "core/cuda.h"
#include "core/error.h"

namespace limbeck::distill {
namespace {

Tensor draw(const Shape& shape, const Generator& generator, bool mask, double keep, Device device) {
  const Tensor out = Tensor::empty_strided(shape, row_major_strides(shape), DType::kF32, device);
  if (device.is_cuda()) {
    cuda::activate(device, "draw");
    draw_cuda(generator, mask, keep, out.view());
  } else if (device.is_cpu()) {
    Generator numbers = generator;
    auto* p = out.data<float>();
    for (std::int64_t i = 0; i < out.numel(); ++i) {
      const double u = numbers.uniform();
      p[i] = mask ? (u <= keep ? 1.0F : 0.0F) : static_cast<float>(u);
    }
  }
  return out;
}

}  // namespace

Tensor draw_uniform(const Shape& shape, const Generator& generator, Device device) {
  return draw(shape, generator, false, 0, device);
}

Tensor draw_mask(const Shape& shape, double keep, const Generator& generator, DType dtype, Device device) {
  LIMBECK_CHECK(shape.size() == 4 && shape[1] == 1, "draw_mask", "got {}, expected [N,1,H,W]", shape);
  const Tensor mask = draw(shape, generator, true, keep, device);
  return dtype == DType::kF32 ? mask : mask.copy_as(dtype);
}

}  // namespace limbeck::distill
