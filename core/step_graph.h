// What this is: the work of a whole training step on a GPU, recorded once and afterwards done by one call (a CUDA graph).
// Why: a step is thousands of kernels of some microseconds; the host needs longer to launch them than the device to run
//   them.
// Implemented by core/cuda/step_graph.cpp; in a build without CUDA the constructor throws.
//
// Note [what a replay repeats]
//   A replay runs the recorded kernels, copies and fills with the addresses and numbers of the recording. No code of the host
//   runs, so whatever differs from step to step must be known to the recording:
//     - a number comes from number() and lies in device memory, where it is written before each replay;
//     - the random numbers of the step come from a stream named by random_stream();
//     - what the host counts on the side (batches seen, updates) is repeated through on_replay();
//     - inputs lie in tensors that outlive the graph, results stay where they were in the recording.
//   Looking at a number of the device, and copies between host and device, are not possible.
// Note [rehearsal]
//   The same work is done once more before it is recorded: as ever, but in the graph's memory and with the kernels that a
//   recording will see, so that nothing is loaded or chosen for the first time while recording. What could not be recorded is
//   noticed there, where it still works.
// Note [memory of a graph]
//   Everything allocated by the work comes from a pool that nobody else uses; addresses stay valid for replays, although
//   the tensors are gone. Graphs that are never replayed at the same time share one pool: a replay needs nothing of what
//   it left there before, except tensors that are still alive, and those no other recording is given.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "core/device.h"

namespace limbeck {

class Tensor;

/// A pool of device memory; see Note [memory of a graph]. Given back when the last graph is gone.
class GraphMemory {
 public:
  explicit GraphMemory(Device device);
  GraphMemory(const GraphMemory&) = delete;
  GraphMemory& operator=(const GraphMemory&) = delete;
  ~GraphMemory();
  [[nodiscard]] Device device() const noexcept { return device_; }
  [[nodiscard]] int pool() const noexcept { return pool_; }

 private:
  Device device_;
  int pool_ = 0;
};

/// One step, of inputs of one shape.
class StepGraph {
 public:
  using Work = std::function<void()>;
  using NumberAt = std::function<double(std::int64_t step)>;
  using StreamAt = std::function<std::uint64_t(std::int64_t step)>;
  using Effect = std::function<void(std::int64_t times)>;

  /// Throws: where graphs are impossible: LIMBECK_SYNC=1 and LIMBECK_CUDA_CACHE=0 forbid them (see obstacle()).
  explicit StepGraph(std::shared_ptr<GraphMemory> memory);
  StepGraph(const StepGraph&) = delete;
  StepGraph& operator=(const StepGraph&) = delete;
  ~StepGraph();

  /// Why no step can be recorded on this device; empty if it can.
  [[nodiscard]] static std::string obstacle(Device device);

  /// Does the step; returns why such steps cannot be recorded, empty if they can. See Note [rehearsal].
  [[nodiscard]] std::string rehearse(std::int64_t step, const Work& work);
  /// Records the step and does it. If that is impossible it returns why, and nothing has happened, to tensors or counters.
  [[nodiscard]] std::string record(std::int64_t step, const Work& work);
  /// Does the recorded step with the numbers of `step`. Returns at once.
  void replay(std::int64_t step);
  /// Kernels, copies and fills of the recording.
  [[nodiscard]] std::size_t nodes() const noexcept;

  // --- for the work that is recorded ------------------------------------------------------------------------------
  /// The graph that rehearses or records on this thread; null in ordinary steps.
  [[nodiscard]] static StepGraph* current() noexcept { return current_; }
  /// A number that `at` tells for every step; it is asked after the effects of the step. [] f32 on the device.
  [[nodiscard]] Tensor number(const NumberAt& at);
  /// Several of them, one after the other. [n] f32
  [[nodiscard]] Tensor numbers(const std::vector<NumberAt>& at);
  /// Names a stream (core/rng.h) that random numbers of the step come from; more than once makes no difference.
  void random_stream(const StreamAt& at);
  /// Where a replay finds the stream that is `now` in this step; null in a rehearsal. Throws if it was not named.
  [[nodiscard]] const std::uint64_t* find_stream(std::uint64_t now);
  /// `effect(1)` does to the host's own state what this step has just done to it, `effect(-1)` undoes it.
  void on_replay(Effect effect);
  /// To be called by what a recording cannot hold. `what`: "copies 12 bytes to the device".
  void refuse(const std::string& what);

 private:
  struct Impl;
  class Scope;
  static inline thread_local StepGraph* current_ = nullptr;
  std::unique_ptr<Impl> impl_;
};

}  // namespace limbeck
