// Tutorial 2: differentiation. The tape, backward, the mistakes it protects you from, and how to check a gradient.
//
// Run it with `ctest --test-dir build -R tutorial_02 -V`. Before: 01_tensor.cpp. Next: 03_op.cpp.
#include <cmath>
#include <vector>

#include "core/autograd.h"
#include "core/gradcheck.h"
#include "core/rng.h"
#include "ops/elementwise.h"
#include "ops/matmul.h"
#include "ops/reduce.h"
#include "tests/tutorial/expect.h"

using namespace limbeck;
using tutorial::expect;
using tutorial::message_of;
using tutorial::section;

namespace {

bool has(const std::string& text, const char* part) { return text.find(part) != std::string::npos; }

void the_tape() {
  section("1. Ops leave nodes, backward walks them in reverse");
  // A leaf is a tensor that you made. Asking for its gradient puts every op that uses it onto the tape: the op leaves a
  // Node there, which knows the op's derivative and, by its edges, the nodes that made its inputs.
  const Tensor x = Tensor::from(std::vector<float>{1, 2, 3}, {3});
  x.set_requires_grad(true);
  const Tensor y = ops::sum(ops::square(x));  // y = sum x^2, dy/dx = 2x
  const Ref<Node>& node = y.impl()->autograd->producer;
  fmt::print("  y was made by `{}`, whose input was made by `{}`\n", node->name(), node->edges()[0].node->name());
  expect(std::string(node->name()) == "sum" && !y.is_leaf(), "a result knows the node that made it");

  y.backward();
  expect(x.grad().to_vector<float>() == std::vector<float>{2, 4, 6}, "dy/dx = 2x");

  // Gradients are added to what is there: that is how several losses, or several small batches, act together.
  ops::sum(ops::square(x)).backward();
  expect(x.grad().to_vector<float>()[2] == 12, "a second backward adds to x.grad()");
  x.set_grad({});
  expect(!x.grad().defined(), "set_grad({}) clears it; an optimizer's zero_grad does that for all parameters");

  // A tensor used twice receives the sum of both paths.
  ops::sum(ops::mul(x, x)).backward();
  expect(x.grad().to_vector<float>() == std::vector<float>{2, 4, 6}, "x used as both factors");
}

void leaving_the_tape() {
  section("2. What stays off the tape");
  const Tensor x = Tensor::full({2}, 3.0);
  x.set_requires_grad(true);
  const Tensor fixed = Tensor::full({2}, 5.0);  // like a teacher's output: nothing asks for its gradient
  const Tensor y = ops::mul(x, fixed);
  backward(y, Tensor::full({2}, 1.0));  // y is not a scalar: the seed says how much each element matters
  expect(x.grad().to_vector<float>()[0] == 5 && !fixed.grad().defined(), "no gradient is computed for `fixed`");

  const Tensor cut = ops::square(x).detach();
  expect(!cut.requires_grad(), "detach(): the same numbers without history");
  {
    const NoGradGuard off;  // evaluation, optimizers, the teacher's forward pass
    expect(!ops::square(x).requires_grad(), "inside a NoGradGuard nothing is recorded");
  }
  const std::string error = message_of([&] { ops::mul_scalar_(x, 2.0); });
  expect(has(error, "NoGradGuard"), "an in-place write to a leaf needs that guard: it cannot be differentiated");
}

void protected_mistakes() {
  section("3. Mistakes that are reported instead of computed");
  const Tensor x = Tensor::full({2}, 3.0);
  const Tensor w = Tensor::full({2}, 2.0);
  x.set_requires_grad(true);

  // The derivative of x w with respect to x is w, so the node keeps w. If w changes before backward, the answer would be
  // silently wrong. The node remembers the version of the storage and notices.
  const Tensor y = ops::sum(ops::mul(x, w));
  ops::mul_scalar_(w, 10.0);
  const std::string overwritten = message_of([&] { y.backward(); });
  expect(has(overwritten, "[mul]") && has(overwritten, "version"), "a saved tensor that was overwritten");

  // Saved tensors are dropped as backward goes, to free memory. A second walk has nothing to work with.
  const Tensor z = ops::sum(ops::square(x));
  backward(z, {}, {.retain_graph = true});
  z.backward();
  const std::string again = message_of([&] { z.backward(); });
  expect(has(again, "retain_graph"), "a second backward without retain_graph");

  const std::string leaf = message_of([&] { ops::sum(w).backward(); });
  expect(has(leaf, "requires grad"), "backward from something that depends on no leaf");

  // And one that shows up as numbers: with an AnomalyGuard, backward names the op that made the first NaN or infinity.
  const Tensor zero = Tensor::zeros({1});
  zero.set_requires_grad(true);
  const AnomalyGuard anomaly;
  const std::string infinite = message_of([&] { ops::sum(ops::sqrt(zero)).backward(); });
  expect(has(infinite, "sqrt"), "the slope of sqrt at 0 is infinite, and backward says who made it");
}

void checking_gradients() {
  section("4. gradcheck: analytic against numeric");
  // Central differences in double: (f(x + h) - f(x - h)) / 2h. Every op of limbeck passes this in its tests; use it for
  // your own losses too.
  Generator generator(1);
  const Tensor a = Tensor::empty({3, 4}, DType::kF64);
  const Tensor b = Tensor::empty({4, 2}, DType::kF64);
  fill_normal_(a, generator, 0, 1);
  fill_normal_(b, generator, 0, 1);
  a.set_requires_grad(true);
  b.set_requires_grad(true);
  const std::vector<Tensor> inputs{a, b};
  const auto loss = [](std::span<const Tensor> in) { return ops::mean(ops::tanh(ops::matmul(in[0], in[1]))); };
  const GradcheckResult good = gradcheck(loss, inputs);
  fmt::print("  {} derivatives compared, worst error {:.1e}\n", good.checked, good.worst_error);
  expect(good.ok && good.checked == 20, "mean(tanh(A B)) has the right gradients");

  // A wrong gradient: detach() hides one of the two uses of x, so the tape computes x where the truth is 2x.
  const auto wrong = [](std::span<const Tensor> in) { return ops::sum(ops::mul(in[0], in[0].detach())); };
  const GradcheckResult bad = gradcheck(wrong, std::span(inputs).first(1));
  fmt::print("  {}\n", bad.message);
  expect(!bad.ok, "a forgotten path is found");
}

void fitting_a_line() {
  section("5. Everything together: fitting a line by gradient descent");
  // y = 2x - 1 with a little noise; the parameters start at 0.
  Generator generator(7);
  const Tensor x = Tensor::empty({64, 1});
  const Tensor noise = Tensor::empty({64, 1});
  fill_uniform_(x, generator, -1, 1);
  fill_normal_(noise, generator, 0, 0.01);
  const Tensor y = ops::add(ops::add_scalar(ops::mul_scalar(x, 2), -1), noise);
  const Tensor w = Tensor::zeros({1, 1}).set_requires_grad(true);
  const Tensor b = Tensor::zeros({1}).set_requires_grad(true);
  for (int step = 0; step < 200; ++step) {
    const Tensor loss = ops::mean(ops::square(ops::sub(ops::linear(x, w, b), y)));
    loss.backward();
    if (step % 50 == 0) fmt::print("  step {:3}  loss {:.5f}\n", step, loss.item());
    const NoGradGuard off;
    for (const Tensor& parameter : {w, b}) {
      ops::add_(parameter, parameter.grad(), -0.2);  // parameter -= 0.2 gradient
      parameter.set_grad({});
    }
  }
  fmt::print("  w = {:.3f}, b = {:.3f}\n", w.item(), b.item());
  expect(std::abs(w.item() - 2) < 0.01 && std::abs(b.item() + 1) < 0.01, "w is 2 and b is -1, up to the noise");
}

}  // namespace

int main() {
  the_tape();
  leaving_the_tape();
  protected_mistakes();
  checking_gradients();
  fitting_a_line();
  return tutorial::result();
}
