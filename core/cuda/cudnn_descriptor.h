// What this is: a descriptor of cuDNN's backend, the objects that graphs, engines and plans are described by.
// Read next: core/cuda/cudnn_convolution_plan.h, which makes plans of them.
#pragma once

#include <cudnn_graph.h>

#include <cstdint>
#include <span>

namespace limbeck::cuda {

/// Frees itself. Attributes are set while it is being built; finalize() ends that.
class BackendDescriptor {
 public:
  explicit BackendDescriptor(cudnnBackendDescriptorType_t type);
  BackendDescriptor(BackendDescriptor&& other) noexcept;
  BackendDescriptor& operator=(BackendDescriptor&&) = delete;
  ~BackendDescriptor();

  void set(cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type, std::int64_t count, const void* values);
  template <class T>
  void set_one(cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type, const T& value) {
    set(name, type, 1, &value);
  }
  void set_descriptor(cudnnBackendAttributeName_t name, cudnnBackendDescriptor_t value) {
    set_one(name, CUDNN_TYPE_BACKEND_DESCRIPTOR, value);
  }
  void set_numbers(cudnnBackendAttributeName_t name, std::span<const std::int64_t> values) {
    set(name, CUDNN_TYPE_INT64, static_cast<std::int64_t>(values.size()), values.data());
  }

  /// Reads at most `most` values; returns how many.
  std::int64_t get(cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type, std::int64_t most,
                   void* values) const;
  /// Reads one number.
  [[nodiscard]] std::int64_t number(cudnnBackendAttributeName_t name) const;

  /// False if cuDNN cannot do what is described.
  [[nodiscard]] bool try_finalize();
  void finalize();
  [[nodiscard]] cudnnBackendDescriptor_t raw() const noexcept { return descriptor_; }

 private:
  cudnnBackendDescriptor_t descriptor_ = nullptr;
};

}  // namespace limbeck::cuda
