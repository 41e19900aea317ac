// What this is: the glue of pooling: checks, output sizes, autograd nodes.
// Read next: ops/pool2d_kernels.h.
#include "ops/pool2d.h"

#include "core/autograd.h"
#include "ops/copy.h"
#include "ops/observer.h"
#include "ops/pool2d_kernels.h"

namespace limbeck::ops {
namespace {

void check_input(const char* op, const Tensor& x) {
  check_float(op, x);
  LIMBECK_CHECK(x.ndim() == 4 && x.numel() > 0, op, "got an input of shape {}, expected a non-empty [N,C,H,W]",
                x.shape());
}

/// Axis `d` (0: rows, 1: columns) of a pooling with a kernel.
PoolAxis strided_axis(const char* op, const Tensor& x, const Pool2dOptions& options, std::size_t d) {
  const std::int64_t in = x.shape()[2 + d];
  const std::int64_t kernel = options.kernel[d];
  const std::int64_t stride = options.stride[d] == 0 ? kernel : options.stride[d];
  const std::int64_t padding = options.padding[d];
  LIMBECK_CHECK(kernel >= 1 && stride >= 1, op, "got kernel {} and stride {}, expected both to be at least 1", kernel,
                stride);
  LIMBECK_CHECK(padding >= 0 && 2 * padding <= kernel, op,
                "got padding {}, expected 0..{}: more than half of the kernel ({}) leaves windows without a pixel",
                padding, kernel / 2, kernel);
  LIMBECK_CHECK(in + 2 * padding >= kernel, op, "kernel {} does not fit into an input of shape {} with padding {}",
                kernel, x.shape(), padding);
  return {in,      pooled_size(in, kernel, stride, padding, options.ceil_mode),
          kernel,  stride,
          padding, options.count_include_pad};
}

struct MaxPoolNode final : Node {
  SavedTensor indices;
  Shape x_shape;
  PoolAxis rows, columns;
  MaxPoolNode() : rows{}, columns{} {}
  const char* name() const override { return "max_pool2d"; }
  void release() override { indices.reset(); }
  void backward(std::span<const Tensor> gy, std::span<Tensor> gx) override {
    const Tensor g = gy[0].dense();
    gx[0] = Tensor::empty(x_shape, g.dtype(), g.device());
    kMaxPoolBackward(g.device(), g.dtype(), g.view(), indices.unpack(name()).view(), rows, columns, gx[0].view());
  }
};

struct AvgPoolNode final : Node {
  const char* op = "avg_pool2d";
  Shape x_shape;
  PoolAxis rows, columns;
  AvgPoolNode() : rows{}, columns{} {}
  const char* name() const override { return op; }
  void release() override {}
  void backward(std::span<const Tensor> gy, std::span<Tensor> gx) override {
    const Tensor g = gy[0].dense();
    gx[0] = Tensor::empty(x_shape, g.dtype(), g.device());
    kAvgPoolBackward(g.device(), g.dtype(), g.view(), rows, columns, gx[0].view());
  }
};

Tensor average(const char* op, const Tensor& x, const PoolAxis& rows, const PoolAxis& columns) {
  const Tensor y = Tensor::empty({x.size(0), x.size(1), rows.out, columns.out}, x.dtype(), x.device());
  const Tensor xd = x.dense();
  kAvgPool(x.device(), x.dtype(), xd.view(), rows, columns, y.view());
  if (auto node = record<AvgPoolNode>({&x})) {
    node->op = op;
    node->x_shape = x.shape();
    node->rows = rows;
    node->columns = columns;
    node->attach(y);
  }
  return y;
}

}  // namespace

std::int64_t pooled_size(std::int64_t in, std::int64_t kernel, std::int64_t stride, std::int64_t padding,
                         bool ceil_mode) {
  const std::int64_t room = in + 2 * padding - kernel;
  std::int64_t out = (room + (ceil_mode ? stride - 1 : 0)) / stride + 1;
  if (ceil_mode && (out - 1) * stride >= in + padding) --out;
  return out;
}

Tensor max_pool2d(const Tensor& x, const Pool2dOptions& options) {
  constexpr const char* kOp = "max_pool2d";
  check_input(kOp, x);
  const PoolAxis rows = strided_axis(kOp, x, options, 0);
  const PoolAxis columns = strided_axis(kOp, x, options, 1);
  const Shape shape{x.size(0), x.size(1), rows.out, columns.out};
  const Tensor y = Tensor::empty(shape, x.dtype(), x.device());
  const Tensor xd = x.dense();
  Tensor indices;
  if (should_record({&x})) {
    const bool fits_a_byte = rows.kernel * columns.kernel <= 256;
    indices = Tensor::empty(shape, fits_a_byte ? DType::kU8 : DType::kI32, x.device());
  }
  kMaxPool(x.device(), x.dtype(), xd.view(), rows, columns, y.view(),
           indices.defined() ? indices.view() : TensorView{});
  if (auto node = record<MaxPoolNode>({&x})) {
    node->indices = indices;
    node->x_shape = x.shape();
    node->rows = rows;
    node->columns = columns;
    node->attach(y);
  }
  observe(kOp, {&x}, y, options);
  return y;
}

Tensor avg_pool2d(const Tensor& x, const Pool2dOptions& options) {
  constexpr const char* kOp = "avg_pool2d";
  check_input(kOp, x);
  const Tensor y = average(kOp, x, strided_axis(kOp, x, options, 0), strided_axis(kOp, x, options, 1));
  observe(kOp, {&x}, y, options);
  return y;
}

Tensor adaptive_avg_pool2d(const Tensor& x, std::array<std::int64_t, 2> size) {
  constexpr const char* kOp = "adaptive_avg_pool2d";
  check_input(kOp, x);
  LIMBECK_CHECK(size[0] >= 1 && size[1] >= 1, kOp, "got an output size of {} x {}, expected at least 1 x 1", size[0],
                size[1]);
  const Tensor y = average(kOp, x, {.in = x.size(2), .out = size[0]}, {.in = x.size(3), .out = size[1]});
  observe(kOp, {&x}, y);
  return y;
}

Tensor global_avg_pool2d(const Tensor& x) {
  constexpr const char* kOp = "global_avg_pool2d";
  check_input(kOp, x);
  const Tensor y = average(kOp, x, {.in = x.size(2), .out = 1}, {.in = x.size(3), .out = 1});
  observe(kOp, {&x}, y);
  return y;
}

}  // namespace limbeck::ops
