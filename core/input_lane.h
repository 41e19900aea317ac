// What this is: the way of training batches to a GPU, beside the work of the device instead of in its queue.
// Implemented by core/cuda/input_lane.cpp; in a build without CUDA it throws.
//
// Note [input lane]
//   Copies in the stream of the device (core/cuda.h) wait for all steps queued in front of them, and so would the host, for
//   its pinned buffers. Here a batch is copied on a stream of its own into memory that belongs to the lane, while earlier steps
//   compute; the device's stream waits for its arrival, not the host, and takes it from there by a copy within the device.
//   Each place of the lane is written again only when what it held last has been taken. Nothing else may use that stream: its
//   memory is the only one to which Note [one stream] does not apply.
#pragma once

namespace limbeck {

class Tensor;

/// destination = source. Returns when `source` may be written again; does not wait for the device's work.
/// Shapes: equal; the same type and dense memory order; source on the CPU, destination on a GPU
void send_input(const Tensor& source, const Tensor& destination);

}  // namespace limbeck
