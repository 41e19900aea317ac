#include "core/readback.h"

#include <utility>

#include "core/tensor.h"

namespace limbeck {

Readback::Readback(std::span<const Tensor> scalars) : count_(scalars.size()) {
  if (scalars.empty()) return;
  device_ = scalars.front().device();
  if (!device_.is_cuda()) {
    for (const Tensor& t : scalars) values_.push_back(t.item());
    return;
  }
  std::vector<const void*> numbers;
  for (const Tensor& t : scalars) {
    LIMBECK_CHECK(t.numel() == 1 && t.dtype() == DType::kF32 && t.device() == device_, "readback",
                  "got {}, expected one f32 number on {}", t.describe(), device_.to_string());
    numbers.push_back(t.view().data);
  }
  ticket_ = cuda::start_reading(device_, numbers);
}

Readback::Readback(Readback&& other) noexcept { *this = std::move(other); }

Readback& Readback::operator=(Readback&& other) noexcept {
  std::swap(values_, other.values_);
  std::swap(count_, other.count_);
  std::swap(ticket_, other.ticket_);
  std::swap(device_, other.device_);
  return *this;
}

Readback::~Readback() {
  if (ticket_ != nullptr) cuda::finish_reading(ticket_, 0, nullptr);
}

std::vector<double> Readback::wait() {
  if (ticket_ != nullptr) {
    values_.resize(count_);
    cuda::finish_reading(std::exchange(ticket_, nullptr), count_, values_.data());
  }
  return std::move(values_);
}

}  // namespace limbeck
