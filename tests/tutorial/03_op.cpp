// Tutorial 3: writing an op. The op is swish, y = x s(x) with the logistic function s(x) = 1 / (1 + e^-x); the activation
// of some mobile networks. Everything an op needs is here in one file; inside the library each part has its own file,
// named in the headings. ops/README.md tells the same story in five steps.
//
// Run it with `ctest --test-dir build -R tutorial_03 -V`. Before: 02_autograd.cpp. Next: 04_module.cpp, or the
// code of a real op, e.g. ops/dropout.*.
//
// Words: the contract is the comment that says what the op promises; a kernel is a plain function on memory; the glue is the
// code between: checks, memory, choice of the kernel, tape. Autocast runs marked parts of a program in bf16; "keep" says that
// this op then takes its input as it comes (ops/README.md).
#include <cmath>
#include <vector>

#include "core/autograd.h"
#include "core/dispatch.h"
#include "core/gradcheck.h"
#include "core/parallel.h"
#include "core/rng.h"
#include "core/vec_math.h"
#include "ops/copy.h"
#include "ops/elementwise.h"
#include "ops/reduce.h"
#include "tests/tutorial/expect.h"

using namespace limbeck;
using tutorial::expect;
using tutorial::section;

namespace {

// --- swish.h: the contract --------------------------------------------------------------------------------------------

/// Swish activation.
/// Formula:  y = x s(x), s(x) = 1 / (1 + e^-x)
/// Shapes:   x any; returns the same
/// Types:    f32/bf16/f64(ref). Autocast: keep.
/// Gradient: dy/dx = s(x) (1 + x (1 - s(x))); saves x.
/// Error:    f32 1e-5, bf16 2e-2 relative to the largest element.
/// Source:   Ramachandran et al., arXiv:1710.05941, with beta = 1.
Tensor swish(const Tensor& x);

// --- swish_kernels.h: plain functions on views, and the tables that name them -----------------------------------------

// A TensorView is what a kernel sees of a tensor: pointer, element type, shape, strides. gy is the gradient that arrives (of
// the output), gx the one to compute (of the input).
using SwishFn = void(const TensorView& x, const TensorView& y);
using SwishBackwardFn = void(const TensorView& x, const TensorView& gy, const TensorView& gx);

// --- swish_ref.cpp: the formula as it stands, in double and float -------------------------------------------------------

// visit_reference_dtype() calls the lambda with a float or a double, as the view's type says; visit_fast_dtype(), below, with a
// float or a bfloat16. Only the type of `tag` counts. Another type is an error that names the op.
template <class T>
T logistic(T x) {
  return T(1) / (T(1) + std::exp(-x));
}

void swish_ref(const TensorView& x, const TensorView& y) {
  visit_reference_dtype("swish", x.dtype, [&](auto tag) {
    using T = decltype(tag);
    for (std::int64_t i = 0; i < x.numel(); ++i) y.ptr<T>()[i] = x.ptr<T>()[i] * logistic(x.ptr<T>()[i]);
  });
}

void swish_backward_ref(const TensorView& x, const TensorView& gy, const TensorView& gx) {
  visit_reference_dtype("swish", x.dtype, [&](auto tag) {
    using T = decltype(tag);
    for (std::int64_t i = 0; i < x.numel(); ++i) {
      const T v = x.ptr<T>()[i];
      gx.ptr<T>()[i] = gy.ptr<T>()[i] * logistic(v) * (T(1) + v * (T(1) - logistic(v)));
    }
  });
}

// --- swish_cpu.cpp: the fast version. f32 and bf16; computes in float; vector exp; all cores ----------------------------

// parallel_for() splits the index range among the threads; 16384 elements are the least that is worth one.
void swish_cpu(const TensorView& x, const TensorView& y) {
  visit_fast_dtype("swish", x.dtype, [&](auto tag) {
    using T = decltype(tag);
    parallel_for(x.numel(), 16384, [&](std::int64_t begin, std::int64_t end) {
      const T* p = x.ptr<T>();
      T* q = y.ptr<T>();
#pragma omp simd
      for (std::int64_t i = begin; i < end; ++i) {
        const auto v = static_cast<float>(p[i]);
        q[i] = static_cast<T>(v / (1.0F + fast_exp(-v)));
      }
    });
  });
}

void swish_backward_cpu(const TensorView& x, const TensorView& gy, const TensorView& gx) {
  visit_fast_dtype("swish", x.dtype, [&](auto tag) {
    using T = decltype(tag);
    parallel_for(x.numel(), 16384, [&](std::int64_t begin, std::int64_t end) {
      const T* p = x.ptr<T>();
      const T* g = gy.ptr<T>();
      T* q = gx.ptr<T>();
#pragma omp simd
      for (std::int64_t i = begin; i < end; ++i) {
        const auto v = static_cast<float>(p[i]);
        const float s = 1.0F / (1.0F + fast_exp(-v));
        q[i] = static_cast<T>(static_cast<float>(g[i]) * s * (1.0F + v * (1.0F - s)));
      }
    });
  });
}

// A table is called like a function, with the device and the element type in front: f64 runs the reference, f32 and bf16 the
// kernel of the device, and a missing one is an error. The last entry is the CUDA kernel.
constexpr KernelTable<SwishFn> kSwish{"swish", swish_ref, swish_cpu, nullptr};
constexpr KernelTable<SwishBackwardFn> kSwishBackward{"swish", swish_backward_ref, swish_backward_cpu, nullptr};

// --- swish.cpp: the glue. The node keeps what the derivative needs ------------------------------------------------------

struct SwishNode final : Node {
  SavedTensor x;
  const char* name() const override { return "swish"; }
  void backward(std::span<const Tensor> gy, std::span<Tensor> gx) override {
    const Tensor& saved = x.unpack(name());  // throws if somebody wrote to it in the meantime
    gx[0] = Tensor::empty_like(saved);
    kSwishBackward(saved.device(), saved.dtype(), saved.view(), gy[0].dense().view(), gx[0].view());
  }
  void release() override { x.reset(); }
};

Tensor swish(const Tensor& x_in) {
  ops::check_float("swish", x_in);                    // 1 check
  const Tensor x = x_in.dense();                      //   the kernels assume the default layout
  Tensor y = Tensor::empty_like(x);                   // 2 allocate
  kSwish(x.device(), x.dtype(), x.view(), y.view());  // 3 run
  if (auto node = record<SwishNode>({&x_in})) {       // 4 record; null when no gradient is needed
    node->x = x;
    node->attach(y);
  }
  return y;
}

// --- tests/cases/swish.cpp: in the library a list of inputs drives all of this by itself; here we do it by hand ---------

Tensor random_input(DType dtype) {
  Generator generator(5);
  Tensor x = Tensor::empty({2, 19, 5, 7}, dtype);
  fill_normal_(x, generator, 0, 2);
  return x;
}

double largest_difference(const Tensor& a, const Tensor& b) {
  const auto x = a.to_vector<double>();
  const auto y = b.to_vector<double>();
  double worst = 0;
  for (std::size_t i = 0; i < x.size(); ++i) worst = std::max(worst, std::abs(x[i] - y[i]));
  return worst;
}

struct Result {
  Tensor value, gradient;
};

/// Value and gradient of sum(f(x)).
template <class F>
Result run(const F& f, const Tensor& input) {
  const Tensor x = input.copy().set_requires_grad(true);
  const Tensor y = f(x);
  ops::sum(y).backward();
  return {y.detach(), x.grad()};
}

void check_the_gradient() {
  section("1. The derivative, against central differences in double");
  const Tensor x = random_input(DType::kF64).set_requires_grad(true);
  const auto result = gradcheck([](std::span<const Tensor> in) { return swish(in[0]); }, std::span(&x, 1));
  fmt::print("  {} derivatives, worst error {:.1e} {}\n", result.checked, result.worst_error, result.message);
  expect(result.ok, "gradcheck agrees");
}

void check_the_formula() {
  section("2. The formula, against the same thing composed of generic ops");
  // The composite is the readable specification: slower, more memory, but nobody can doubt it.
  const auto composite = [](const Tensor& x) { return ops::mul(x, ops::sigmoid(x)); };
  const Tensor x = random_input(DType::kF64);
  const Result a = run(swish, x);
  const Result b = run(composite, x);
  expect(largest_difference(a.value, b.value) < 1e-14, "values agree");
  expect(largest_difference(a.gradient, b.gradient) < 1e-14, "gradients agree");
}

void check_the_fast_kernel() {
  section("3. The fast kernel, against the reference");
  const Tensor x = random_input(DType::kF32);
  const Result exact = run(swish, x.copy_as(DType::kF64));  // f64 always runs the reference
  const Result fast = run(swish, x);
  fmt::print("  f32: value {:.1e}, gradient {:.1e}\n", largest_difference(fast.value, exact.value),
             largest_difference(fast.gradient, exact.gradient));
  expect(largest_difference(fast.value, exact.value) < 1e-5, "f32 values");
  expect(largest_difference(fast.gradient, exact.gradient) < 1e-5, "f32 gradients");
  const Result low = run(swish, x.copy_as(DType::kBF16));
  fmt::print("  bf16: value {:.1e}\n", largest_difference(low.value, exact.value));
  expect(low.value.dtype() == DType::kBF16 && largest_difference(low.value, exact.value) < 0.05, "bf16 values");
  {
    const ReferenceGuard guard;  // f32 through the plain loops: for a debugger, or to find out who is wrong
    expect(largest_difference(run(swish, x).value, exact.value) < 1e-5, "the reference kernel in f32");
  }
}

void check_the_rest() {
  section("4. What comes for free with the glue");
  const Tensor meta = Tensor::empty({1, 8, 4, 4}, DType::kF32, kMeta);
  expect(swish(meta).shape() == meta.shape(), "shapes on the meta device");
  const Tensor x = random_input(DType::kF32).set_requires_grad(true);
  const Tensor rows = Tensor::empty_strided(x.shape(), row_major_strides(x.shape()), DType::kF32);
  rows.copy_(x);
  expect(largest_difference(swish(rows), swish(x)) == 0, "other memory layouts");
  const Tensor y = ops::sum(swish(x));
  {
    const NoGradGuard off;
    x.fill_(0);
  }
  const std::string error = tutorial::message_of([&] { y.backward(); });
  expect(error.find("[swish]") != std::string::npos, "the overwritten input is noticed");
  const std::string type = tutorial::message_of([] { (void)swish(Tensor::zeros({2}, DType::kU8)); });
  expect(type.find("[swish] got a u8") != std::string::npos, "a wrong type has a readable error");
}

}  // namespace

int main() {
  check_the_gradient();
  check_the_formula();
  check_the_fast_kernel();
  check_the_rest();
  return tutorial::result();
}
