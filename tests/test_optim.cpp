// Optimizers against plain double loops of the published rules, gradient clipping, saving and restoring.
#include <doctest/doctest.h>

#include <cmath>

#include "core/parallel.h"
#include "core/rng.h"
#include "nn/adamw.h"
#include "nn/clip.h"
#include "nn/layers.h"
#include "nn/sgd.h"
#include "tests/harness/temp_dir.h"

using namespace limbeck;
using test::check_throws;

namespace {

Tensor leaf(const Shape& shape, DType dtype, Generator& g) {
  const Tensor t = Tensor::empty(shape, dtype);
  fill_normal_(t, g, 0.0, 1.0);
  t.set_requires_grad(true);
  return t;
}

void give_gradient(const Tensor& t, Generator& g) {
  const Tensor gradient = Tensor::empty(t.shape(), t.dtype());
  fill_normal_(gradient, g, 0.0, 1.0);
  t.set_grad(gradient);
}

/// Three parameters in two groups: small, larger than a chunk of the parallel loop, 4-D.
struct Problem {
  Tensor a, b, c;
  std::vector<nn::ParameterGroup> groups;
};

Problem make_problem(DType dtype) {
  Generator g(11);
  Problem p{leaf({3}, dtype, g), leaf({40001}, dtype, g), leaf({5, 4, 3, 3}, dtype, g), {}};
  p.groups = {{{{"a", p.a}, {"b", p.b}}, 1.0, 0.1}, {{{"c", p.c}}, 10.0, 0.0}};
  return p;
}

struct Hyper {
  double lr, decay;
};

/// torch.optim.SGD: d = g + wd*w; buf = d in the first step, then momentum*buf + d; step d + momentum*buf or buf.
struct SgdModel {
  double momentum;
  bool nesterov;
  std::vector<double> buffer;
  void step(std::vector<double>& w, const std::vector<double>& g, Hyper h) {
    const bool first = buffer.empty();
    if (first) buffer.assign(w.size(), 0.0);
    for (std::size_t i = 0; i < w.size(); ++i) {
      double d = g[i] + h.decay * w[i];
      if (momentum != 0) {
        buffer[i] = first ? d : momentum * buffer[i] + d;
        d = nesterov ? d + momentum * buffer[i] : buffer[i];
      }
      w[i] -= h.lr * d;
    }
  }
};

/// torch.optim.AdamW.
struct AdamModel {
  std::vector<double> m, v;
  int t = 0;
  void step(std::vector<double>& w, const std::vector<double>& g, Hyper h) {
    if (m.empty()) {
      m.assign(w.size(), 0.0);
      v.assign(w.size(), 0.0);
    }
    ++t;
    for (std::size_t i = 0; i < w.size(); ++i) {
      w[i] -= h.lr * h.decay * w[i];
      m[i] = 0.9 * m[i] + (1 - 0.9) * g[i];
      v[i] = 0.999 * v[i] + (1 - 0.999) * g[i] * g[i];
      const double m_hat = m[i] / (1 - std::pow(0.9, t));
      const double v_hat = v[i] / (1 - std::pow(0.999, t));
      w[i] -= h.lr * m_hat / (std::sqrt(v_hat) + 1e-8);
    }
  }
};

double worst_difference(const Tensor& t, const std::vector<double>& expected) {
  const auto v = t.to_vector<double>();
  double worst = 0;
  for (std::size_t i = 0; i < v.size(); ++i) worst = std::max(worst, std::abs(v[i] - expected[i]));
  return worst;
}

template <class Model>
void compare(nn::Optimizer& optimizer, const Problem& p, Model model, double tolerance) {
  const std::vector<Tensor> tensors{p.a, p.b, p.c};
  std::vector<std::vector<double>> w;
  std::vector<Model> models(3, model);
  for (const Tensor& t : tensors) w.push_back(t.to_vector<double>());
  Generator g(5);
  for (int step = 0; step < 4; ++step) {
    const double lr = 0.1 / (1 + step);
    for (std::size_t i = 0; i < 3; ++i) {
      give_gradient(tensors[i], g);
      const Hyper h = i < 2 ? Hyper{lr, 0.1} : Hyper{10 * lr, 0.0};
      models[i].step(w[i], tensors[i].grad().to_vector<double>(), h);
    }
    optimizer.step(lr);
    optimizer.zero_grad();
  }
  for (std::size_t i = 0; i < 3; ++i) CHECK(worst_difference(tensors[i], w[i]) < tolerance);
}

}  // namespace

TEST_SUITE_BEGIN("optim");

TEST_CASE("SGD equals PyTorch's rule with groups, weight decay, momentum and Nesterov") {
  for (const bool nesterov : {false, true}) {
    for (const double momentum : {0.0, 0.9}) {
      if (nesterov && momentum == 0.0) continue;
      CAPTURE(nesterov);
      CAPTURE(momentum);
      Problem exact = make_problem(DType::kF64);
      nn::Sgd sgd(exact.groups, {.momentum = momentum, .nesterov = nesterov});
      compare(sgd, exact, SgdModel{momentum, nesterov, {}}, 1e-12);
      Problem single = make_problem(DType::kF32);
      nn::Sgd sgd32(single.groups, {.momentum = momentum, .nesterov = nesterov});
      compare(sgd32, single, SgdModel{momentum, nesterov, {}}, 2e-5);
    }
  }
}

TEST_CASE("a hand-computed SGD step") {
  const Tensor w = Tensor::from(std::vector<double>{1.0, -2.0}, {2});
  w.set_requires_grad(true);
  nn::Sgd sgd({{{{"w", w}}, 1.0, 0.5}}, {.momentum = 0.9});
  w.set_grad(Tensor::from(std::vector<double>{0.5, 1.0}, {2}));
  sgd.step(0.1);  // d = {1, 0}; v = {1, 0}
  CHECK(w.to_vector<double>() == std::vector<double>{0.9, -2.0});
  sgd.step(0.2);  // d = {0.95, 0}; v = {1.85, 0}
  CHECK(w.to_vector<double>()[0] == doctest::Approx(0.9 - 0.2 * 1.85));
}

TEST_CASE("a group may have a rate of its own, which no schedule changes") {
  const auto weight = [] {
    const Tensor w = Tensor::from(std::vector<double>{1.0}, {1});
    w.set_requires_grad(true);
    return w;
  };
  const Tensor follows = weight(), twice = weight(), keeps = weight();
  nn::Sgd sgd({{.params = {{"a", follows}}},
               {.params = {{"b", twice}}, .lr_multiplier = 2},
               {.params = {{"c", keeps}}, .lr_multiplier = 2, .constant_lr = 0.25}},
              {.momentum = 0});
  for (const double lr : {0.5, 0.125, 0.0}) {
    for (const Tensor& w : {follows, twice, keeps}) w.set_grad(Tensor::from(std::vector<double>{1.0}, {1}));
    sgd.step(lr);
  }
  CHECK(follows.to_vector<double>()[0] == 1 - 0.625);
  CHECK(twice.to_vector<double>()[0] == 1 - 1.25);
  CHECK(keeps.to_vector<double>()[0] == 1 - 0.75);
}

TEST_CASE("AdamW equals PyTorch's rule") {
  Problem exact = make_problem(DType::kF64);
  nn::AdamW adam(exact.groups);
  compare(adam, exact, AdamModel{}, 1e-12);
  Problem single = make_problem(DType::kF32);
  nn::AdamW adam32(single.groups);
  compare(adam32, single, AdamModel{}, 2e-5);
}

TEST_CASE("a parameter without gradient keeps value and state") {
  Problem p = make_problem(DType::kF64);
  nn::AdamW adam(p.groups);
  Generator g(1);
  const auto before = p.b.to_vector<double>();
  give_gradient(p.a, g);
  adam.step(0.1);
  CHECK(p.b.to_vector<double>() == before);
  give_gradient(p.b, g);
  const double gradient = p.b.grad().to_vector<double>()[7];
  adam.step(0.1);  // b's first update: bias correction of step 1, so the step is lr in the direction of the sign
  const double decayed = before[7] * (1 - 0.1 * 0.1);
  CHECK(p.b.to_vector<double>()[7] == doctest::Approx(decayed - 0.1 * (gradient > 0 ? 1 : -1)).epsilon(1e-6));
  CHECK(adam.steps() == 2);
}

TEST_CASE("a step raises the version of what it changed, so that caches notice") {
  Problem p = make_problem(DType::kF32);
  nn::Sgd sgd(p.groups, {});
  Generator g(1);
  give_gradient(p.a, g);
  const auto a = p.a.version();
  const auto b = p.b.version();
  sgd.step(0.1);
  CHECK(p.a.version() != a);
  CHECK(p.b.version() == b);
}

TEST_CASE("updates do not depend on the thread count") {
  const int threads = max_threads();
  std::vector<std::vector<float>> results;
  for (const int count : {1, 3}) {
    set_threads(count);
    Problem p = make_problem(DType::kF32);
    nn::AdamW adam(p.groups);
    Generator g(5);
    for (int step = 0; step < 3; ++step) {
      for (const Tensor& t : {p.a, p.b, p.c}) give_gradient(t, g);
      nn::clip_grad_norm_(adam.parameters(), 1.0);
      adam.step(0.01);
    }
    results.push_back(p.b.to_vector<float>());
  }
  set_threads(threads);
  CHECK(results[0] == results[1]);
}

TEST_CASE("saved state continues bit for bit") {
  for (const std::string name : {"sgd", "adamw"}) {
    CAPTURE(name);
    Problem straight = make_problem(DType::kF32);
    Problem resumed = make_problem(DType::kF32);
    const auto first = nn::make_optimizer({.name = name}, straight.groups);
    nn::StateDict saved;
    std::vector<std::vector<float>> weights;
    Generator g(5);
    for (int step = 0; step < 6; ++step) {
      if (step == 3) {
        for (const auto& [key, tensor] : first->state_dict()) saved.emplace(key, tensor.copy());
        for (const Tensor& t : {straight.a, straight.b, straight.c}) weights.push_back(t.to_vector<float>());
      }
      for (const Tensor& t : {straight.a, straight.b, straight.c}) give_gradient(t, g);
      first->step(0.05);
    }
    Generator again(5);  // the same stream of gradients, steps 3..5
    std::size_t i = 0;
    for (const Tensor& t : {resumed.a, resumed.b, resumed.c}) t.detach().copy_(Tensor::from(weights[i++], t.shape()));
    const auto second = nn::make_optimizer({.name = name}, resumed.groups);
    second->load_state_dict(saved);
    CHECK(second->steps() == 3);
    for (int step = 0; step < 6; ++step) {
      for (const Tensor& t : {resumed.a, resumed.b, resumed.c}) give_gradient(t, again);
      if (step >= 3) second->step(0.05);
    }
    CHECK(straight.b.to_vector<float>() == resumed.b.to_vector<float>());
    CHECK(straight.c.to_vector<float>() == resumed.c.to_vector<float>());
  }
}

TEST_CASE("state that does not fit is refused as a whole") {
  Problem p = make_problem(DType::kF32);
  nn::Sgd sgd(p.groups, {});
  nn::StateDict state;
  for (const auto& [name, tensor] : sgd.state_dict()) state.emplace(name, tensor.copy());
  state.erase("momentum.a");
  state["momentum.c"] = Tensor::zeros({1});
  check_throws<WeightsError>([&] { sgd.load_state_dict(state); },
                             {"SGD", "'momentum.a' is missing", "'momentum.c'", "[5, 4, 3, 3]"});
  nn::StateDict extra = sgd.state_dict();
  extra.emplace("momentum.zzz", Tensor::zeros({1}));
  check_throws<WeightsError>([&] { sgd.load_state_dict(extra); }, {"8 entries, expected 7"});
}

TEST_CASE("mistakes in groups are named") {
  Generator g(1);
  const Tensor w = leaf({2}, DType::kF32, g);
  const Tensor frozen = Tensor::zeros({2});
  check_throws<Error>([&] { nn::Sgd({{{{"w", w}, {"w", w}}}}, {}); }, {"two parameters are called 'w'"});
  check_throws<Error>([&] { nn::Sgd({{{{"w", w}, {"v", w}}}}, {}); }, {"'v' is in the groups twice"});
  check_throws<Error>([&] { nn::Sgd({{{{"f", frozen}}}}, {}); }, {"'f'", "trainable leaf"});
  check_throws<Error>([&] { nn::Sgd({}, {}); }, {"no parameters"});
  check_throws<Error>([&] { nn::Sgd({{{{"w", w}}}}, {.momentum = 1.0}); }, {"momentum 1"});
  check_throws<ConfigError>(
      [&] {
        static_cast<void>(nn::make_optimizer({.name = "adam"}, {{{{"w", w}}}}));
      },
      {"'adam'", "adamw"});
}

TEST_CASE("assign_parameters sorts by name and leaves out frozen parameters") {
  Generator g(1);
  nn::Sequential net;
  net.add<nn::Conv2d>(nn::ConvArgs{.in = 2, .out = 2}, g);
  net.add<nn::BatchNorm2d>(2);
  net.add<nn::Conv2d>(nn::ConvArgs{.in = 2, .out = 2}, g).freeze();
  std::vector<nn::ParameterGroup> groups(2);
  nn::assign_parameters(
      groups, net, [](const nn::NamedTensor& p) { return nn::is_vector_parameter(p) ? 1 : 0; }, "student.");
  REQUIRE(groups[0].params.size() == 1);
  CHECK(groups[0].params[0].name == "student.0.weight");
  CHECK(groups[1].params.size() == 3);  // conv bias, gamma, beta
}

TEST_CASE("clipping scales all gradients by one factor and returns the norm before") {
  Generator g(2);
  const Tensor a = leaf({3}, DType::kF32, g);
  const Tensor b = leaf({2}, DType::kF64, g);
  const Tensor none = leaf({2}, DType::kF64, g);
  a.set_grad(Tensor::from(std::vector<float>{3, 0, 0}, {3}));
  b.set_grad(Tensor::from(std::vector<double>{0, 4}, {2}));
  const std::vector<Tensor> all{a, b, none};
  CHECK(nn::grad_norm(all) == doctest::Approx(5.0));
  CHECK(nn::clip_grad_norm_(all, 10.0) == doctest::Approx(5.0));
  CHECK(b.grad().to_vector<double>()[1] == 4.0);
  CHECK(nn::clip_grad_norm_(all, 1.0) == doctest::Approx(5.0));
  CHECK(a.grad().to_vector<double>()[0] == doctest::Approx(0.6).epsilon(1e-5));
  CHECK(b.grad().to_vector<double>()[1] == doctest::Approx(0.8).epsilon(1e-5));
  CHECK(nn::grad_norm(all) < 1.0);
  b.set_grad(Tensor::from(std::vector<double>{NAN, 4}, {2}));
  check_throws<NonFiniteError>([&] { nn::clip_grad_norm_(all, 1.0); }, {"nan"});
  CHECK(a.grad().to_vector<double>()[0] == doctest::Approx(0.6).epsilon(1e-5));
}

TEST_SUITE_END();
