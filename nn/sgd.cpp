// What this is: the update rule of nn/sgd.h: one read of g, one read and write of v and w per element.
#include "nn/sgd.h"

namespace limbeck::nn {
namespace {

template <class T>
void sgd_loop(T* __restrict w, const T* __restrict g, T* __restrict v, std::int64_t count, T lr, T decay, T momentum,
              bool nesterov) {
  if (v == nullptr) {
#pragma omp simd
    for (std::int64_t i = 0; i < count; ++i) w[i] -= lr * (g[i] + decay * w[i]);
  } else if (nesterov) {
#pragma omp simd
    for (std::int64_t i = 0; i < count; ++i) {
      const T d = g[i] + decay * w[i];
      const T m = momentum * v[i] + d;
      v[i] = m;
      w[i] -= lr * (d + momentum * m);
    }
  } else {
#pragma omp simd
    for (std::int64_t i = 0; i < count; ++i) {
      const T m = momentum * v[i] + (g[i] + decay * w[i]);
      v[i] = m;
      w[i] -= lr * m;
    }
  }
}

template <class T, class Piece>
void run(const SgdOptions& o, double weight_decay, double lr, const Piece& p) {
  sgd_loop<T>(p.param, p.grad, p.slots.empty() ? nullptr : p.slots[0], p.count, static_cast<T>(lr),
              static_cast<T>(weight_decay), static_cast<T>(o.momentum), o.nesterov);
}

}  // namespace

Sgd::Sgd(std::vector<ParameterGroup> groups, SgdOptions options) : Optimizer(std::move(groups)), options_(options) {
  LIMBECK_CHECK(options.momentum >= 0.0 && options.momentum < 1.0, "sgd", "momentum {}, expected 0 <= momentum < 1",
                options.momentum);
  LIMBECK_CHECK(!options.nesterov || options.momentum > 0.0, "sgd", "Nesterov needs momentum > 0");
  if (options.momentum > 0.0) add_slots({"momentum"});
}

void Sgd::update(const Entry&, const ParameterGroup& group, double lr, const Piece<float>& piece) const {
  run<float>(options_, group.weight_decay, lr, piece);
}
void Sgd::update(const Entry&, const ParameterGroup& group, double lr, const Piece<double>& piece) const {
  run<double>(options_, group.weight_decay, lr, piece);
}

std::array<double, 3> Sgd::step_numbers(const ParameterGroup&, double lr, std::int64_t) const { return {lr}; }

void Sgd::update(const DeviceUpdates& updates, const ParameterGroup& group, const StepNumbers& numbers) const {
  sgd_update_cuda(
      updates,
      {numbers.at(0), static_cast<float>(group.weight_decay), static_cast<float>(options_.momentum), options_.nesterov},
      numbers.recorded);
}

}  // namespace limbeck::nn
