// What this is: the glue of the resize ops: checks, allocation, autograd nodes.
// Read next: ops/interpolate_kernels.h.
#include "ops/interpolate.h"

#include "core/autograd.h"
#include "ops/copy.h"
#include "ops/interpolate_kernels.h"
#include "ops/observer.h"

namespace limbeck::ops {
namespace {

void check_size(const char* op, std::array<std::int64_t, 2> size) {
  LIMBECK_CHECK(size[0] >= 1 && size[1] >= 1, op, "got an output size of {} x {}, expected at least 1 x 1", size[0],
                size[1]);
}

struct ResizeBilinearNode final : Node {
  Shape x_shape;
  bool align_corners = false;
  const char* name() const override { return "resize_bilinear"; }
  void release() override {}
  void backward(std::span<const Tensor> gy, std::span<Tensor> gx) override {
    const Tensor g = gy[0].dense();
    gx[0] = Tensor::empty(x_shape, g.dtype(), g.device());
    kResizeBilinearBackward(g.device(), g.dtype(), g.view(), align_corners, gx[0].view());
  }
};

/// A [N,H,W] map seen as [N,1,H,W].
TensorView as_one_channel(TensorView v) {
  if (v.shape.size() == 3) {
    v.strides = {v.strides[0], 0, v.strides[1], v.strides[2]};
    v.shape = {v.shape[0], 1, v.shape[1], v.shape[2]};
  }
  return v;
}

struct ResizeNearestNode final : Node {
  Shape x_shape;
  const char* name() const override { return "resize_nearest"; }
  void release() override {}
  void backward(std::span<const Tensor> gy, std::span<Tensor> gx) override {
    const Tensor g = gy[0].dense();
    gx[0] = Tensor::empty(x_shape, g.dtype(), g.device());
    kResizeNearestBackward(g.device(), g.dtype(), as_one_channel(g.view()), as_one_channel(gx[0].view()));
  }
};

}  // namespace

Tensor resize_bilinear(const Tensor& x, std::array<std::int64_t, 2> size, bool align_corners) {
  constexpr const char* kOp = "resize_bilinear";
  check_float(kOp, x);
  LIMBECK_CHECK(x.ndim() == 4 && x.numel() > 0, kOp, "got an input of shape {}, expected a non-empty [N,C,H,W]",
                x.shape());
  check_size(kOp, size);
  if (x.size(2) == size[0] && x.size(3) == size[1]) return x;
  const Tensor y = Tensor::empty({x.size(0), x.size(1), size[0], size[1]}, x.dtype(), x.device());
  const Tensor xd = x.dense();
  kResizeBilinear(x.device(), x.dtype(), xd.view(), align_corners, y.view());
  if (auto node = record<ResizeBilinearNode>({&x})) {
    node->x_shape = x.shape();
    node->align_corners = align_corners;
    node->attach(y);
  }
  observe(kOp, {&x}, y, ResizeCall{align_corners});
  return y;
}

Tensor resize_nearest(const Tensor& x, std::array<std::int64_t, 2> size) {
  constexpr const char* kOp = "resize_nearest";
  LIMBECK_CHECK(x.defined(), kOp, "got an undefined tensor");
  LIMBECK_CHECK((x.ndim() == 3 || x.ndim() == 4) && x.numel() > 0, kOp,
                "got an input of shape {}, expected a non-empty [N,C,H,W] or [N,H,W]", x.shape());
  check_size(kOp, size);
  if (x.size(-2) == size[0] && x.size(-1) == size[1]) return x;
  Shape shape = x.shape();
  shape[shape.size() - 2] = size[0];
  shape[shape.size() - 1] = size[1];
  const Tensor y = Tensor::empty(shape, x.dtype(), x.device());
  const Tensor xd = x.dense();
  kResizeNearest(x.device(), x.dtype(), as_one_channel(xd.view()), as_one_channel(y.view()));
  if (auto node = record<ResizeNearestNode>({&x})) {
    node->x_shape = x.shape();
    node->attach(y);
  }
  observe(kOp, {&x}, y, ResizeCall{});
  return y;
}

}  // namespace limbeck::ops
