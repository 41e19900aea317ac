// batch_norm: values worked out by hand, running statistics, large means, composition, what is saved, ranks, messages.
#include "ops/batch_norm.h"

#include <doctest/doctest.h>

#include <cmath>
#include <cstring>
#include <functional>
#include <string>
#include <vector>

#include "core/autograd.h"
#include "core/parallel.h"
#include "core/rng.h"
#include "ops/elementwise.h"
#include "tests/harness/errors.h"
#include "tests/harness/op_case.h"

using namespace limbeck;
using ops::Activation;
using test::message_of;

TEST_SUITE_BEGIN("batch_norm");

namespace {

Tensor normal(const Shape& shape, double mean, double spread, std::uint64_t seed, DType dtype = DType::kF32) {
  Tensor t = Tensor::empty(shape, dtype);
  Generator g(seed);
  fill_normal_(t, g, mean, spread);
  return t;
}

bool same_bits(const Tensor& a, const Tensor& b) {
  return a.shape() == b.shape() && a.dtype() == b.dtype() &&
         std::memcmp(a.raw_data(), b.raw_data(), static_cast<std::size_t>(a.numel()) * size_of(a.dtype())) == 0;
}

}  // namespace

TEST_CASE("one channel by hand") {
  for (const DType type : {DType::kF64, DType::kF32}) {
    const Tensor x = Tensor::from(std::vector<double>{1, 2, 3, 4}, {1, 1, 2, 2}).copy_as(type);
    const Tensor gamma = Tensor::full({1}, 2.0, type);
    const Tensor beta = Tensor::full({1}, -1.0, type);
    const Tensor running_mean = Tensor::zeros({1}, type);
    const Tensor running_var = Tensor::full({1}, 1.0, type);
    const auto version = running_mean.version();

    // mean 2.5, variance 1.25
    const auto y = ops::batch_norm(x, gamma, beta, running_mean, running_var, {.training = true, .eps = 0.0});
    const double s = std::sqrt(1.25);
    const auto values = y.to_vector<double>();
    for (int i = 0; i < 4; ++i) CHECK(values[static_cast<std::size_t>(i)] == doctest::Approx(2 * (i - 1.5) / s - 1));
    CHECK(running_mean.item() == doctest::Approx(0.1 * 2.5));
    CHECK(running_var.item() == doctest::Approx(0.9 + 0.1 * 1.25 * 4.0 / 3.0));  // the unbiased variance
    CHECK(running_mean.version() > version);

    // eval: the running statistics, which stay as they are
    const auto eval = ops::batch_norm(x, gamma, beta, running_mean, running_var, {.eps = 0.5});
    const double r = std::sqrt(0.9 + 0.1 * 5.0 / 3.0 + 0.5);
    CHECK(eval.to_vector<double>()[2] == doctest::Approx(2 * (3 - 0.25) / r - 1));
    CHECK(running_mean.item() == doctest::Approx(0.25));
  }
}

TEST_CASE("a large mean does not cancel") {
  // Ten thousand standard deviations: the textbook formula E[x^2] - E[x]^2 in f32 is off by more than its result here.
  const Tensor x = normal({12, 3, 64, 64}, 1e4, 1.0, 5);
  double sum = 0;
  double squares = 0;
  float naive_sum = 0;
  float naive_squares = 0;
  const auto values = x.to_vector<float>();
  for (std::size_t i = 0; i < 4096; ++i) {  // channel 0 of image 0 comes first in logical order
    sum += static_cast<double>(values[i]);
    squares += static_cast<double>(values[i]) * static_cast<double>(values[i]);
    naive_sum += values[i];
    naive_squares += values[i] * values[i];
  }
  const double naive = static_cast<double>(naive_squares / 4096 - (naive_sum / 4096) * (naive_sum / 4096));
  REQUIRE(std::abs(naive - (squares / 4096 - sum / 4096 * (sum / 4096))) > 0.1);

  const auto run = [&](const Tensor& input) {
    const DType type = input.dtype();
    const Tensor running_mean = Tensor::zeros({3}, type);
    const Tensor running_var = Tensor::zeros({3}, type);
    const Tensor gamma = Tensor::full({3}, 1.0, type).set_requires_grad(true);
    input.set_requires_grad(true);
    const auto y = ops::batch_norm(input, gamma, {}, running_mean, running_var, {.training = true, .momentum = 1.0});
    // The gradient has a mean too: sum(gy) times the rounding error of the mean must not enter ggamma.
    backward(y, normal(y.shape(), 1.0, 1.0, 9, type));
    return std::vector<Tensor>{y.detach(), running_mean, running_var, input.grad(), gamma.grad()};
  };
  const auto fast = run(x);
  const auto exact = run(x.copy_as(DType::kF64));
  CHECK(test::relative_error(fast[0], exact[0]) < 2e-6);
  CHECK(test::relative_error(fast[1], exact[1]) < 1e-7);
  CHECK(test::relative_error(fast[2], exact[2]) < 2e-6);
  CHECK(test::relative_error(fast[3], exact[3]) < 1e-5);
  CHECK(test::relative_error(fast[4], exact[4]) < 1e-4);
}

TEST_CASE("the activation and the residual equal their own ops") {
  const Tensor x = normal({2, 11, 9, 7}, 0.5, 3.0, 1).set_requires_grad(true);
  const Tensor residual = normal({2, 11, 9, 7}, 0.5, 2.0, 2).set_requires_grad(true);
  const Tensor gamma = normal({11}, 1.0, 0.2, 3).set_requires_grad(true);
  const Tensor beta = normal({11}, 0.0, 0.5, 4).set_requires_grad(true);
  const Tensor seed = normal({2, 11, 9, 7}, 0.0, 1.0, 5);
  const auto gradients = [&](const Tensor& y) {
    std::vector<Tensor> out{y.detach()};
    for (const Tensor* t : {&x, &residual, &gamma, &beta}) t->set_grad({});
    backward(y, seed);
    for (const Tensor* t : {&x, &residual, &gamma, &beta}) out.push_back(t->grad());
    return out;
  };
  for (const bool with_residual : {false, true}) {
    for (const Activation act : {Activation::kNone, Activation::kRelu, Activation::kRelu6}) {
      const auto fused = gradients(
          ops::batch_norm(x, gamma, beta, {}, {}, {.training = true, .act = act}, with_residual ? residual : Tensor()));
      Tensor y = ops::batch_norm(x, gamma, beta, {}, {}, {.training = true});
      if (with_residual) y = ops::add(y, residual);
      if (act == Activation::kRelu) y = ops::relu(y);
      if (act == Activation::kRelu6) y = ops::relu6(y);
      const auto composed = gradients(y);
      CAPTURE(with_residual);
      CAPTURE(static_cast<int>(act));
      for (std::size_t i = 0; i < fused.size(); ++i) {
        CAPTURE(i);
        if (i == 2 && !with_residual) continue;
        CHECK(test::relative_error(fused[i], composed[i]) < 2e-6);
      }
    }
  }
}

TEST_CASE("maps of many rows: all blocks and the rows that are left over") {
  // Inputs are rounded to `input` first, so that the f64 reference sees the numbers that the fast kernel sees.
  const auto run = [](DType type, DType input, std::int64_t channels, Activation act) {
    const Shape shape{3, channels, 61, 47};
    const DType parameter_type = type == DType::kF64 ? DType::kF64 : DType::kF32;
    const Tensor x = normal(shape, 1.0, 2.0, 1, input).copy_as(type).set_requires_grad(true);
    const Tensor gamma = normal({channels}, 1.0, 0.2, 3).copy_as(parameter_type).set_requires_grad(true);
    const Tensor beta = normal({channels}, 0.5, 0.2, 4).copy_as(parameter_type).set_requires_grad(true);
    const Tensor running_var = Tensor::zeros({channels}, parameter_type);
    const Tensor y = ops::batch_norm(x, gamma, beta, Tensor::zeros({channels}, parameter_type), running_var,
                                     {.training = true, .act = act});
    backward(y, normal(shape, 0.0, 1.0, 5, input));
    return std::vector<Tensor>{y.detach(), running_var, x.grad(), gamma.grad(), beta.grad()};
  };
  for (const DType type : {DType::kF32, DType::kBF16}) {
    for (const std::int64_t channels : {11, 24, 67}) {
      for (const Activation act : {Activation::kNone, Activation::kRelu}) {
        const auto fast = run(type, type, channels, act);
        const auto exact = run(DType::kF64, type, channels, act);
        for (std::size_t i = 0; i < fast.size(); ++i) {
          CAPTURE(channels);
          CAPTURE(i);
          const bool is_parameter = fast[i].dtype() == DType::kF32;  // sums and statistics are exact also for bf16
          CHECK(test::relative_error(fast[i], exact[i]) < (is_parameter ? 2e-5 : 5e-3));
        }
      }
    }
  }
}

TEST_CASE("y is kept for backward only where the mask needs it") {
  const auto overwrite_y = [](Activation act, bool with_residual) {
    const Tensor x = normal({2, 3, 4, 4}, 0.0, 1.0, 1).set_requires_grad(true);
    const Tensor residual = normal({2, 3, 4, 4}, 0.0, 1.0, 2);
    const Tensor y =
        ops::batch_norm(x, {}, {}, {}, {}, {.training = true, .act = act}, with_residual ? residual : Tensor());
    {
      const NoGradGuard off;
      y.fill_(0.0);
    }
    backward(y, Tensor::full(y.shape(), 1.0));
  };
  CHECK_NOTHROW(overwrite_y(Activation::kRelu6, false));
  CHECK_NOTHROW(overwrite_y(Activation::kNone, true));
  CHECK_THROWS_WITH_AS(overwrite_y(Activation::kRelu, true), doctest::Contains("overwritten"), Error);
}

TEST_CASE("results do not depend on the number of threads") {
  const int before = max_threads();
  for (const DType type : {DType::kF32, DType::kBF16}) {
    std::vector<Tensor> first;
    for (const int threads : {1, 2, 3}) {
      set_threads(threads);
      const Tensor x = normal({4, 24, 61, 47}, 1.0, 2.0, 1, type).set_requires_grad(true);
      const Tensor gamma = normal({24}, 1.0, 0.2, 3).set_requires_grad(true);
      const Tensor running_mean = Tensor::zeros({24});
      const Tensor running_var = Tensor::zeros({24});
      const Tensor y =
          ops::batch_norm(x, gamma, {}, running_mean, running_var, {.training = true, .act = Activation::kRelu6});
      backward(y, normal(y.shape(), 0.0, 1.0, 5));
      const std::vector<Tensor> results{y.detach(), running_mean, running_var, x.grad(), gamma.grad()};
      if (first.empty()) first = results;
      for (std::size_t i = 0; i < results.size(); ++i) CHECK(same_bits(results[i], first[i]));
    }
  }
  set_threads(before);
}

TEST_CASE("tensors beyond the cache are written correctly") {
  // The halves stay below the size at which outputs are streamed past the cache, the whole is above it.
  const std::int64_t n = 2;
  const std::int64_t c = 33;
  for (const DType type : {DType::kF32, DType::kBF16}) {
    const std::int64_t side = type == DType::kF32 ? 151 : 213;
    const Tensor x = normal({n, c, side, side}, 0.0, 1.0, 1, type);
    const Tensor mean = normal({c}, 0.0, 1.0, 2);
    const Tensor var = Tensor::full({c}, 2.0);
    REQUIRE(x.numel() * static_cast<std::int64_t>(size_of(type)) > (4 << 20));
    const Tensor whole = ops::batch_norm(x, {}, {}, mean, var, {.act = Activation::kRelu});
    const std::int64_t image = c * side * side;
    REQUIRE(image * static_cast<std::int64_t>(size_of(type)) < (4 << 20));
    for (std::int64_t i = 0; i < n; ++i) {
      const Tensor half = x.alias({1, c, side, side}, x.strides(), i * image);
      const Tensor y = ops::batch_norm(half, {}, {}, mean, var, {.act = Activation::kRelu});
      CHECK(same_bits(y, whole.alias({1, c, side, side}, x.strides(), i * image)));
    }
  }
}

TEST_CASE("two ranks with half of the batch equal one rank with all of it") {
  const Shape half_shape{2, 5, 6, 7};
  const Shape whole_shape{4, 5, 6, 7};
  const std::int64_t half = half_shape.numel();
  const Tensor x = normal(whole_shape, 2.0, 1.5, 1);
  const Tensor seed = normal(whole_shape, 0.0, 1.0, 2);
  const auto part = [&](const Tensor& t, std::int64_t rank) {
    return t.alias(half_shape, t.strides(), rank * half).copy();
  };

  struct Result {
    Tensor y, gx, running_mean, running_var;
  };
  const auto run = [](const Tensor& input, const Tensor& gy, const std::function<void(const Tensor&)>& sum) {
    const Tensor leaf = input.copy().set_requires_grad(true);
    Result r{{}, {}, Tensor::zeros({5}), Tensor::zeros({5})};
    const Tensor y = ops::batch_norm(leaf, {}, {}, r.running_mean, r.running_var,
                                     {.training = true, .act = Activation::kRelu, .sum_over_ranks = sum});
    backward(y, gy);
    r.y = y.detach();
    r.gx = leaf.grad();
    return r;
  };
  // The ranks are played one after the other. In round k the first k exchanges are complete; the sums that a rank
  // brings to exchange k are recorded and become available in the next round.
  std::vector<Tensor> contributions[2];
  Result results[2];
  for (std::size_t round = 0; round <= 2; ++round) {
    for (std::size_t rank = 0; rank < 2; ++rank) {
      std::size_t exchange = 0;
      const auto sum = [&](const Tensor& sums) {
        auto& mine = contributions[rank];
        if (mine.size() == exchange && exchange == round) mine.push_back(sums.copy());
        const auto& theirs = contributions[1 - rank];
        if (exchange < round) ops::add_(sums, theirs[exchange]);
        ++exchange;
      };
      const auto r = static_cast<std::int64_t>(rank);
      results[rank] = run(part(x, r), part(seed, r), sum);
      CHECK(exchange == 2);  // one in the forward, one in the backward
    }
  }
  const Result whole = run(x, seed, {});
  for (std::size_t rank = 0; rank < 2; ++rank) {
    const auto r = static_cast<std::int64_t>(rank);
    CHECK(test::relative_error(results[rank].y, part(whole.y, r)) < 1e-6);
    CHECK(test::relative_error(results[rank].gx, part(whole.gx, r)) < 1e-6);
    CHECK(test::relative_error(results[rank].running_mean, whole.running_mean) < 1e-6);
    CHECK(test::relative_error(results[rank].running_var, whole.running_var) < 1e-6);
  }
}

TEST_CASE("only what is asked for gets a gradient") {
  const Tensor x = normal({2, 3, 4, 4}, 0.0, 1.0, 1);
  const Tensor residual = normal({2, 3, 4, 4}, 0.0, 1.0, 2).set_requires_grad(true);
  const Tensor gamma = Tensor::full({3}, 1.0).set_requires_grad(true);
  for (const bool training : {false, true}) {
    residual.set_grad({});
    gamma.set_grad({});
    const Tensor y = ops::batch_norm(x, gamma, {}, Tensor::zeros({3}), Tensor::full({3}, 1.0),
                                     {.training = training, .act = Activation::kRelu}, residual);
    backward(y, Tensor::full(y.shape(), 1.0));
    CHECK(!x.grad().defined());
    const auto g = residual.grad().to_vector<float>();
    const auto out = y.to_vector<float>();
    for (std::size_t i = 0; i < g.size(); ++i) CHECK(g[i] == (out[i] > 0 ? 1.0F : 0.0F));
    CHECK(gamma.grad().defined());
  }
}

TEST_CASE("NaN is not hidden by the activation") {
  Tensor x = normal({1, 20, 3, 3}, 0.0, 1.0, 1);
  x.data<float>()[5] = std::nanf("");
  const Tensor y =
      ops::batch_norm(x, {}, {}, Tensor::zeros({20}), Tensor::full({20}, 1.0), {.act = Activation::kRelu6});
  CHECK(std::isnan(y.data<float>()[5]));
  CHECK(!std::isnan(y.data<float>()[6]));
}

TEST_CASE("messages") {
  const Tensor x = normal({1, 4, 1, 1}, 0.0, 1.0, 1);
  const Tensor ones = Tensor::full({4}, 1.0);
  const Tensor running_mean = Tensor::full({4}, 7.0);
  const auto one_value =
      message_of([&] { static_cast<void>(ops::batch_norm(x, ones, ones, running_mean, ones, {.training = true})); });
  CHECK(one_value.find("[1, 4, 1, 1]") != std::string::npos);
  CHECK(one_value.find("batch size > 1") != std::string::npos);
  CHECK(running_mean.to_vector<float>()[0] == 7.0F);  // untouched by the failed call
  CHECK_NOTHROW(static_cast<void>(ops::batch_norm(x, ones, ones, running_mean, ones, {})));

  const auto shape =
      message_of([&] { static_cast<void>(ops::batch_norm(x, Tensor::full({3}, 1.0), ones, ones, ones, {})); });
  CHECK(shape.find("[batch_norm] gamma has shape [3], expected [4]") != std::string::npos);
  const auto type = message_of(
      [&] { static_cast<void>(ops::batch_norm(x, ones, Tensor::full({4}, 1.0, DType::kBF16), ones, ones, {})); });
  CHECK(type.find("beta is bf16, expected f32") != std::string::npos);
  const auto running = message_of([&] { static_cast<void>(ops::batch_norm(x, ones, ones, {}, {}, {})); });
  CHECK(running.find("running") != std::string::npos);
  const auto residual = message_of([&] {
    static_cast<void>(ops::batch_norm(x, ones, ones, ones, ones, {}, Tensor::zeros({1, 4, 2, 1})));
  });
  CHECK(residual.find("[1, 4, 2, 1]") != std::string::npos);
  CHECK_THROWS_AS(static_cast<void>(ops::batch_norm(Tensor::zeros({2, 3, 4}), {}, {}, {}, {}, {.training = true})),
                  Error);
}

TEST_SUITE_END();
