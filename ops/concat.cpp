// concat: each input is copied into its part of the output. In channels-last memory the parts of a pixel follow one
// another, so joining channels copies one run of C_i elements per pixel and input.
#include "ops/concat.h"

#include "core/autograd.h"
#include "ops/copy.h"
#include "ops/copy_kernels.h"
#include "ops/observer.h"
#include "ops/slice_view.h"

namespace limbeck::ops {
namespace {

struct ConcatNode final : Node {
  std::size_t dim = 0;
  PooledVector<std::int64_t> sizes;  // of the inputs along dim
  const char* name() const override { return "concat"; }
  void backward(std::span<const Tensor> gy, std::span<Tensor> gx) override {
    std::int64_t begin = 0;
    for (std::size_t i = 0; i < sizes.size(); ++i) {
      const Tensor part = slice_view(gy[0], dim, begin, begin + sizes[i]);
      begin += sizes[i];
      if (!needs_input_grad(i)) continue;
      gx[i] = Tensor::empty(part.shape(), part.dtype(), part.device());
      kCopy(part.device(), part.dtype(), part.view(), gx[i].view());
    }
  }
  void release() override {}
};

}  // namespace

Tensor concat(std::span<const Tensor> tensors, std::int64_t dim) {
  LIMBECK_CHECK(!tensors.empty(), "concat", "got no tensors");
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    LIMBECK_CHECK(tensors[i].defined(), "concat", "tensor {} of {} is undefined", i, tensors.size());
  }
  const PooledVector<Tensor> parts = autocast_widest(tensors);
  const Tensor& first = parts.front();
  const std::size_t d = check_dim("concat", dim, first.ndim());

  Shape shape = first.shape();
  PooledVector<std::int64_t> sizes;
  for (std::size_t i = 0; i < parts.size(); ++i) {
    Shape expected = first.shape();
    if (parts[i].ndim() == first.ndim()) expected[d] = parts[i].shape()[d];
    LIMBECK_CHECK(parts[i].shape() == expected, "concat",
                  "tensor {} has shape {}, expected {} except along dimension {} as tensor 0", i, parts[i].shape(),
                  first.shape(), d);
    LIMBECK_CHECK(parts[i].dtype() == first.dtype(), "concat",
                  "tensor {} is {}, expected {} as tensor 0; use ops::cast, or an AutocastGuard", i,
                  name_of(parts[i].dtype()), name_of(first.dtype()));
    sizes.push_back(parts[i].shape()[d]);
    if (i > 0) shape[d] += sizes.back();
  }

  Tensor y = Tensor::empty(shape, first.dtype(), first.device());
  std::int64_t begin = 0;
  for (std::size_t i = 0; i < parts.size(); ++i) {
    kCopy(y.device(), y.dtype(), parts[i].view(), slice_view(y, d, begin, begin + sizes[i]).view());
    begin += sizes[i];
  }

  PooledVector<const Tensor*> inputs;
  for (const Tensor& t : parts) inputs.push_back(&t);
  if (auto node = record<ConcatNode>(std::span<const Tensor* const>(inputs))) {
    node->dim = d;
    node->sizes = std::move(sizes);
    node->attach(y);
  }
  observe("concat", inputs, y, DimCall{static_cast<std::int64_t>(d)});
  return y;
}

}  // namespace limbeck::ops
