// Glue of the partial distance, and the margin.
#include "distill/ofd_kd.h"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <vector>

#include "distill/check_pair.h"
#include "distill/ofd_kd_kernels.h"
#include "distill/pair_loss.h"

namespace limbeck::distill {
namespace {

constexpr const char* kLoss = "ofd_kd";

double expected_negative(double mu, double s) {
  if (s == 0) return std::min(mu, 0.0);
  const double z = mu / s;
  const double density = std::exp(-z * z / 2) / std::sqrt(2 * std::numbers::pi);
  const double below = std::erfc(z / std::numbers::sqrt2) / 2;  // Phi(-z)
  return below > 1e-3 ? mu - s * density / below : -3 * s;
}

}  // namespace

Tensor ofd_kd(const Tensor& student, const Tensor& teacher, const Tensor& margin) {
  check_pair(kLoss, student, teacher);
  LIMBECK_CHECK(student.ndim() == 4, kLoss, "maps of shape {}, expected [N,C,H,W]", student.shape());
  ops::check_float(kLoss, margin);
  LIMBECK_CHECK(margin.shape() == Shape{student.size(1)}, kLoss,
                "margin of shape {}, expected one number per channel, [{}]", margin.shape(), student.size(1));
  return run_pair_loss(kLoss, student, teacher,
                       [&](const Tensor& s, const Tensor& t, const Tensor& loss, const Tensor& gradient) {
                         const Tensor m = s.device().is_meta() ? margin : margin.copy_as(DType::kF64);
                         kOfdKd(s.device(), s.dtype(), s.view(), t.view(), m.view(), loss.view(), gradient.view());
                       });
}

Tensor ofd_margin(const Tensor& weight, const Tensor& bias) {
  LIMBECK_CHECK(weight.ndim() == 1 && weight.shape() == bias.shape(), kLoss,
                "weight of shape {}, bias of shape {}, expected [C]", weight.shape(), bias.shape());
  const auto s = weight.to_vector<double>();
  const auto mu = bias.to_vector<double>();
  std::vector<float> margin;
  for (std::size_t c = 0; c < s.size(); ++c)
    margin.push_back(static_cast<float>(expected_negative(mu[c], std::abs(s[c]))));
  return Tensor::from(margin, weight.shape()).to(weight.device());
}

}  // namespace limbeck::distill
