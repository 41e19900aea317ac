// What this is: the formulas of nn/init.h.
#include "nn/init.h"

#include <cmath>

#include "core/autograd.h"

namespace limbeck::nn {
namespace {

double fan(const Tensor& w, FanMode mode) {
  const Fans fans = fans_of(w.shape());
  return static_cast<double>(mode == FanMode::kFanIn ? fans.in : fans.out);
}

}  // namespace

Fans fans_of(const Shape& shape) {
  LIMBECK_CHECK(shape.size() >= 2, "init", "fans of shape {}, expected at least two dimensions", shape);
  std::int64_t receptive = 1;
  for (std::size_t i = 2; i < shape.size(); ++i) receptive *= shape[i];
  return {shape[1] * receptive, shape[0] * receptive};
}

double relu_gain(double negative_slope) noexcept { return std::sqrt(2.0 / (1.0 + negative_slope * negative_slope)); }

void normal_(const Tensor& t, Generator& g, double mean, double stddev) {
  if (t.device().is_meta()) return;
  const NoGradGuard off;
  fill_normal_(t, g, mean, stddev);
  t.bump_version();
}

void uniform_(const Tensor& t, Generator& g, double low, double high) {
  if (t.device().is_meta()) return;
  const NoGradGuard off;
  fill_uniform_(t, g, low, high);
  t.bump_version();
}

void constant_(const Tensor& t, double value) {
  const NoGradGuard off;
  t.fill_(value);
}

void kaiming_normal_(const Tensor& w, Generator& g, FanMode mode, double gain) {
  normal_(w, g, 0.0, gain / std::sqrt(fan(w, mode)));
}

void kaiming_uniform_(const Tensor& w, Generator& g, FanMode mode, double gain) {
  const double bound = gain * std::sqrt(3.0 / fan(w, mode));
  uniform_(w, g, -bound, bound);
}

void xavier_normal_(const Tensor& w, Generator& g, double gain) {
  const Fans fans = fans_of(w.shape());
  normal_(w, g, 0.0, gain * std::sqrt(2.0 / static_cast<double>(fans.in + fans.out)));
}

void xavier_uniform_(const Tensor& w, Generator& g, double gain) {
  const Fans fans = fans_of(w.shape());
  const double bound = gain * std::sqrt(6.0 / static_cast<double>(fans.in + fans.out));
  uniform_(w, g, -bound, bound);
}

void init_layer_(const Tensor& w, const Tensor& b, Init init, Generator& g) {
  if (b.defined() && init != Init::kDefault) constant_(b, 0.0);
  switch (init) {
    case Init::kDefault: {
      // torch.nn writes this as kaiming_uniform with a = sqrt(5): sqrt(2/6) * sqrt(3/fan) = 1/sqrt(fan).
      const double bound = 1.0 / std::sqrt(fan(w, FanMode::kFanIn));
      uniform_(w, g, -bound, bound);
      if (b.defined()) uniform_(b, g, -bound, bound);
      return;
    }
    case Init::kKaimingNormalFanIn: kaiming_normal_(w, g, FanMode::kFanIn); return;
    case Init::kKaimingNormalFanOut: kaiming_normal_(w, g, FanMode::kFanOut); return;
    case Init::kNormal001: normal_(w, g, 0.0, 0.01); return;
    case Init::kZero: constant_(w, 0.0); return;
  }
}

}  // namespace limbeck::nn
