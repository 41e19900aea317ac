// What this is: see models/frozen_model.h.
#include "models/frozen_model.h"

#include <algorithm>

#include "core/autocast.h"
#include "core/autograd.h"
#include "core/dispatch.h"
#include "core/log.h"

namespace limbeck::models {

nn::Graph logits_graph(Model& model) {
  return nn::capture([&](const Tensor& x) { return model.forward(x).logits; });
}

FrozenModel::FrozenModel(Model& model, std::vector<std::string> taps) : model_(model), taps_(std::move(taps)) {}

bool FrozenModel::may_plan(const Tensor& images) const {
  return !refused_ && images.device().is_cpu() && (images.dtype() == DType::kF32 || images.dtype() == DType::kBF16) &&
         !model_.is_training() && !ReferenceGuard::active();
}

void FrozenModel::make(DType compute) {
  plan_.reset();
  sources_.clear();
  for (const auto& list : {model_.named_parameters(), model_.named_buffers()}) {
    for (const auto& t : list) {
      sources_.push_back({t.tensor, t.tensor.version()});
      if (t.tensor.dtype() == DType::kF64) refused_ = true;  // a network that is to be computed exactly
    }
  }
  if (refused_) return;
  const ops::F32Math math = ops::f32_math_setting();  // a misspelt setting is no reason to go on without a plan
  try {
    plan_.emplace(nn::capture_all([&](const Tensor& x) {
                    const Output out = model_.forward(x, taps_);
                    std::vector<Tensor> results{out.logits};
                    for (const auto& name : taps_) results.push_back(out.taps.at(name));
                    return results;
                  }),
                  compute, math);
    compute_ = compute;
  } catch (const Error& e) {
    refused_ = true;
    log_info("{} runs layer by layer: {}", model_.spec().name.empty() ? model_.type() : model_.spec().name, e.what());
  }
}

nn::FrozenPlan* FrozenModel::plan_for(DType compute) {
  const bool current =
      plan_ && compute_ == compute &&
      std::all_of(sources_.begin(), sources_.end(), [](const Source& s) { return s.tensor.version() == s.version; });
  if (!current) make(compute);
  return plan_ ? &*plan_ : nullptr;
}

Output FrozenModel::operator()(const Tensor& images) {
  const NoGradGuard off;
  planned_ = false;
  if (may_plan(images)) {
    const bool low = AutocastGuard::enabled() || images.dtype() == DType::kBF16;
    if (nn::FrozenPlan* plan = plan_for(low ? DType::kBF16 : DType::kF32)) {
      planned_ = true;
      PooledVector<Tensor> taps(taps_.size());
      Output out;
      out.logits = plan->run(images, taps);
      for (std::size_t i = 0; i < taps.size(); ++i) out.taps.emplace(taps_[i], taps[i]);
      return out;
    }
  }
  return model_.forward(images, taps_);
}

}  // namespace limbeck::models
