// slice: a view forward; backward puts the gradient into a zero tensor.
#include "ops/slice.h"

#include "core/autograd.h"
#include "ops/copy.h"
#include "ops/copy_kernels.h"
#include "ops/slice_view.h"

namespace limbeck::ops {
namespace {

struct SliceNode final : Node {
  Shape shape;  // of the input
  std::size_t dim = 0;
  std::int64_t start = 0, end = 0;
  const char* name() const override { return "slice"; }
  void backward(std::span<const Tensor> gy, std::span<Tensor> gx) override {
    gx[0] = Tensor::zeros(shape, gy[0].dtype(), gy[0].device());
    kCopy(gy[0].device(), gy[0].dtype(), gy[0].view(), slice_view(gx[0], dim, start, end).view());
  }
  void release() override {}
};

}  // namespace

Tensor slice(const Tensor& x, std::int64_t dim, std::int64_t start, std::int64_t end) {
  LIMBECK_CHECK(x.defined(), "slice", "got an undefined tensor");
  const std::size_t d = check_dim("slice", dim, x.ndim());
  const std::int64_t size = x.shape()[d];
  const std::int64_t first = start < 0 ? start + size : start;
  const std::int64_t last = end < 0 ? end + size : end;
  LIMBECK_CHECK(0 <= first && first <= last && last <= size, "slice",
                "got range {}..{} of dimension {} of shape {}, expected 0 <= start <= end <= {}", start, end, d,
                x.shape(), size);
  Tensor y = slice_view(x, d, first, last);
  if (auto node = record<SliceNode>({&x})) {
    node->shape = x.shape();
    node->dim = d;
    node->start = first;
    node->end = last;
    node->attach(y);
  }
  return y;
}

}  // namespace limbeck::ops
