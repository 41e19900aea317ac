#include "tests/harness/op_case.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "core/autograd.h"
#include "core/dispatch.h"
#include "core/gradcheck.h"

namespace limbeck::test {

Tensor random_normal(Generator& g, const Shape& shape) {
  Tensor t = Tensor::empty(shape, DType::kF64);
  fill_normal_(t, g, 0.0, 1.0);
  return t;
}

Tensor random_uniform(Generator& g, const Shape& shape, double low, double high) {
  Tensor t = Tensor::empty(shape, DType::kF64);
  fill_uniform_(t, g, low, high);
  return t;
}

Tensor random_labels(Generator& g, const Shape& shape, std::int64_t classes, double ignore_share) {
  std::vector<std::uint8_t> ids(static_cast<std::size_t>(shape.numel()));
  for (auto& id : ids) {
    const bool ignored = g.uniform() < ignore_share;
    const auto drawn = static_cast<std::uint8_t>(g.below(static_cast<std::uint64_t>(classes)));
    id = ignored ? std::uint8_t{255} : drawn;
  }
  return Tensor::from(ids, shape);
}

double relative_error(const Tensor& actual, const Tensor& expected) {
  if (!actual.defined() || !expected.defined() || actual.shape() != expected.shape()) {
    return std::numeric_limits<double>::infinity();
  }
  const auto a = actual.to_vector<double>();
  const auto b = expected.to_vector<double>();
  double difference = 0;
  double largest = 1e-6;
  for (std::size_t i = 0; i < a.size(); ++i) {
    if (a[i] == b[i]) continue;  // equal infinities
    if (!std::isfinite(a[i]) || !std::isfinite(b[i])) return std::numeric_limits<double>::infinity();
    difference = std::max(difference, std::abs(a[i] - b[i]));
  }
  for (const double v : b) largest = std::max(largest, std::abs(v));
  return difference / largest;
}

namespace {

struct Run {
  Tensor value;
  std::vector<Tensor> gradients;  // undefined where the input has none
};

bool contains(const std::vector<std::size_t>& list, std::size_t i) {
  return std::find(list.begin(), list.end(), i) != list.end();
}

/// Copies of the inputs in the type of the mode; `layout` gives the strides of the copy.
std::vector<Tensor> convert(const OpCase& c, const std::vector<Tensor>& inputs, DType dtype,
                            const std::function<Strides(const Shape&)>& layout = default_strides) {
  std::vector<Tensor> out;
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    DType type = inputs[i].dtype();
    if (is_floating(type)) type = dtype == DType::kBF16 && contains(c.keep_f32, i) ? DType::kF32 : dtype;
    Tensor t = Tensor::empty_strided(inputs[i].shape(), layout(inputs[i].shape()), type);
    t.copy_(inputs[i]);
    out.push_back(t);
  }
  return out;
}

/// The inputs rounded to `dtype` and brought back to f64: what the reference must see to be comparable.
std::vector<Tensor> rounded(const OpCase& c, const std::vector<Tensor>& inputs, DType dtype) {
  return convert(c, convert(c, inputs, dtype), DType::kF64);
}

Run run(const OpCase& c, const std::vector<Tensor>& inputs) {
  if (c.differentiable) {
    for (std::size_t i = 0; i < inputs.size(); ++i) {
      if (is_floating(inputs[i].dtype()) && !contains(c.fixed, i)) {
        inputs[i].set_requires_grad(true);
        inputs[i].set_grad({});
      }
    }
  }
  Run result;
  const Tensor y = c.forward(inputs);
  result.value = y.detach();
  if (!c.differentiable) return result;
  // A fixed seed gradient, representable in bf16 so that every mode sees the same numbers.
  Tensor seed = Tensor::empty(y.shape(), DType::kBF16);
  Generator g(77);
  fill_uniform_(seed, g, 0.25, 1.25);
  backward(y, seed.copy_as(y.dtype()).to(y.device()));
  for (const Tensor& t : inputs) result.gradients.push_back(t.grad());
  return result;
}

void check_close(const Run& actual, const Run& expected, double tolerance, const char* mode) {
  INFO("mode: ", mode);
  CHECK_MESSAGE(relative_error(actual.value, expected.value) <= tolerance, "value differs by ",
                relative_error(actual.value, expected.value), " > ", tolerance);
  for (std::size_t i = 0; i < expected.gradients.size(); ++i) {
    if (!expected.gradients[i].defined()) {
      CHECK(!actual.gradients[i].defined());
      continue;
    }
    CHECK_MESSAGE(relative_error(actual.gradients[i], expected.gradients[i]) <= tolerance, "gradient of input ", i,
                  " differs by ", relative_error(actual.gradients[i], expected.gradients[i]), " > ", tolerance);
  }
}

bool same_bits(const Tensor& a, const Tensor& b) {
  if (a.defined() != b.defined()) return false;
  if (!a.defined()) return true;
  if (a.shape() != b.shape() || a.dtype() != b.dtype()) return false;
  const Tensor x = a.copy().to(kCpu);
  const Tensor y = b.copy().to(kCpu);
  return std::memcmp(x.raw_data(), y.raw_data(), static_cast<std::size_t>(x.numel()) * size_of(x.dtype())) == 0;
}

void check_same(const Run& a, const Run& b, const char* mode) {
  INFO("mode: ", mode);
  CHECK(same_bits(a.value, b.value));
  REQUIRE(a.gradients.size() == b.gradients.size());
  for (std::size_t i = 0; i < a.gradients.size(); ++i) {
    INFO("gradient of input ", i);
    CHECK(same_bits(a.gradients[i], b.gradients[i]));
  }
}

Strides every_second(const Shape& shape) {
  Strides s = default_strides(shape);
  for (auto& v : s) v *= 2;
  return s;
}

void check_gradient(const OpCase& c, const std::vector<Tensor>& inputs) {
  const auto leaves = convert(c, inputs, DType::kF64);
  for (std::size_t i = 0; i < leaves.size(); ++i) {
    if (is_floating(leaves[i].dtype()) && !contains(c.fixed, i)) leaves[i].set_requires_grad(true);
  }
  GradcheckOptions options;
  if (c.kinks) options.kink_tolerance = 1e-3;
  const auto result = gradcheck(c.forward, leaves, options);
  INFO("mode: f64 gradient check");
  CHECK_MESSAGE(result.ok, result.message);
  CHECK(result.checked > 0);
}

void check_meta(const OpCase& c, const std::vector<Tensor>& inputs, const Tensor& value) {
  std::vector<Tensor> shapes;
  for (const Tensor& t : inputs) {
    const DType type = is_floating(t.dtype()) ? DType::kF32 : t.dtype();
    shapes.push_back(Tensor::empty(t.shape(), type, kMeta));
  }
  const NoGradGuard off;
  const Tensor y = c.forward(shapes);
  INFO("mode: meta device");
  CHECK(y.device().is_meta());
  CHECK(y.shape() == value.shape());
  CHECK(y.dtype() == value.dtype());
}

}  // namespace

void check_case(const OpCase& c) {
  CAPTURE(c.op);
  CAPTURE(c.label);
  Generator g(1234);
  const std::vector<Tensor> inputs = c.inputs(g);

  if (c.differentiable && c.check_derivative) check_gradient(c, inputs);

  const Run exact = run(c, rounded(c, inputs, DType::kF32));
  {
    const ReferenceGuard reference;
    check_close(run(c, convert(c, inputs, DType::kF32)), exact, c.f32_tolerance, "f32 reference against f64");
  }
  const Run fast = run(c, convert(c, inputs, DType::kF32));
  check_close(fast, exact, c.f32_tolerance, "f32 fast kernel against f64");
  if (c.bf16) {
    const Run exact_low = run(c, rounded(c, inputs, DType::kBF16));
    check_close(run(c, convert(c, inputs, DType::kBF16)), exact_low, c.bf16_tolerance, "bf16 fast kernel against f64");
  }
  check_close(run(c, convert(c, inputs, DType::kF32, row_major_strides)), exact, c.f32_tolerance, "row-major inputs");
  check_close(run(c, convert(c, inputs, DType::kF32, every_second)), exact, c.f32_tolerance, "strided inputs");
  {
    const PoisonGuard poison;
    check_same(run(c, convert(c, inputs, DType::kF32)), fast, "NaN-poisoned memory");
    if (c.bf16) {
      const Run low = run(c, convert(c, inputs, DType::kBF16));
      check_same(low, run(c, convert(c, inputs, DType::kBF16)), "NaN-poisoned memory, bf16");
    }
  }
  check_same(run(c, convert(c, inputs, DType::kF32)), fast, "repeated call");
  if (c.meta) check_meta(c, inputs, fast.value);
}

void check_case_on(Device device, const OpCase& c) {
  CAPTURE(c.op);
  CAPTURE(c.label);
  CAPTURE(device.to_string());
  Generator g(1234);
  const std::vector<Tensor> inputs = c.inputs(g);
  const auto run_there = [&](DType dtype, const std::function<Strides(const Shape&)>& layout = default_strides) {
    std::vector<Tensor> there;
    for (const Tensor& t : convert(c, inputs, dtype, layout)) {
      Tensor moved = Tensor::empty_strided(t.shape(), t.strides(), t.dtype(), device);
      moved.copy_(t);
      there.push_back(moved);
    }
    const Run result = run(c, there);
    CHECK(result.value.device() == device);
    for (const Tensor& t : result.gradients) CHECK((!t.defined() || t.device() == device));
    return result;
  };

  const Run exact = run(c, rounded(c, inputs, DType::kF32));
  const Run fast = run_there(DType::kF32);
  check_close(fast, exact, c.f32_tolerance, "f32");
  check_close(run_there(DType::kF32, row_major_strides), exact, c.f32_tolerance, "row-major inputs");
  check_close(run_there(DType::kF32, every_second), exact, c.f32_tolerance, "strided inputs");
  const PoisonGuard poison;
  check_same(run_there(DType::kF32), fast, "NaN-poisoned memory");
  check_same(run_there(DType::kF32), fast, "repeated call");
  if (!c.bf16) return;
  const Run low = run_there(DType::kBF16);
  check_close(low, run(c, rounded(c, inputs, DType::kBF16)), c.bf16_tolerance, "bf16");
  check_same(run_there(DType::kBF16), low, "repeated call, bf16");
}

void check_cases(const std::vector<OpCase>& cases) {
  REQUIRE(!cases.empty());
  for (const OpCase& c : cases) check_case(c);
}

}  // namespace limbeck::test
