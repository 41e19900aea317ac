// What this is: how the training loop gets a step done on a GPU: launched piece by piece, or recorded and replayed
//   (core/step_graph.h). One recording per shape of the batches and phase of the objective, a few of them at most.
// What it is not: the work of a step; that is the trainer's.
//
// Note [warm-up]
//   The first steps of a kind run piece by piece: there cuDNN chooses its algorithms and the allocator grows. Then one is rehearsed
//   and one recorded; all of them are ordinary steps of the training, and give the same bits.
#pragma once

#include <functional>
#include <list>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "core/device.h"
#include "core/step_graph.h"
#include "core/tensor.h"

namespace limbeck::apps {

struct StepInputs {
  Tensor images, labels;
};

/// What the work of a step leaves behind.
struct StepOutputs {
  struct Term {
    std::string name;
    std::size_t id = 0;
    double weight = 1;
  };
  std::vector<Tensor>
      numbers;  ///< on the device: per batch the loss and its terms, then perhaps the norm of the gradients
  std::vector<std::size_t> counts;  ///< per batch: how many of them
  std::vector<Term> terms;
  bool norm = false;
  bool replayed = false;  ///< names and numbers are those of the recording; the weights are not of this step
};

class StepRecorder {
 public:
  using Source = std::function<StepInputs()>;
  /// Takes its inputs from a source that gives them on the device, one batch after the other.
  using Work = std::function<StepOutputs(const Source& inputs)>;

  /// `mode`: auto, on or off (train.cuda_graph).
  /// Throws: ConfigError if it is on and cannot be.
  StepRecorder(Device device, std::string mode);

  /// Does one step of `batches` batches, which `next` gives on the host.
  [[nodiscard]] StepOutputs run(std::int64_t step, const std::string& phase, std::int64_t batches, const Source& next,
                                const Work& work);

 private:
  struct Kind {
    std::string key;
    std::vector<StepInputs> inputs;  // on the device, where the recording reads them
    std::int64_t steps = 0;
    std::unique_ptr<StepGraph> graph;
    StepOutputs outputs;
  };

  [[nodiscard]] StepOutputs launch(const Source& next, const Work& work) const;
  [[nodiscard]] Kind& kind_of(const std::string& phase, std::span<const StepInputs> batches);
  [[nodiscard]] StepOutputs rehearse(Kind& kind, std::int64_t step, const Work& work);
  [[nodiscard]] std::optional<StepOutputs> record(Kind& kind, std::int64_t step, const Work& work);
  void give_up(const std::string& why);

  Device device_;
  std::string mode_;
  bool recording_ = false;               // it still is worth trying
  std::shared_ptr<GraphMemory> memory_;  // of all recordings; made with the first
  std::list<Kind> kinds_;                // the one used last in front
};

}  // namespace limbeck::apps
