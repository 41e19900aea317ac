// What this is: numbers that a loop wants to know but not to wait for: losses of a training step on a GPU. The copy is queued
//   behind the work that makes them; the loop reads them some steps later, when they have long arrived.
// What it is not: Tensor::item(), which waits for everything that was queued.
#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include "core/device.h"

namespace limbeck {

class Tensor;

/// The numbers of some 0-d tensors of one device. On the CPU they are read at once.
/// Shapes:   [] each; f32 on a GPU
class Readback {
 public:
  Readback() = default;
  explicit Readback(std::span<const Tensor> scalars);
  Readback(Readback&& other) noexcept;
  Readback& operator=(Readback&& other) noexcept;
  ~Readback();

  /// Returns when the work that was queued before the constructor is done. May be called once.
  [[nodiscard]] std::vector<double> wait();

 private:
  std::vector<double> values_;
  std::size_t count_ = 0;
  void* ticket_ = nullptr;  // on a GPU
  Device device_ = kCpu;
};

namespace cuda {

/// Starts to copy f32 numbers to the host, behind the work queued so far; the result belongs to finish_reading().
[[nodiscard]] void* start_reading(Device device, std::span<const void* const> numbers);
/// Waits for them and gives the ticket back; `out` may be null.
void finish_reading(void* ticket, std::size_t count, double* out);

}  // namespace cuda
}  // namespace limbeck
