// What this is: Storage, Tensor and TensorView.
//   Storage     bytes on one device and a version counter that every in-place write raises
//   TensorImpl  shape, strides, dtype and offset over a Storage, plus the autograd record (core/autograd.h)
//   Tensor      a cheap handle; copying it copies no data
//   TensorView  the plain struct that kernels see
// What it is not: arithmetic. Every operation that computes lives in ops/.
// Layout: shapes are logical N, C, H, W; limbeck allocates 4-D tensors channels-last (physical N, H, W, C).
// Read next: core/autograd.h, then ops/README.md.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "core/device.h"
#include "core/dtype.h"
#include "core/memory.h"
#include "core/shape.h"

namespace limbeck {

class Node;

/// Bytes on a device. Views and detached tensors share it, and with it the version counter.
class Storage final : public RefCounted {
 public:
  Storage(std::size_t bytes, Device device);
  /// Wraps foreign memory (a memory-mapped file); `keep_alive` is released with the storage.
  Storage(void* data, std::size_t bytes, std::shared_ptr<const void> keep_alive);
  ~Storage() override;

  [[nodiscard]] void* data() const noexcept { return data_; }
  [[nodiscard]] std::size_t bytes() const noexcept { return bytes_; }
  [[nodiscard]] Device device() const noexcept { return device_; }
  [[nodiscard]] std::uint32_t version() const noexcept { return version_; }
  void bump_version() noexcept { ++version_; }

  /// bf16 values of the f32 numbers here, and the version that they are of; see core/rounded_copy.h.
  struct Rounded {
    Ref<Storage> values;
    std::uint32_t version = 0;
  };
  Rounded rounded;

 private:
  void* data_ = nullptr;
  std::size_t bytes_ = 0;
  Device device_;
  std::uint32_t version_ = 0;
  std::shared_ptr<const void> keep_alive_;  // set: the memory is foreign and is not returned to the allocator
};

/// What a kernel sees: a pointer, sizes and strides. No ownership, no autograd.
/// For 4-D tensors n(), c(), h(), w() name the logical sizes.
struct TensorView {
  void* data = nullptr;
  DType dtype = DType::kF32;
  Shape shape;
  Strides strides;

  [[nodiscard]] std::int64_t numel() const noexcept { return shape.numel(); }
  [[nodiscard]] std::int64_t n() const noexcept { return shape[0]; }
  [[nodiscard]] std::int64_t c() const noexcept { return shape[1]; }
  [[nodiscard]] std::int64_t h() const noexcept { return shape[2]; }
  [[nodiscard]] std::int64_t w() const noexcept { return shape[3]; }
  [[nodiscard]] bool defined() const noexcept { return data != nullptr; }
  /// Typed base pointer. The caller has checked the dtype.
  template <class T>
  [[nodiscard]] T* ptr() const noexcept {
    return static_cast<T*>(data);
  }
  /// Element at a logical index; for reference kernels, where clarity beats speed.
  template <class T>
  [[nodiscard]] T& at(std::int64_t i) const noexcept {
    return ptr<T>()[i * strides[0]];
  }
  template <class T>
  [[nodiscard]] T& at(std::int64_t i, std::int64_t j) const noexcept {
    return ptr<T>()[i * strides[0] + j * strides[1]];
  }
  template <class T>
  [[nodiscard]] T& at(std::int64_t i, std::int64_t j, std::int64_t k) const noexcept {
    return ptr<T>()[i * strides[0] + j * strides[1] + k * strides[2]];
  }
  template <class T>
  [[nodiscard]] T& at(std::int64_t i, std::int64_t j, std::int64_t k, std::int64_t l) const noexcept {
    return ptr<T>()[i * strides[0] + j * strides[1] + k * strides[2] + l * strides[3]];
  }
};

/// Autograd record of a tensor that takes part in differentiation; details in core/autograd.h.
struct AutogradMeta;

class TensorImpl final : public RefCounted {
 public:
  TensorImpl(Ref<Storage> storage, Shape shape, Strides strides, std::int64_t offset, DType dtype);
  ~TensorImpl() override;

  Ref<Storage> storage;
  Shape shape;
  Strides strides;
  std::int64_t offset = 0;  // in elements
  DType dtype = DType::kF32;
  std::unique_ptr<AutogradMeta> autograd;
};

/// Handle to an n-dimensional array. A default-constructed Tensor is "undefined" (no array).
class Tensor {
 public:
  Tensor() = default;
  explicit Tensor(Ref<TensorImpl> impl) : impl_(std::move(impl)) {}

  // --- construction -------------------------------------------------------------------------------------------
  /// Uninitialised tensor in the default layout (channels-last for 4-D).
  [[nodiscard]] static Tensor empty(const Shape& shape, DType dtype = DType::kF32, Device device = kCpu);
  /// Uninitialised tensor with explicit dense strides, e.g. row-major for files.
  [[nodiscard]] static Tensor empty_strided(const Shape& shape, const Strides& strides, DType dtype,
                                            Device device = kCpu);
  [[nodiscard]] static Tensor empty_like(const Tensor& t);
  [[nodiscard]] static Tensor zeros(const Shape& shape, DType dtype = DType::kF32, Device device = kCpu);
  [[nodiscard]] static Tensor full(const Shape& shape, double value, DType dtype = DType::kF32, Device device = kCpu);
  [[nodiscard]] static Tensor scalar(double value, DType dtype = DType::kF32);
  /// Copies `values`, given in logical row-major (NCHW) order, into a tensor of the default layout.
  template <class T>
  [[nodiscard]] static Tensor from(std::span<const T> values, const Shape& shape) {
    return from_bytes(values.data(), values.size(), dtype_of<T>, shape);
  }
  template <class T>
  [[nodiscard]] static Tensor from(const std::vector<T>& values, const Shape& shape) {
    return from(std::span<const T>(values), shape);
  }

  // --- description --------------------------------------------------------------------------------------------
  [[nodiscard]] bool defined() const noexcept { return static_cast<bool>(impl_); }
  [[nodiscard]] const Shape& shape() const noexcept { return impl_->shape; }
  [[nodiscard]] const Strides& strides() const noexcept { return impl_->strides; }
  [[nodiscard]] std::int64_t ndim() const noexcept { return static_cast<std::int64_t>(impl_->shape.size()); }
  /// Size of dimension `d`; negative counts from the end.
  [[nodiscard]] std::int64_t size(std::int64_t d) const;
  [[nodiscard]] std::int64_t numel() const noexcept { return impl_->shape.numel(); }
  [[nodiscard]] DType dtype() const noexcept { return impl_->dtype; }
  [[nodiscard]] Device device() const noexcept { return impl_->storage->device(); }
  /// True if the elements fill memory without gaps in the default layout of this rank.
  [[nodiscard]] bool is_dense() const noexcept;
  [[nodiscard]] bool is_row_major() const noexcept;
  /// "f32 [2, 3, 4, 5] cpu"
  [[nodiscard]] std::string describe() const;

  // --- data ---------------------------------------------------------------------------------------------------
  /// Typed pointer to the first element; throws if `T` is not the dtype.
  template <class T>
  [[nodiscard]] T* data() const {
    check_dtype(dtype_of<T>);
    return static_cast<T*>(raw_data());
  }
  [[nodiscard]] void* raw_data() const noexcept;
  [[nodiscard]] TensorView view() const noexcept;
  /// The single element of a one-element tensor, converted to double.
  [[nodiscard]] double item() const;
  /// All elements in logical row-major order, converted.
  template <class T>
  [[nodiscard]] std::vector<T> to_vector() const {
    std::vector<T> out(static_cast<std::size_t>(numel()));
    copy_out(out.data(), dtype_of<T>);
    return out;
  }

  // --- not differentiable ----------------------------------------------------------------------------------------
  /// This tensor if it is dense in the default layout, otherwise a dense copy. Used by ops before fast kernels.
  [[nodiscard]] Tensor dense() const;
  /// Independent dense copy, optionally of another element type. No gradient; see ops::cast for one.
  [[nodiscard]] Tensor copy() const { return copy_as(dtype()); }
  [[nodiscard]] Tensor copy_as(DType dtype) const;
  /// This tensor if it is on `device`, otherwise a dense copy there. No gradient.
  [[nodiscard]] Tensor to(Device device) const;
  /// Raw view on the same storage with other shape and strides (bounds are checked).
  [[nodiscard]] Tensor alias(const Shape& shape, const Strides& strides, std::int64_t extra_offset = 0) const;
  /// In place: copies `source` (same shape, any layout or dtype) into this tensor.
  void copy_(const Tensor& source) const;
  void fill_(double value) const;
  void zero_() const { fill_(0.0); }

  // --- autograd (bodies in core/autograd.cpp) ------------------------------------------------------------------
  [[nodiscard]] bool requires_grad() const noexcept;
  /// Marks a leaf as differentiable; throws for a non-floating or non-leaf tensor.
  const Tensor& set_requires_grad(bool value) const;
  [[nodiscard]] bool is_leaf() const noexcept;
  /// Accumulated gradient; undefined before the first backward.
  [[nodiscard]] Tensor grad() const;
  void set_grad(Tensor gradient) const;
  /// Same data, cut off from the tape; shares the version counter.
  [[nodiscard]] Tensor detach() const;
  /// Differentiates this one-element tensor with respect to every leaf; see limbeck::backward.
  void backward() const;
  /// Calls `hook(gradient)` once per backward, when the leaf's gradient is complete.
  void register_grad_hook(std::function<void(const Tensor&)> hook) const;

  [[nodiscard]] const Ref<TensorImpl>& impl() const noexcept { return impl_; }
  [[nodiscard]] std::uint32_t version() const noexcept { return impl_->storage->version(); }
  void bump_version() const noexcept { impl_->storage->bump_version(); }

 private:
  static Tensor from_bytes(const void* values, std::size_t count, DType dtype, const Shape& shape);
  void copy_out(void* destination, DType dtype) const;
  void check_dtype(DType expected) const;

  Ref<TensorImpl> impl_;
};

/// Copies between tensors of equal shape on any devices, converting the element type; any strides. Raises no version.
void copy_tensor(const Tensor& source, const Tensor& destination);
/// Copies between views of equal shape in the CPU's memory, converting the element type (core/convert.h); any strides.
void copy_view(const TensorView& source, const TensorView& destination);

}  // namespace limbeck
