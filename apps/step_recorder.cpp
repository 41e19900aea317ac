#include "apps/step_recorder.h"

#include <algorithm>
#include <utility>

#include "core/cuda.h"
#include "core/input_lane.h"
#include "core/log.h"

namespace limbeck::apps {
namespace {

constexpr std::int64_t kWarmUp = 2;  // steps of a kind before its rehearsal
constexpr std::size_t kMostKinds = 4;

/// The batches one after the other; `inputs` must outlive the source.
StepRecorder::Source source_of(const std::vector<StepInputs>& inputs) {
  return [&inputs, i = std::size_t{0}]() mutable { return inputs.at(i++); };
}

Tensor on_device(const Tensor& host, Device device) {
  if (!device.is_cuda()) return host.to(device);
  const Tensor there = Tensor::empty(host.shape(), host.dtype(), device);
  send_input(host, there);
  return there;
}

}  // namespace

StepRecorder::StepRecorder(Device device, std::string mode) : device_(device), mode_(std::move(mode)) {
  if (mode_ == "off" || (mode_ == "auto" && !device.is_cuda())) return;
  recording_ = true;
  const std::string impossible = StepGraph::obstacle(device);
  if (!impossible.empty()) give_up(impossible);
}

void StepRecorder::give_up(const std::string& why) {
  if (mode_ == "on") fail<ConfigError>("train.cuda_graph", "it is on, but the step cannot be recorded: {}", why);
  log_info("the kernels of a step are launched one by one: {}", why);
  recording_ = false;
  kinds_.clear();
  memory_.reset();
}

StepOutputs StepRecorder::launch(const Source& next, const Work& work) const {
  return work([&] {
    const StepInputs inputs = next();
    return StepInputs{on_device(inputs.images, device_), on_device(inputs.labels, device_)};
  });
}

StepRecorder::Kind& StepRecorder::kind_of(const std::string& phase, std::span<const StepInputs> batches) {
  std::string key = phase;
  for (const StepInputs& b : batches) key += fmt::format(" {} {}", b.images.describe(), b.labels.describe());
  const auto found = std::find_if(kinds_.begin(), kinds_.end(), [&](const Kind& k) { return k.key == key; });
  if (found != kinds_.end()) {
    kinds_.splice(kinds_.begin(), kinds_, found);
    return kinds_.front();
  }
  if (kinds_.size() == kMostKinds) kinds_.pop_back();
  kinds_.emplace_front();
  kinds_.front().key = std::move(key);
  return kinds_.front();
}

StepOutputs StepRecorder::run(std::int64_t step, const std::string& phase, std::int64_t batches, const Source& next,
                              const Work& work) {
  if (!recording_) return launch(next, work);
  std::vector<StepInputs> given;
  for (std::int64_t k = 0; k < batches; ++k) given.push_back(next());
  Kind& kind = kind_of(phase, given);
  if (kind.steps++ < kWarmUp) return launch(source_of(given), work);
  if (!kind.graph) {
    for (const StepInputs& b : given)
      kind.inputs.push_back({on_device(b.images, device_), on_device(b.labels, device_)});
    return rehearse(kind, step, work);
  }
  for (std::size_t k = 0; k < given.size(); ++k) {
    send_input(given[k].images, kind.inputs[k].images);
    send_input(given[k].labels, kind.inputs[k].labels);
  }
  if (kind.steps == kWarmUp + 2) {
    if (auto outputs = record(kind, step, work)) return *std::move(outputs);
    return launch(source_of(given), work);
  }
  kind.graph->replay(step);
  return kind.outputs;
}

StepOutputs StepRecorder::rehearse(Kind& kind, std::int64_t step, const Work& work) {
  cuda::trim(device_);  // what the steps before have left is of no use to the graph's pool
  if (!memory_) memory_ = std::make_shared<GraphMemory>(device_);
  kind.graph = std::make_unique<StepGraph>(memory_);
  StepOutputs outputs;
  const std::string why = kind.graph->rehearse(step, [&] { outputs = work(source_of(kind.inputs)); });
  if (!why.empty()) give_up(why);
  return outputs;
}

std::optional<StepOutputs> StepRecorder::record(Kind& kind, std::int64_t step, const Work& work) {
  const std::string why = kind.graph->record(step, [&] { kind.outputs = work(source_of(kind.inputs)); });
  if (!why.empty()) {
    give_up(why);
    return std::nullopt;
  }
  log_info("step {} is recorded: {} kernels, copies and fills; steps of its kind replay it", step, kind.graph->nodes());
  kind.outputs.replayed = true;
  return kind.outputs;
}

}  // namespace limbeck::apps
