// What this is: numeric check of analytic gradients by central differences, in double precision. Public, so that
//   users can check their own losses.
#pragma once

#include <functional>
#include <span>
#include <string>
#include <vector>

#include "core/tensor.h"

namespace limbeck {

struct GradcheckOptions {
  double step = 1e-6;  ///< half width of the central difference
  double atol = 1e-7;  ///< |analytic - numeric| <= atol + rtol * |numeric|
  double rtol = 1e-5;
  std::int64_t max_elements = 64;  ///< per input; larger inputs are sampled at a fixed stride
  std::uint64_t seed = 1;          ///< of the random weights that reduce a non-scalar output to one number
  /// A kink (ReLU at 0, ties of a max): if the two one-sided differences disagree by more than this fraction, the
  /// element is skipped. 0: never skip.
  double kink_tolerance = 0.0;
};

struct GradcheckResult {
  bool ok = true;
  std::int64_t checked = 0;
  std::int64_t skipped_kinks = 0;
  double worst_error = 0.0;  ///< largest |analytic - numeric| / (atol/rtol + |numeric|)
  std::string message;       ///< first failure: input, element, analytic and numeric value
};

/// Compares the gradients of `function` with central differences at `inputs` (f64 leaves that require grad).
/// The function must be deterministic: it is called twice and must repeat bit for bit. Also checks that a second
/// backward accumulates ("+=") into existing gradients and that gradients have the shape of their inputs.
[[nodiscard]] GradcheckResult gradcheck(const std::function<Tensor(std::span<const Tensor>)>& function,
                                        std::span<const Tensor> inputs, const GradcheckOptions& options = {});

}  // namespace limbeck
