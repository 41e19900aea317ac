// The tape itself, with two tiny ops defined here so that a failure cannot come from ops/.
#include <doctest/doctest.h>

#include <cmath>
#include <numeric>

#include "core/autograd.h"
#include "core/gradcheck.h"

using namespace limbeck;

TEST_SUITE_BEGIN("autograd");

namespace {

Tensor combine(const Tensor& a, const Tensor& b, double (*f)(double, double)) {
  const auto x = a.to_vector<double>();
  auto y = b.to_vector<double>();
  for (std::size_t i = 0; i < y.size(); ++i) y[i] = f(x[i], y[i]);
  return Tensor::from(y, a.shape());
}
double times(double a, double b) { return a * b; }
double plus(double a, double b) { return a + b; }

struct MulNode final : Node {
  SavedTensor a, b;
  const char* name() const override { return "test_mul"; }
  void backward(std::span<const Tensor> gy, std::span<Tensor> gx) override {
    if (needs_input_grad(0)) gx[0] = combine(gy[0], b.unpack(name()), times);
    if (needs_input_grad(1)) gx[1] = combine(gy[0], a.unpack(name()), times);
  }
  void release() override {
    a.reset();
    b.reset();
  }
};
struct AddNode final : Node {
  const char* name() const override { return "test_add"; }
  void backward(std::span<const Tensor> gy, std::span<Tensor> gx) override {
    for (std::size_t i = 0; i < 2; ++i) {
      if (needs_input_grad(i)) gx[i] = gy[0];  // the same tensor twice: the engine must not write into it
    }
  }
  void release() override {}
};
/// Forward keeps x; backward returns NaN, to test anomaly mode.
struct BadNode final : Node {
  const char* name() const override { return "test_bad"; }
  void backward(std::span<const Tensor> gy, std::span<Tensor> gx) override {
    gx[0] = Tensor::full(gy[0].shape(), NAN, DType::kF64);
  }
  void release() override {}
};

Tensor mul(const Tensor& a, const Tensor& b) {
  const Tensor y = combine(a, b, times);
  if (auto node = record<MulNode>({&a, &b})) {
    node->a = a;
    node->b = b;
    node->attach(y);
  }
  return y;
}
Tensor add(const Tensor& a, const Tensor& b) {
  const Tensor y = combine(a, b, plus);
  if (auto node = record<AddNode>({&a, &b})) node->attach(y);
  return y;
}
Tensor leaf(double v) {
  const Tensor t = Tensor::scalar(v, DType::kF64);
  t.set_requires_grad(true);
  return t;
}

}  // namespace

TEST_CASE("gradients flow and add up over all paths") {
  const Tensor x = leaf(3);
  const Tensor y = leaf(4);
  const Tensor z = add(mul(x, y), add(x, x));  // xy + 2x
  z.backward();
  CHECK(x.grad().item() == 6);
  CHECK(y.grad().item() == 3);
  add(x, y).backward();  // += into existing gradients
  CHECK(x.grad().item() == 7);
  CHECK(y.grad().item() == 4);
}

TEST_CASE("a shared gradient tensor is not corrupted by in-place accumulation") {
  // d receives gy, and a second contribution is added to a; the tensor returned twice by AddNode must stay intact.
  const Tensor x = leaf(2);
  const Tensor a = add(x, x);
  const Tensor b = add(a, mul(a, a));  // gradient of a: 1 + 2a = 9
  b.backward();
  CHECK(x.grad().item() == 18);
}

TEST_CASE("nothing is recorded without need") {
  const Tensor x = leaf(2);
  const Tensor c = Tensor::scalar(5, DType::kF64);
  CHECK_FALSE(mul(c, c).requires_grad());
  CHECK(mul(c, x).requires_grad());
  {
    const NoGradGuard off;
    CHECK_FALSE(mul(x, x).requires_grad());
    const NoGradGuard on(true);
    CHECK(mul(x, x).requires_grad());
  }
  CHECK_FALSE(mul(x, x).detach().requires_grad());
  mul(x, c).backward();
  CHECK_FALSE(c.grad().defined());
}

TEST_CASE("a second backward needs retain_graph") {
  const Tensor x = leaf(2);
  const Tensor y = mul(x, x);
  backward(y, {}, {.retain_graph = true});
  backward(y);
  CHECK(x.grad().item() == 8);
  CHECK_THROWS_WITH_AS(backward(y),
                       "[backward] second backward through test_mul: its saved tensors are gone; pass retain_graph = "
                       "true the first time",
                       Error);
}

TEST_CASE("overwriting a saved tensor is reported with op, shape and versions") {
  const Tensor x = leaf(2);
  const Tensor c = Tensor::scalar(5, DType::kF64);
  const Tensor y = mul(x, c);
  c.fill_(7);
  CHECK_THROWS_WITH_AS(y.backward(),
                       "[test_mul] a tensor of shape [] saved for backward was overwritten: it is at version 2, "
                       "expected 1; write to a copy(), or after backward",
                       Error);
}

TEST_CASE("double backward and roots without history are refused with the reason") {
  const Tensor x = leaf(2);
  mul(x, x).backward();
  CHECK_THROWS_WITH_AS(x.grad().backward(), doctest::Contains("double backward is not supported"), Error);
  const Tensor wide = Tensor::zeros({2}, DType::kF64);
  wide.set_requires_grad(true);
  CHECK_THROWS_WITH_AS(mul(wide, wide).backward(), doctest::Contains("needs a seed"), Error);
}

TEST_CASE("in-place writes to tensors that require grad are refused while recording") {
  const Tensor x = leaf(2);
  CHECK_THROWS_AS(x.fill_(1), Error);
  const NoGradGuard off;
  x.fill_(1);
  CHECK(x.item() == 1);
}

TEST_CASE("hooks see the complete gradient of a leaf, once") {
  const Tensor x = leaf(3);
  int calls = 0;
  double seen = 0;
  x.register_grad_hook([&](const Tensor& g) {
    ++calls;
    seen = g.item();
  });
  add(mul(x, x), x).backward();
  CHECK(calls == 1);
  CHECK(seen == 7);
}

TEST_CASE("anomaly mode names the op and the scope") {
  const Tensor x = leaf(1);
  Tensor y = x.copy();
  {
    const ScopeName outer("model");
    const ScopeName inner("layer1");
    if (auto node = record<BadNode>({&x})) node->attach(y);
  }
  const AnomalyGuard anomaly;
  CHECK_THROWS_WITH_AS(y.backward(),
                       "[backward] NaN or infinity in the gradient of input 0 (shape []) of test_bad in model.layer1",
                       NonFiniteError);
}

TEST_CASE("long chains neither recurse in backward nor in destruction") {
  const Tensor x = leaf(1);
  const Tensor one = Tensor::scalar(1, DType::kF64);
  Tensor y = mul(x, one);
  for (int i = 0; i < 200'000; ++i) y = mul(y, one);
  backward(y, {}, {.retain_graph = true});
  CHECK(x.grad().item() == 1);
  y = Tensor();  // destroys the chain
  CHECK(x.is_leaf());
}

TEST_CASE("gradcheck accepts a right gradient and rejects a wrong one") {
  Tensor x = Tensor::from(std::vector<double>{0.3, -1.2, 2.0}, {3});
  x.set_requires_grad(true);
  const std::vector<Tensor> inputs{x};
  CHECK(gradcheck([](auto in) { return mul(in[0], mul(in[0], in[0])); }, inputs).ok);
  struct Wrong final : Node {
    const char* name() const override { return "wrong"; }
    void backward(std::span<const Tensor> gy, std::span<Tensor> gx) override { gx[0] = gy[0]; }
    void release() override {}
  };
  const auto wrong = gradcheck(
      [](std::span<const Tensor> in) {
        Tensor y = combine(in[0], in[0], plus);
        if (auto node = record<Wrong>({&in[0]})) node->attach(y);
        return y;
      },
      inputs);
  CHECK_FALSE(wrong.ok);
  CHECK(wrong.message.find("numeric 2") != std::string::npos);
}

TEST_SUITE_END();
