// pad2d: the border is filled, the inside copied; every element is written once.
#include "ops/pad.h"

#include "core/autograd.h"
#include "ops/copy_kernels.h"
#include "ops/observer.h"
#include "ops/slice_view.h"

namespace limbeck::ops {
namespace {

constexpr std::size_t kRows = 2;     // dimension H
constexpr std::size_t kColumns = 3;  // dimension W

Tensor inside(const Tensor& padded, const Pad2d& pad) {
  const Tensor rows = slice_view(padded, kRows, pad.top, padded.shape()[kRows] - pad.bottom);
  return slice_view(rows, kColumns, pad.left, padded.shape()[kColumns] - pad.right);
}

struct PadNode final : Node {
  Pad2d pad;
  const char* name() const override { return "pad2d"; }
  void backward(std::span<const Tensor> gy, std::span<Tensor> gx) override {
    const Tensor part = inside(gy[0], pad);
    gx[0] = Tensor::empty(part.shape(), part.dtype(), part.device());
    kCopy(part.device(), part.dtype(), part.view(), gx[0].view());
  }
  void release() override {}
};

}  // namespace

Tensor pad2d(const Tensor& x, const Pad2d& pad, double value) {
  LIMBECK_CHECK(x.defined() && x.ndim() == 4, "pad2d", "got {}, expected a tensor [N,C,H,W]", x.describe());
  LIMBECK_CHECK(pad.left >= 0 && pad.right >= 0 && pad.top >= 0 && pad.bottom >= 0, "pad2d",
                "got a border of {} left, {} right, {} top, {} bottom, expected none below 0; use slice to cut",
                pad.left, pad.right, pad.top, pad.bottom);
  Shape shape = x.shape();
  shape[kRows] += pad.top + pad.bottom;
  shape[kColumns] += pad.left + pad.right;
  Tensor y = Tensor::empty(shape, x.dtype(), x.device());

  // The bands above and below over the full width, then those at the sides.
  slice_view(y, kRows, 0, pad.top).fill_(value);
  slice_view(y, kRows, shape[kRows] - pad.bottom, shape[kRows]).fill_(value);
  const Tensor middle = slice_view(y, kRows, pad.top, shape[kRows] - pad.bottom);
  slice_view(middle, kColumns, 0, pad.left).fill_(value);
  slice_view(middle, kColumns, shape[kColumns] - pad.right, shape[kColumns]).fill_(value);
  kCopy(x.device(), x.dtype(), x.view(), inside(y, pad).view());

  if (auto node = record<PadNode>({&x})) {
    node->pad = pad;
    node->attach(y);
  }
  observe("pad2d", {&x}, y, PadCall{pad, value});
  return y;
}

}  // namespace limbeck::ops
