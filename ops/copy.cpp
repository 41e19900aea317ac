// Glue of the ops that move elements, and the helpers of autocast.
#include "ops/copy.h"

#include <algorithm>

#include "core/autograd.h"
#include "ops/copy_kernels.h"
#include "ops/observer.h"

namespace limbeck::ops {
namespace {

/// A dense copy in the default layout through the kernel table.
Tensor materialise(const Tensor& x, DType dtype) {
  Tensor y = Tensor::empty(x.shape(), dtype, x.device());
  kCopy(x.device(), dtype, x.view(), y.view());
  return y;
}

Tensor dense(const Tensor& x) { return x.is_dense() ? x : materialise(x, x.dtype()); }

struct CastNode final : Node {
  DType dtype = DType::kF32;  // of the input
  const char* name() const override { return "cast"; }
  void backward(std::span<const Tensor> gy, std::span<Tensor> gx) override { gx[0] = materialise(gy[0], dtype); }
  void release() override {}
};

struct CloneNode final : Node {
  const char* name() const override { return "clone"; }
  void backward(std::span<const Tensor> gy, std::span<Tensor> gx) override { gx[0] = gy[0]; }
  void release() override {}
};

/// Strides under which the elements of `x` appear as `shape` in logical order, if there are any.
/// A group of dimensions of x that runs without gaps may be cut anew; the new dimensions must fit into such groups.
bool view_strides(const Tensor& x, const Shape& shape, Strides& strides) {
  strides.resize(shape.size());
  if (x.numel() == 0) {
    strides = row_major_strides(shape);
    return true;
  }
  std::size_t to = shape.size();  // new dimensions still to be placed, from the last
  std::size_t from = x.shape().size();
  while (from > 0) {
    // One group of x, from the last dimension: `base` its step, `count` its elements.
    --from;
    const std::int64_t base = x.strides()[from];
    std::int64_t count = x.shape()[from];
    if (count == 1) continue;
    while (from > 0 && (x.shape()[from - 1] == 1 || x.strides()[from - 1] == base * count)) {
      count *= x.shape()[--from];
    }
    std::int64_t placed = 1;
    while (to > 0 && placed < count) {
      --to;
      strides[to] = base * placed;
      placed *= shape[to];
    }
    if (placed != count) return false;
  }
  while (to > 0) strides[--to] = 1;  // only sizes of 1 are left
  return true;
}

/// `shape` with its -1 computed.
Shape complete_shape(const Tensor& x, Shape shape) {
  const Shape asked = shape;
  std::int64_t known = 1;
  std::size_t open = shape.size();
  for (std::size_t d = 0; d < shape.size(); ++d) {
    LIMBECK_CHECK(shape[d] >= -1, "reshape", "got size {} in shape {}, expected at least 0, or one -1", shape[d],
                  asked);
    if (shape[d] == -1) {
      LIMBECK_CHECK(open == shape.size(), "reshape", "got more than one -1 in shape {}", asked);
      open = d;
    } else {
      known *= shape[d];
    }
  }
  if (open < shape.size()) shape[open] = known == 0 ? 0 : x.numel() / known;
  LIMBECK_CHECK(shape.numel() == x.numel(), "reshape", "got shape {} of {} elements for a tensor of shape {} with {}",
                asked, open < shape.size() ? known : shape.numel(), x.shape(), x.numel());
  return shape;
}

Tensor reshape_without_history(const Tensor& x, const Shape& shape) {
  Strides strides;
  if (view_strides(x, shape, strides)) return x.alias(shape, strides);
  Tensor row_major = Tensor::empty_strided(x.shape(), row_major_strides(x.shape()), x.dtype(), x.device());
  kCopy(x.device(), x.dtype(), x.view(), row_major.view());
  return dense(row_major.alias(shape, row_major_strides(shape)));
}

struct ReshapeNode final : Node {
  Shape shape;  // of the input
  const char* name() const override { return "reshape"; }
  void backward(std::span<const Tensor> gy, std::span<Tensor> gx) override {
    gx[0] = dense(reshape_without_history(gy[0], shape));
  }
  void release() override {}
};

Tensor permute_without_history(const Tensor& x, const Shape& dims) {
  Shape shape = dims;
  Strides strides = dims;
  for (std::size_t i = 0; i < dims.size(); ++i) {
    shape[i] = x.shape()[static_cast<std::size_t>(dims[i])];
    strides[i] = x.strides()[static_cast<std::size_t>(dims[i])];
  }
  return x.alias(shape, strides);
}

struct PermuteNode final : Node {
  Shape inverse;
  const char* name() const override { return "permute"; }
  void backward(std::span<const Tensor> gy, std::span<Tensor> gx) override {
    gx[0] = dense(permute_without_history(gy[0], inverse));
  }
  void release() override {}
};

}  // namespace

Tensor cast(const Tensor& x, DType dtype) {
  LIMBECK_CHECK(x.defined(), "cast", "got an undefined tensor");
  if (x.dtype() == dtype) return x;
  Tensor y = materialise(x, dtype);
  if (!is_floating(x.dtype()) || !is_floating(dtype)) return y;
  if (auto node = record<CastNode>({&x})) {
    node->dtype = x.dtype();
    node->attach(y);
  }
  return y;
}

Tensor clone(const Tensor& x) {
  LIMBECK_CHECK(x.defined(), "clone", "got an undefined tensor");
  Tensor y = materialise(x, x.dtype());
  if (auto node = record<CloneNode>({&x})) node->attach(y);
  return y;
}

Tensor reshape(const Tensor& x, const Shape& shape) {
  LIMBECK_CHECK(x.defined(), "reshape", "got an undefined tensor");
  Tensor y = reshape_without_history(x, complete_shape(x, shape));
  if (auto node = record<ReshapeNode>({&x})) {
    node->shape = x.shape();
    node->attach(y);
  }
  observe("reshape", {&x}, y);
  return y;
}

Tensor permute(const Tensor& x, const Shape& dims) {
  LIMBECK_CHECK(x.defined(), "permute", "got an undefined tensor");
  LIMBECK_CHECK(dims.size() == x.shape().size(), "permute", "got {} dimensions {} for a tensor of shape {}",
                dims.size(), dims, x.shape());
  Shape inverse = dims;
  std::fill(inverse.begin(), inverse.end(), -1);
  for (std::size_t i = 0; i < dims.size(); ++i) {
    const bool valid = dims[i] >= 0 && dims[i] < x.ndim() && inverse[static_cast<std::size_t>(dims[i])] == -1;
    LIMBECK_CHECK(valid, "permute", "got {}, expected a permutation of 0..{}", dims, x.ndim() - 1);
    inverse[static_cast<std::size_t>(dims[i])] = static_cast<std::int64_t>(i);
  }
  Tensor y = permute_without_history(x, dims);
  if (auto node = record<PermuteNode>({&x})) {
    node->inverse = inverse;
    node->attach(y);
  }
  return y;
}

Tensor flatten(const Tensor& x, std::int64_t start) {
  LIMBECK_CHECK(x.defined(), "flatten", "got an undefined tensor");
  const std::size_t first = check_dim("flatten", start, x.ndim());
  Shape shape(x.shape().span().first(first));
  shape.push_back(Shape(x.shape().span().subspan(first)).numel());
  return reshape(x, shape);
}

// --- autocast and shared checks -----------------------------------------------------------------------------------

Tensor autocast(CastPolicy policy, const Tensor& x) {
  if (!AutocastGuard::enabled() || !x.defined()) return x;
  if (x.dtype() != DType::kF32 && x.dtype() != DType::kBF16) return x;
  if (policy == CastPolicy::kLow) return cast(x, DType::kBF16);
  if (policy == CastPolicy::kFull) return cast(x, DType::kF32);
  return x;
}

PooledVector<Tensor> autocast_widest(std::span<const Tensor> tensors) {
  PooledVector<Tensor> out(tensors.begin(), tensors.end());
  if (!AutocastGuard::enabled()) return out;
  const bool any_f32 =
      std::any_of(out.begin(), out.end(), [](const Tensor& t) { return t.defined() && t.dtype() == DType::kF32; });
  if (!any_f32) return out;
  for (Tensor& t : out) {
    if (t.defined() && t.dtype() == DType::kBF16) t = cast(t, DType::kF32);
  }
  return out;
}

void check_float(const char* op, const Tensor& x) {
  LIMBECK_CHECK(x.defined(), op, "got an undefined tensor");
  LIMBECK_CHECK(is_floating(x.dtype()), op, "got a {} tensor of shape {}, expected f32, bf16 or f64; use ops::cast",
                name_of(x.dtype()), x.shape());
}

void check_same_float(const char* op, const Tensor& a, const Tensor& b) {
  check_float(op, a);
  check_float(op, b);
  LIMBECK_CHECK(a.dtype() == b.dtype(), op,
                "got {} {} and {} {}, expected one type; use ops::cast on one of them, or an AutocastGuard",
                name_of(a.dtype()), a.shape(), name_of(b.dtype()), b.shape());
  LIMBECK_CHECK(a.device() == b.device(), op, "got tensors on {} and {}", a.device().to_string(),
                b.device().to_string());
}

std::size_t check_dim(const char* op, std::int64_t dim, std::int64_t rank) {
  const std::int64_t index = dim < 0 ? dim + rank : dim;
  LIMBECK_CHECK(index >= 0 && index < rank, op, "got dimension {}, expected {}..{}", dim, -rank, rank - 1);
  return static_cast<std::size_t>(index);
}

}  // namespace limbeck::ops
