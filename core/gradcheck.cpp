#include "core/gradcheck.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "core/autograd.h"
#include "core/rng.h"

namespace limbeck {
namespace {

/// Objective = sum(weights * f(inputs)) with fixed random weights, so that every output element matters differently.
struct Objective {
  const std::function<Tensor(std::span<const Tensor>)>& function;
  std::span<const Tensor> inputs;
  Tensor weights;  // f64, shape of the output

  [[nodiscard]] std::vector<double> values() const {
    const NoGradGuard off;
    return function(inputs).to_vector<double>();
  }
  /// Objective at outputs `above` minus objective at outputs `below`. Subtracting element by element first keeps the
  /// digits that the difference of two large sums would lose.
  [[nodiscard]] double change(const std::vector<double>& above, const std::vector<double>& below) const {
    const auto w = weights.to_vector<double>();  // logical order, as values()
    double sum = 0;
    for (std::size_t i = 0; i < above.size(); ++i) sum += w[i] * (above[i] - below[i]);
    return sum;
  }
};

/// Element of a tensor by logical row-major index.
double& element(const Tensor& t, std::int64_t index) {
  std::int64_t offset = 0;
  for (std::size_t d = t.shape().size(); d-- > 0;) {
    offset += index % t.shape()[d] * t.strides()[d];
    index /= t.shape()[d];
  }
  return t.data<double>()[offset];
}

GradcheckResult failed(GradcheckResult result, std::string message) {
  result.ok = false;
  if (result.message.empty()) result.message = std::move(message);
  return result;
}

}  // namespace

GradcheckResult gradcheck(const std::function<Tensor(std::span<const Tensor>)>& function,
                          std::span<const Tensor> inputs, const GradcheckOptions& options) {
  GradcheckResult result;
  for (const Tensor& t : inputs) {
    if (t.requires_grad()) {
      LIMBECK_CHECK(t.dtype() == DType::kF64, "gradcheck", "input of type {}, expected f64", name_of(t.dtype()));
      t.set_grad({});
    }
  }
  const Tensor y = function(inputs);
  Objective objective{function, inputs, Tensor::empty(y.shape(), DType::kF64)};
  Generator generator(options.seed);
  fill_uniform_(objective.weights, generator, 0.5, 1.5);

  const auto first = y.to_vector<double>();
  const auto second = objective.values();
  if (std::memcmp(first.data(), second.data(), first.size() * sizeof(double)) != 0) {
    return failed(result, "the function is not deterministic: two calls differ");
  }

  backward(y, objective.weights);
  std::vector<std::vector<double>> analytic;
  for (const Tensor& t : inputs) {
    if (!t.requires_grad()) {
      analytic.emplace_back();
      continue;
    }
    if (!t.grad().defined()) return failed(result, fmt::format("input {} got no gradient", analytic.size()));
    if (t.grad().shape() != t.shape()) {
      return failed(result, fmt::format("gradient of input {} has shape {}, expected {}", analytic.size(),
                                        t.grad().shape(), t.shape()));
    }
    analytic.push_back(t.grad().to_vector<double>());
  }
  // Once more: gradients must be added to what is there.
  backward(function(inputs), objective.weights);

  for (std::size_t k = 0; k < inputs.size(); ++k) {
    const Tensor& t = inputs[k];
    if (!t.requires_grad()) continue;
    const auto twice = t.grad().to_vector<double>();
    for (std::size_t i = 0; i < twice.size(); ++i) {
      if (std::abs(twice[i] - 2 * analytic[k][i]) > 1e-12 * std::max(1.0, std::abs(twice[i]))) {
        return failed(result, fmt::format("input {} element {}: a second backward gave {}, expected the sum {}", k, i,
                                          twice[i], 2 * analytic[k][i]));
      }
    }
    // An odd stride visits different channels and rows of a regular tensor.
    const std::int64_t stride = std::max<std::int64_t>(1, t.numel() / options.max_elements) | 1;
    const NoGradGuard off;
    for (std::int64_t i = 0; i < t.numel(); i += stride) {
      double& x = element(t, i);
      const auto set = [&](double value) {
        x = value;
        t.bump_version();  // caches keyed by the version must notice
      };
      const double kept = x;
      set(kept + options.step);
      const auto above = objective.values();
      set(kept - options.step);
      const auto below = objective.values();
      set(kept);
      const double numeric = objective.change(above, below) / (2 * options.step);
      if (options.kink_tolerance > 0) {
        const auto here = objective.values();
        const double right = objective.change(above, here) / options.step;
        const double left = objective.change(here, below) / options.step;
        if (std::abs(right - left) > options.kink_tolerance * std::max(1.0, std::abs(numeric))) {
          ++result.skipped_kinks;
          continue;
        }
      }
      ++result.checked;
      const double a = analytic[k][static_cast<std::size_t>(i)];
      const double error = std::abs(a - numeric);
      result.worst_error = std::max(result.worst_error, error / (options.atol / options.rtol + std::abs(numeric)));
      if (!(error <= options.atol + options.rtol * std::abs(numeric))) {
        result =
            failed(result, fmt::format("input {} element {}: analytic {:.10g}, numeric {:.10g}", k, i, a, numeric));
      }
    }
  }
  return result;
}

}  // namespace limbeck
