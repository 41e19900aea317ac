// Storage, TensorImpl and the part of Tensor that has nothing to do with differentiation.
// Copying between layouts and element types is in core/copy_view.cpp, the tape in core/autograd.cpp.
#include "core/tensor.h"

#include <algorithm>
#include <cstring>

#include "core/autograd.h"
#include "core/cuda.h"

namespace limbeck {

// --- Storage ------------------------------------------------------------------------------------------------------

Storage::Storage(std::size_t bytes, Device device) : bytes_(bytes), device_(device) {
  switch (device.type) {
    case DeviceType::kMeta: return;
    case DeviceType::kCpu: data_ = CpuAllocator::get().allocate(bytes); return;
    case DeviceType::kCuda: data_ = cuda::allocate(device, bytes); return;
  }
}

Storage::Storage(void* data, std::size_t bytes, std::shared_ptr<const void> keep_alive)
    : data_(data), bytes_(bytes), device_(kCpu), keep_alive_(std::move(keep_alive)) {}

Storage::~Storage() {
  if (data_ == nullptr || keep_alive_) return;
  if (device_.is_cuda()) {
    cuda::deallocate(device_, data_, bytes_);
  } else {
    CpuAllocator::get().deallocate(data_, bytes_);
  }
}

TensorImpl::TensorImpl(Ref<Storage> storage_in, Shape shape_in, Strides strides_in, std::int64_t offset_in,
                       DType dtype_in)
    : storage(std::move(storage_in)), shape(shape_in), strides(strides_in), offset(offset_in), dtype(dtype_in) {}

TensorImpl::~TensorImpl() = default;

// --- construction -------------------------------------------------------------------------------------------------

namespace {

/// Throws where a product of sizes (strides are such products, a size of 0 taken as 1) or the number of bytes leaves 63 bits.
void check_countable(const Shape& shape, DType dtype) {
  auto bytes = static_cast<std::int64_t>(size_of(dtype));
  for (const std::int64_t size : shape) {
    LIMBECK_CHECK(size >= 0, "tensor", "negative size in shape {}", shape);
    LIMBECK_CHECK(!__builtin_mul_overflow(bytes, std::max<std::int64_t>(size, 1), &bytes), "tensor",
                  "shape {} of {} is too large: its bytes do not fit 63 bits", shape, name_of(dtype));
  }
}

}  // namespace

Tensor Tensor::empty_strided(const Shape& shape, const Strides& strides, DType dtype, Device device) {
  LIMBECK_CHECK(shape.size() == strides.size(), "tensor", "{} sizes but {} strides", shape.size(), strides.size());
  check_countable(shape, dtype);
  std::int64_t last = 0;  // index of the last element
  for (std::size_t i = 0; i < shape.size(); ++i) {
    last += std::max<std::int64_t>(shape[i] - 1, 0) * strides[i];
  }
  const std::size_t count = shape.numel() == 0 ? 0 : static_cast<std::size_t>(last) + 1;
  auto storage = make_ref<Storage>(count * size_of(dtype), device);
  return Tensor(make_ref<TensorImpl>(std::move(storage), shape, strides, 0, dtype));
}

Tensor Tensor::empty(const Shape& shape, DType dtype, Device device) {
  check_countable(shape, dtype);  // before strides are computed
  return empty_strided(shape, default_strides(shape), dtype, device);
}

Tensor Tensor::empty_like(const Tensor& t) { return empty(t.shape(), t.dtype(), t.device()); }

Tensor Tensor::full(const Shape& shape, double value, DType dtype, Device device) {
  Tensor t = empty(shape, dtype, device);
  t.fill_(value);
  return t;
}

Tensor Tensor::zeros(const Shape& shape, DType dtype, Device device) { return full(shape, 0.0, dtype, device); }

Tensor Tensor::scalar(double value, DType dtype) { return full(Shape{}, value, dtype); }

Tensor Tensor::from_bytes(const void* values, std::size_t count, DType dtype, const Shape& shape) {
  LIMBECK_CHECK(static_cast<std::int64_t>(count) == shape.numel(), "tensor", "{} values for shape {} of {} elements",
                count, shape, shape.numel());
  Tensor t = empty(shape, dtype);
  // The view is only read; copy_view takes one type of view for both sides.
  copy_view({const_cast<void*>(values), dtype, shape, row_major_strides(shape)}, t.view());
  return t;
}

// --- description --------------------------------------------------------------------------------------------------

std::int64_t Tensor::size(std::int64_t d) const {
  const std::int64_t index = d < 0 ? d + ndim() : d;
  LIMBECK_CHECK(index >= 0 && index < ndim(), "tensor", "dimension {} of a tensor of shape {}", d, shape());
  return shape()[static_cast<std::size_t>(index)];
}

namespace {

/// Strides of dimensions of size 1 do not matter.
bool same_layout(const Shape& shape, const Strides& a, const Strides& b) noexcept {
  for (std::size_t i = 0; i < shape.size(); ++i) {
    if (shape[i] != 1 && a[i] != b[i]) return false;
  }
  return true;
}

}  // namespace

bool Tensor::is_dense() const noexcept { return same_layout(shape(), strides(), default_strides(shape())); }
bool Tensor::is_row_major() const noexcept { return same_layout(shape(), strides(), row_major_strides(shape())); }

std::string Tensor::describe() const {
  if (!defined()) return "undefined tensor";
  return fmt::format("{} {} {}", name_of(dtype()), shape(), device().to_string());
}

// --- data ---------------------------------------------------------------------------------------------------------

void Tensor::check_dtype(DType expected) const {
  LIMBECK_CHECK(defined(), "tensor", "data of an undefined tensor");
  LIMBECK_CHECK(dtype() == expected, "tensor", "data<{}>() of a {} tensor of shape {}", name_of(expected),
                name_of(dtype()), shape());
}

void* Tensor::raw_data() const noexcept {
  auto* base = static_cast<char*>(impl_->storage->data());
  if (base == nullptr) return nullptr;  // meta
  return base + impl_->offset * static_cast<std::int64_t>(size_of(impl_->dtype));
}

TensorView Tensor::view() const noexcept {
  if (!defined()) return {};
  return {raw_data(), dtype(), shape(), strides()};
}

double Tensor::item() const {
  LIMBECK_CHECK(defined() && numel() == 1, "item", "got {}, expected a tensor with one element", describe());
  double value = 0;
  copy_out(&value, DType::kF64);
  return value;
}

void Tensor::copy_out(void* destination, DType dtype) const {
  LIMBECK_CHECK(!device().is_meta(), "tensor", "values of a tensor on meta, which has shapes only");
  const Tensor host = to(kCpu);
  copy_view(host.view(), {destination, dtype, shape(), row_major_strides(shape())});
}

Tensor Tensor::dense() const { return is_dense() ? *this : copy(); }

Tensor Tensor::copy_as(DType dtype) const {
  Tensor out = empty(shape(), dtype, device());
  copy_tensor(*this, out);
  return out;
}

Tensor Tensor::to(Device target) const {
  if (device() == target) return *this;
  Tensor out = empty(shape(), dtype(), target);
  copy_tensor(*this, out);
  return out;
}

Tensor Tensor::alias(const Shape& shape, const Strides& strides, std::int64_t extra_offset) const {
  LIMBECK_CHECK(shape.size() == strides.size(), "alias", "{} sizes but {} strides", shape.size(), strides.size());
  std::int64_t low = impl_->offset + extra_offset;
  std::int64_t high = low;
  for (std::size_t i = 0; i < shape.size(); ++i) {
    const std::int64_t reach = std::max<std::int64_t>(shape[i] - 1, 0) * strides[i];
    (reach < 0 ? low : high) += reach;
  }
  const auto capacity = static_cast<std::int64_t>(impl_->storage->bytes() / size_of(dtype()));
  LIMBECK_CHECK(shape.numel() == 0 || (low >= 0 && high < capacity), "alias",
                "shape {} with strides {} reaches elements {}..{} of a storage of {}", shape, strides, low, high,
                capacity);
  return Tensor(make_ref<TensorImpl>(impl_->storage, shape, strides, impl_->offset + extra_offset, dtype()));
}

void Tensor::copy_(const Tensor& source) const {
  LIMBECK_CHECK(source.shape() == shape(), "copy_", "source has shape {}, expected {}", source.shape(), shape());
  LIMBECK_CHECK(!(grad_enabled() && requires_grad()), "copy_",
                "in-place write to a tensor that requires grad; wrap it in NoGradGuard");
  copy_tensor(source, *this);
  bump_version();
}

void Tensor::fill_(double value) const {
  LIMBECK_CHECK(!(grad_enabled() && requires_grad()), "fill_",
                "in-place write to a tensor that requires grad; wrap it in NoGradGuard");
  bump_version();
  if (device().is_meta() || numel() == 0) return;
  if (device().is_cuda()) {
    cuda::fill_view(device(), value, view());
    return;
  }
  if (value == 0.0 && (is_dense() || is_row_major())) {
    std::memset(raw_data(), 0, static_cast<std::size_t>(numel()) * size_of(dtype()));
    return;
  }
  // One element with all strides zero, broadcast over the destination.
  Strides zero;
  zero.resize(shape().size());
  copy_view({&value, DType::kF64, shape(), zero}, view());
}

// --- between devices ----------------------------------------------------------------------------------------------

void copy_tensor(const Tensor& source, const Tensor& destination) {
  const Device from = source.device();
  const Device to = destination.device();
  if (from.is_meta() || to.is_meta()) return;
  if (from.is_cpu() && to.is_cpu()) return copy_view(source.view(), destination.view());
  if (from == to) return cuda::copy_view(to, source.view(), destination.view());
  // Only dense bytes of one type travel; layout and type are changed on the side that has the other ones.
  const Tensor packed = source.dense();
  const auto bytes = static_cast<std::size_t>(packed.numel()) * size_of(packed.dtype());
  const bool direct = destination.is_dense() && destination.dtype() == packed.dtype();
  const Tensor arrived = direct ? destination : Tensor::empty(packed.shape(), packed.dtype(), to);
  if (from.is_cpu()) {
    cuda::copy_to_device(to, arrived.raw_data(), packed.raw_data(), bytes);
  } else if (to.is_cpu()) {
    cuda::copy_to_host(from, arrived.raw_data(), packed.raw_data(), bytes);
  } else {
    copy_tensor(packed.to(kCpu), arrived);
  }
  if (!direct) copy_tensor(arrived, destination);
}

}  // namespace limbeck
