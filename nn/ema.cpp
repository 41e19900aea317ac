// What this is: nn/ema.h on the chunk loop of nn/multi_tensor.h.
#include "nn/ema.h"

#include <algorithm>

#include "core/cuda.h"
#include "core/step_graph.h"
#include "nn/device_update.h"

namespace limbeck::nn {

Ema::Ema(Module& model, EmaOptions options) : options_(options) {
  LIMBECK_CHECK(options.decay >= 0 && options.decay < 1, "ema", "decay {}, expected 0 <= decay < 1", options.decay);
  const auto add = [&](const NamedTensor& t) {
    LIMBECK_CHECK(t.tensor.is_dense(), "ema", "'{}' is a view with gaps, expected a dense tensor", t.name);
    append_chunks(chunks_, live_.size(), t.tensor.numel());
    names_.push_back(t.name);
    live_.push_back(t.tensor.detach());
    average_.push_back(live_.back().copy());
  };
  for (const NamedTensor& t : model.named_parameters()) add(t);
  for (const NamedTensor& t : model.named_buffers()) add(t);
}

double Ema::decay_at(std::int64_t updates) const noexcept {
  if (!options_.ramp) return options_.decay;
  const auto t = static_cast<double>(updates);
  return std::min(options_.decay, (1.0 + t) / (10.0 + t));
}

void Ema::update() {
  const double d = decay();
  ++updates_;
  if (!live_.empty() && live_.front().device().is_cuda()) {
    update_on_device();
    return;
  }
  for_each_chunk(chunks_, [&](std::size_t, const Chunk& chunk) {
    visit_dtype(live_[chunk.tensor].dtype(), [&](auto tag) {
      using T = decltype(tag);
      T* __restrict a = average_[chunk.tensor].data<T>() + chunk.begin;
      const T* __restrict w = live_[chunk.tensor].data<T>() + chunk.begin;
      if constexpr (std::is_floating_point_v<T>) {
        const auto keep = static_cast<T>(d);
        const auto take = static_cast<T>(1.0 - d);
#pragma omp simd
        for (std::int64_t i = 0; i < chunk.count; ++i) a[i] = keep * a[i] + take * w[i];
      } else {
        std::copy_n(w, chunk.count, a);
      }
    });
  });
  for (const Tensor& t : average_) t.bump_version();
}

/// What is not floating, a counter, is on the host even there.
void Ema::copy_counters() {
  for (std::size_t i = 0; i < live_.size(); ++i) {
    if (!is_floating(live_[i].dtype())) average_[i].copy_(live_[i]);
  }
}

/// updates() already counts this one.
void Ema::update_on_device() {
  copy_counters();
  DeviceUpdates together;
  for (std::size_t i = 0; i < live_.size(); ++i) {
    if (!is_floating(live_[i].dtype())) continue;
    together.param.push_back(average_[i].data<float>());
    together.grad.push_back(live_[i].data<float>());
    together.count.push_back(live_[i].numel());
    average_[i].bump_version();
  }
  const auto keep = [this](std::int64_t) { return decay_at(updates_ - 1); };
  const auto take = [this](std::int64_t) { return 1.0 - decay_at(updates_ - 1); };
  const float* recorded = nullptr;
  if (StepGraph* graph = StepGraph::current()) {
    graph->on_replay([this](std::int64_t times) {
      updates_ += times;
      copy_counters();
    });
    recorded = graph->numbers({keep, take}).data<float>();
  }
  cuda::activate(live_.front().device(), "ema");
  average_cuda(together, {static_cast<float>(keep(0)), static_cast<float>(take(0))}, recorded);
}

void Ema::swap() {
  if (!live_.empty() && live_.front().device().is_cuda()) {
    for (std::size_t i = 0; i < live_.size(); ++i) {
      const Tensor live = live_[i].copy();
      live_[i].copy_(average_[i]);
      average_[i].copy_(live);
    }
    return;
  }
  for_each_chunk(chunks_, [&](std::size_t, const Chunk& chunk) {
    visit_dtype(live_[chunk.tensor].dtype(), [&](auto tag) {
      using T = decltype(tag);
      T* a = average_[chunk.tensor].data<T>() + chunk.begin;
      std::swap_ranges(a, a + chunk.count, live_[chunk.tensor].data<T>() + chunk.begin);
    });
  });
  for (std::size_t i = 0; i < live_.size(); ++i) {
    live_[i].bump_version();
    average_[i].bump_version();
  }
}

StateDict Ema::averages() const {
  StateDict out;
  for (std::size_t i = 0; i < names_.size(); ++i) out.emplace(names_[i], average_[i]);
  return out;
}

StateDict Ema::state_dict() const {
  StateDict out = averages();
  out.emplace("updates", Tensor::from(std::vector<std::int64_t>{updates_}, {1}));
  return out;
}

void Ema::load_state_dict(const StateDict& state) {
  const StateDict own = state_dict();
  std::string problems;
  for (const auto& [name, tensor] : own) {
    const auto found = state.find(name);
    if (found == state.end()) {
      problems += fmt::format("; '{}' is missing", name);
    } else if (found->second.shape() != tensor.shape() || found->second.dtype() != tensor.dtype()) {
      problems += fmt::format("; '{}' is {}, expected {}", name, found->second.describe(), tensor.describe());
    }
  }
  if (problems.empty() && state.size() != own.size()) {
    problems = fmt::format("; {} entries, expected {}", state.size(), own.size());
  }
  if (!problems.empty()) fail<WeightsError>("ema", "the saved averages do not fit this model{}", problems);
  for (std::size_t i = 0; i < names_.size(); ++i) average_[i].copy_(state.at(names_[i]));
  updates_ = static_cast<std::int64_t>(state.at("updates").item());
}

}  // namespace limbeck::nn
