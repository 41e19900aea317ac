#include "core/cuda/cudnn_descriptor.h"

#include <algorithm>
#include <utility>

#include "core/cuda/cudnn.h"

namespace limbeck::cuda {
namespace {

cudnnStatus_t finalize_status(cudnnBackendDescriptor_t descriptor) {
  static auto* const function = cudnn_library().function<decltype(cudnnBackendFinalize)>("cudnnBackendFinalize");
  return function(descriptor);
}

}  // namespace

BackendDescriptor::BackendDescriptor(cudnnBackendDescriptorType_t type) {
  LIMBECK_CUDNN(cudnnBackendCreateDescriptor, type, &descriptor_);
}

BackendDescriptor::BackendDescriptor(BackendDescriptor&& other) noexcept
    : descriptor_(std::exchange(other.descriptor_, nullptr)) {}

BackendDescriptor::~BackendDescriptor() {
  static auto* const destroy =
      cudnn_library().function<decltype(cudnnBackendDestroyDescriptor)>("cudnnBackendDestroyDescriptor");
  if (descriptor_ != nullptr) destroy(descriptor_);
}

void BackendDescriptor::set(cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type, std::int64_t count,
                            const void* values) {
  LIMBECK_CUDNN(cudnnBackendSetAttribute, descriptor_, name, type, count, values);
}

std::int64_t BackendDescriptor::get(cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type,
                                    std::int64_t most, void* values) const {
  std::int64_t count = 0;
  LIMBECK_CUDNN(cudnnBackendGetAttribute, descriptor_, name, type, most, &count, values);
  return std::min(count, most);  // cuDNN counts what it has, not what it wrote
}

std::int64_t BackendDescriptor::number(cudnnBackendAttributeName_t name) const {
  std::int64_t value = 0;
  get(name, CUDNN_TYPE_INT64, 1, &value);
  return value;
}

bool BackendDescriptor::try_finalize() {
  // Whatever the reason of a refusal, there are other engines, or other graphs.
  return finalize_status(descriptor_) == CUDNN_STATUS_SUCCESS;
}

void BackendDescriptor::finalize() { check_cudnn(finalize_status(descriptor_), "cudnnBackendFinalize"); }

}  // namespace limbeck::cuda
