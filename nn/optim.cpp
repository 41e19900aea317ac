// What this is: what all optimizers share: groups, the parallel pass, saving and restoring. Rules: sgd.cpp, adamw.cpp.
#include "nn/optim.h"

#include <array>
#include <set>

#include "core/cuda.h"
#include "core/profile.h"
#include "core/rounded_copy.h"
#include "core/step_graph.h"
#include "nn/adamw.h"
#include "nn/sgd.h"

namespace limbeck::nn {

void assign_parameters(std::span<ParameterGroup> groups, const Module& module,
                       const std::function<int(const NamedTensor&)>& choose, const std::string& prefix) {
  for (const NamedTensor& p : module.named_parameters()) {
    if (!p.tensor.requires_grad()) continue;
    const int index = choose(p);
    if (index < 0) continue;
    LIMBECK_CHECK(static_cast<std::size_t>(index) < groups.size(), "optimizer", "{} was sent to group {} of {}", p.name,
                  index, groups.size());
    groups[static_cast<std::size_t>(index)].params.push_back({prefix + p.name, p.tensor});
  }
}

bool is_vector_parameter(const NamedTensor& p) noexcept { return p.tensor.ndim() <= 1; }

Optimizer::Optimizer(std::vector<ParameterGroup> groups) : groups_(std::move(groups)) {
  std::set<std::string> names;
  std::set<const TensorImpl*> tensors;
  for (std::size_t g = 0; g < groups_.size(); ++g) {
    for (const NamedTensor& p : groups_[g].params) {
      LIMBECK_CHECK(p.tensor.defined() && p.tensor.requires_grad() && p.tensor.is_leaf(), "optimizer",
                    "'{}' ({}) is not a trainable leaf; frozen parameters do not belong into a group", p.name,
                    p.tensor.describe());
      LIMBECK_CHECK(p.tensor.dtype() == DType::kF32 || p.tensor.dtype() == DType::kF64, "optimizer",
                    "'{}' is {}, expected f32 (master weights) or f64", p.name, name_of(p.tensor.dtype()));
      LIMBECK_CHECK(p.tensor.is_dense(), "optimizer", "'{}' is a view with gaps, expected a dense tensor", p.name);
      LIMBECK_CHECK(entries_.empty() || p.tensor.device() == entries_.front().param.device(), "optimizer",
                    "'{}' is on {}, other parameters on {}; expected one device", p.name, p.tensor.device().to_string(),
                    entries_.front().param.device().to_string());
      LIMBECK_CHECK(names.insert(p.name).second, "optimizer", "two parameters are called '{}'", p.name);
      LIMBECK_CHECK(tensors.insert(p.tensor.impl().get()).second, "optimizer", "'{}' is in the groups twice", p.name);
      entries_.push_back({p.name, g, p.tensor, {}, 0});
    }
  }
  LIMBECK_CHECK(!entries_.empty(), "optimizer", "no parameters in {} groups", groups_.size());
}

void Optimizer::add_slots(std::vector<std::string> names) {
  slot_names_ = std::move(names);
  for (Entry& entry : entries_) {
    for (std::size_t s = 0; s < slot_names_.size(); ++s) {
      entry.slots.push_back(Tensor::zeros(entry.param.shape(), entry.param.dtype(), entry.param.device()));
    }
  }
}

template <class T>
void Optimizer::update_chunk(const Chunk& chunk, double lr) const {
  const Entry& entry = entries_[chunk.tensor];
  const ParameterGroup& group = groups_[entry.group];
  std::array<T*, 4> slots{};
  for (std::size_t s = 0; s < entry.slots.size(); ++s) slots.at(s) = entry.slots[s].data<T>() + chunk.begin;
  update(entry, group, group.rate(lr),
         Piece<T>{entry.param.data<T>() + chunk.begin, grads_[chunk.tensor].data<T>() + chunk.begin,
                  std::span<T* const>(slots.data(), entry.slots.size()), chunk.count});
}

void Optimizer::count_update(std::size_t entry, std::int64_t times) {
  const Tensor& param = entries_[entry].param;
  entries_[entry].updates += times;
  param.bump_version();
  if (times > 0) rounded_copy_is_current(param);  // the kernel writes both
}

void Optimizer::step(double lr) {
  const ProfileRange range("optimizer");
  rate_ = lr;
  StepGraph* graph = StepGraph::current();
  grads_.resize(entries_.size());
  chunks_.clear();
  for (std::size_t i = 0; i < entries_.size(); ++i) {
    Entry& entry = entries_[i];
    grads_[i] = entry.param.grad();
    if (!grads_[i].defined()) continue;
    LIMBECK_CHECK(grads_[i].dtype() == entry.param.dtype() && grads_[i].shape() == entry.param.shape(), "optimizer",
                  "gradient of '{}' is {}, expected {}", entry.name, grads_[i].describe(), entry.param.describe());
    grads_[i] = grads_[i].dense();
    count_update(i, 1);
    if (graph != nullptr) graph->on_replay([this, i](std::int64_t times) { count_update(i, times); });
    append_chunks(chunks_, i, entry.param.numel());
  }
  const Device device = entries_.front().param.device();
  if (device.is_cuda()) update_on_device(device);
  if (device.is_cpu()) {
    for_each_chunk(chunks_, [&](std::size_t, const Chunk& chunk) {
      if (entries_[chunk.tensor].param.dtype() == DType::kF32) {
        update_chunk<float>(chunk, lr);
      } else {
        update_chunk<double>(chunk, lr);
      }
    });
  }
  for (Tensor& grad : grads_) grad = Tensor();  // a kept handle would stop the tape from reusing the gradient's memory
  ++steps_;
  if (graph != nullptr) graph->on_replay([this](std::int64_t times) { steps_ += times; });
}

/// Of the parameters that are updated together with this one.
StepNumbers Optimizer::numbers_of(std::size_t entry) const {
  const auto with_rate = [this, entry](double lr) {
    const ParameterGroup& group = groups_[entries_[entry].group];
    return step_numbers(group, group.rate(lr), entries_[entry].updates);
  };
  StepNumbers numbers{with_rate(rate_)};
  if (StepGraph* graph = StepGraph::current()) {
    std::vector<StepGraph::NumberAt> at;
    for (std::size_t i = 0; i < numbers.values.size(); ++i) {
      at.emplace_back([this, with_rate, i](std::int64_t step) {
        return with_rate(rate_of_steps_ ? rate_of_steps_(step) : rate_)[i];
      });
    }
    numbers.recorded = graph->numbers(at).data<float>();
  }
  return numbers;
}

/// Consecutive parameters of one group and age go into one launch.
void Optimizer::update_on_device(Device device) {
  cuda::activate(device, "optimizer");
  DeviceUpdates& u = device_updates_;
  for (std::size_t i = 0; i < entries_.size(); ++i) {
    const Entry& entry = entries_[i];
    if (grads_[i].defined()) {
      u.param.push_back(entry.param.data<float>());
      u.grad.push_back(grads_[i].data<float>());
      u.count.push_back(entry.param.numel());
      u.rounded.push_back(rounded_target(entry.param));
      if (!entry.slots.empty()) u.first.push_back(entry.slots[0].data<float>());
      if (entry.slots.size() > 1) u.second.push_back(entry.slots[1].data<float>());
    }
    const bool last =
        i + 1 == entries_.size() || entries_[i + 1].group != entry.group || entries_[i + 1].updates != entry.updates;
    if (!last || u.param.empty()) continue;
    update(u, groups_[entry.group], numbers_of(i));
    u.clear();
  }
}

void Optimizer::zero_grad() {
  for (const Entry& entry : entries_) entry.param.set_grad(Tensor());
}

std::vector<Tensor> Optimizer::parameters() const {
  std::vector<Tensor> out;
  out.reserve(entries_.size());
  for (const Entry& entry : entries_) out.push_back(entry.param);
  return out;
}

StateDict Optimizer::state_dict() const {
  StateDict out;
  out.emplace("steps", Tensor::from(std::vector<std::int64_t>{steps_}, {1}));
  for (const Entry& entry : entries_) {
    out.emplace("updates." + entry.name, Tensor::from(std::vector<std::int64_t>{entry.updates}, {1}));
    for (std::size_t s = 0; s < slot_names_.size(); ++s) out.emplace(slot_names_[s] + "." + entry.name, entry.slots[s]);
  }
  return out;
}

void Optimizer::load_state_dict(const StateDict& state) {
  std::string problems;
  std::size_t expected = 0;
  const auto check = [&](const std::string& name, const Shape& shape, DType dtype) {
    ++expected;
    const auto found = state.find(name);
    if (found == state.end()) {
      problems += fmt::format("; '{}' is missing", name);
    } else if (found->second.shape() != shape || found->second.dtype() != dtype) {
      problems += fmt::format("; '{}' is {}, expected {} {}", name, found->second.describe(), name_of(dtype), shape);
    }
  };
  check("steps", {1}, DType::kI64);
  for (const Entry& entry : entries_) {
    check("updates." + entry.name, {1}, DType::kI64);
    for (const std::string& slot : slot_names_)
      check(slot + "." + entry.name, entry.param.shape(), entry.param.dtype());
  }
  if (problems.empty() && state.size() != expected) {
    problems = fmt::format("; {} entries, expected {}", state.size(), expected);
  }
  if (!problems.empty()) {
    fail<WeightsError>("optimizer", "the saved state does not fit this {}{}; nothing was changed", type(), problems);
  }
  const auto number = [&](const std::string& name) { return *state.at(name).dense().data<std::int64_t>(); };
  steps_ = number("steps");
  for (Entry& entry : entries_) {
    entry.updates = number("updates." + entry.name);
    for (std::size_t s = 0; s < slot_names_.size(); ++s)
      entry.slots[s].copy_(state.at(slot_names_[s] + "." + entry.name));
  }
}

std::unique_ptr<Optimizer> make_optimizer(const OptimizerOptions& o, std::vector<ParameterGroup> groups) {
  if (o.name == "sgd") {
    return std::make_unique<Sgd>(std::move(groups), SgdOptions{.momentum = o.momentum, .nesterov = o.nesterov});
  }
  if (o.name == "adamw") {
    return std::make_unique<AdamW>(std::move(groups), AdamWOptions{.beta1 = o.beta1, .beta2 = o.beta2, .eps = o.eps});
  }
  fail<ConfigError>("optimizer", "unknown optimizer '{}'; choose sgd or adamw", o.name);
}

}  // namespace limbeck::nn
