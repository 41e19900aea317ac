// What this is: the least time that work can take on this machine: its arithmetic at the speed of the best matrix product, its
//   memory traffic at the speed of a copy, layer by layer the slower of the two.
// What it is not: a profiler. `limbeck bench` prints how far a measured step is from it.
//
// Note [what the floor counts]
//   Inference: a layer with multiply-adds reads its input and weights and writes its output. Everything else (batch norm,
//   activation, resize) could be fused into a neighbour and counts as zero.
//   Training: such a layer does that three times (output, gradient of the input, gradient of the weights). A batch norm
//   cannot be fused away, since it needs all of its input before it can write: two maps of traffic forward, three backward.
//   The optimizer reads weight, gradient and momentum and writes weight and momentum, in f32.
//   Caches can beat the traffic part of a floor, fast convolution algorithms its arithmetic part.
#pragma once

#include <cstdint>
#include <span>

#include "core/tensor.h"
#include "nn/tracer.h"

namespace limbeck::apps {

/// What a device reaches on the two simplest jobs.
struct MachineSpeed {
  double flops_per_second = 0;  ///< of a large matrix product, one multiply-add being two
  double bytes_per_second = 0;  ///< of a large copy, read plus written
};

/// Best of several products of matrices of `dtype`, and of several copies. Both grow until one takes long enough to be measured:
/// from 256x256 to 8192x8192, and from 64 MiB to 1 GiB. Seconds.
/// Throws: Error for another type than f32 and bf16.
[[nodiscard]] MachineSpeed measure_speed(Device device, DType dtype);

struct Floor {
  double flops = 0;
  double bytes = 0;
  double seconds = 0;  ///< sum over the layers of the slower of arithmetic and traffic

  Floor& operator+=(const Floor& other) noexcept;
};

/// Floor of a forward pass of layers that were traced with a batch; see Note [what the floor counts].
/// Shapes: none
[[nodiscard]] Floor inference_floor(std::span<const nn::LayerRecord> layers, DType dtype, const MachineSpeed& speed);

/// Floor of forward, backward and an SGD step.
/// Shapes: none
[[nodiscard]] Floor training_floor(std::span<const nn::LayerRecord> layers, DType dtype, const MachineSpeed& speed);

}  // namespace limbeck::apps
