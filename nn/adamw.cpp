// What this is: the update rule of nn/adamw.h.
#include "nn/adamw.h"

#include <cmath>

namespace limbeck::nn {
namespace {

template <class T, class Piece>
void run(const AdamWOptions& o, std::int64_t updates, double weight_decay, double lr, const Piece& p) {
  const auto t = static_cast<double>(updates);
  const auto keep = static_cast<T>(1.0 - lr * weight_decay);
  const auto step = static_cast<T>(lr / (1.0 - std::pow(o.beta1, t)));
  const auto root = static_cast<T>(std::sqrt(1.0 - std::pow(o.beta2, t)));
  const auto b1 = static_cast<T>(o.beta1);
  const auto b2 = static_cast<T>(o.beta2);
  const auto c1 = static_cast<T>(1.0 - o.beta1);
  const auto c2 = static_cast<T>(1.0 - o.beta2);
  const auto eps = static_cast<T>(o.eps);
  T* __restrict w = p.param;
  T* __restrict m = p.slots[0];
  T* __restrict v = p.slots[1];
  const T* __restrict g = p.grad;
#pragma omp simd
  for (std::int64_t i = 0; i < p.count; ++i) {
    m[i] = b1 * m[i] + c1 * g[i];
    v[i] = b2 * v[i] + c2 * g[i] * g[i];
    w[i] = keep * w[i] - step * m[i] / (std::sqrt(v[i]) / root + eps);
  }
}

}  // namespace

AdamW::AdamW(std::vector<ParameterGroup> groups, AdamWOptions options)
    : Optimizer(std::move(groups)), options_(options) {
  LIMBECK_CHECK(options.beta1 >= 0 && options.beta1 < 1 && options.beta2 >= 0 && options.beta2 < 1 && options.eps > 0,
                "adamw", "beta1 {}, beta2 {}, eps {}; expected betas in [0, 1) and eps > 0", options.beta1,
                options.beta2, options.eps);
  add_slots({"exp_avg", "exp_avg_sq"});
}

void AdamW::update(const Entry& entry, const ParameterGroup& group, double lr, const Piece<float>& piece) const {
  run<float>(options_, entry.updates, group.weight_decay, lr, piece);
}
void AdamW::update(const Entry& entry, const ParameterGroup& group, double lr, const Piece<double>& piece) const {
  run<double>(options_, entry.updates, group.weight_decay, lr, piece);
}

std::array<double, 3> AdamW::step_numbers(const ParameterGroup& group, double lr, std::int64_t count) const {
  const auto t = static_cast<double>(count);
  return {1.0 - lr * group.weight_decay, lr / (1.0 - std::pow(options_.beta1, t)),
          std::sqrt(1.0 - std::pow(options_.beta2, t))};
}

void AdamW::update(const DeviceUpdates& updates, const ParameterGroup&, const StepNumbers& numbers) const {
  const auto number = [](double v) { return static_cast<float>(v); };
  adamw_update_cuda(updates,
                    {numbers.at(0), numbers.at(1), numbers.at(2), number(options_.beta1), number(options_.beta2),
                     number(1.0 - options_.beta1), number(1.0 - options_.beta2), number(options_.eps)},
                    numbers.recorded);
}

}  // namespace limbeck::nn
