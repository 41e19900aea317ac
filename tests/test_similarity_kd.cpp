// The losses over similarities: between positions (pairwise_kd, local_kd), samples (batch_similarity_kd) and channels
// (inter_channel_kd, csd_kd). Oracles, agreement with generic ops, invariants, error messages.
// The oracle rows are printed by tests/golden/baseline_losses.py.
#include <doctest/doctest.h>

#include "distill/batch_similarity_kd.h"
#include "distill/channel_gram.h"
#include "distill/csd_kd.h"
#include "distill/inter_channel_kd.h"
#include "distill/local_kd.h"
#include "distill/pairwise_kd.h"
#include "ops/copy.h"
#include "ops/elementwise.h"
#include "ops/matmul.h"
#include "ops/pool2d.h"
#include "ops/reduce.h"
#include "ops/slice.h"
#include "ops/softmax.h"
#include "tests/harness/loss_checks.h"

using namespace limbeck;
using namespace limbeck::test;
using namespace limbeck::distill;

namespace {

Tensor squares(const Tensor& a, const Tensor& b) { return ops::square(ops::sub(a, b)); }

/// [N,C,H,W] as [N,C,M].
Tensor rows(const Tensor& x) { return ops::reshape(x, {x.size(0), x.size(1), -1}); }
Tensor normalise_rows(const Tensor& k) {
  return ops::div(k, ops::sqrt(ops::sum(ops::square(k), {k.ndim() - 1}, true)));
}

Tensor cosines(const Tensor& x, std::int64_t pool, bool detach) {
  const Tensor p = rows(ops::max_pool2d(x, {.kernel = {pool, pool}, .ceil_mode = true}));
  Tensor norm = ops::sqrt(ops::sum(ops::square(p), {1}, true));
  if (detach) norm = norm.detach();
  const Tensor f = ops::div(p, ops::add_scalar(norm, 1e-8));
  return ops::matmul(f, f, true, false);
}

/// Squared differences of the distances to the neighbours at (dy, dx); the sum over them.
Tensor local_sum(const Tensor& s, const Tensor& t, std::int64_t dy, std::int64_t dx) {
  const auto distances = [&](const Tensor& x) {
    const std::int64_t h = x.size(2);
    const std::int64_t w = x.size(3);
    const Tensor a =
        ops::slice(ops::slice(x, 2, 0, h - dy), 3, std::max<std::int64_t>(0, -dx), w - std::max<std::int64_t>(0, dx));
    const Tensor b =
        ops::slice(ops::slice(x, 2, dy, h), 3, std::max<std::int64_t>(0, dx), w + std::min<std::int64_t>(0, dx));
    return ops::sqrt(ops::sum(squares(a, b), {1}));
  };
  return ops::sum(squares(distances(s), distances(t)));
}

const PairwiseKdOptions kUnpooled{.scale = 0, .kernel = 1, .detach_norm = true};

}  // namespace

TEST_CASE("pairwise_kd: oracles") {
  const auto row = [](const PairwiseKdOptions& options, const OracleRow& expected) {
    check_oracle([&](const Tensor& s) { return pairwise_kd(s, teacher_as(s), options); }, expected);
  };
  row({}, {0.2429285164011, 0.1114734914236, 0});
  row({.scale = 0, .kernel = 2}, {0.2429285164011, 0.1114734914236, 0});
  row({.detach_norm = false}, {0.2429285164011, 0.0591790058728, 0});
  row(kUnpooled, {0.5360239144861, 0.09953951922093, -0.003846030571707});
  row({.scale = 0, .kernel = 1, .detach_norm = false}, {0.5360239144861, 0.06389948474504, -0.00757031791631});
}

TEST_CASE("pairwise_kd: value and gradient of the composite of generic ops, in f64") {
  const Tensor t = oracle_teacher();
  for (const std::int64_t pool : {1, 2, 3}) {
    for (const bool detach : {true, false}) {
      CAPTURE(pool);
      CAPTURE(detach);
      check_composite(
          [&](const Tensor& s) { return pairwise_kd(s, t, {.scale = 0, .kernel = pool, .detach_norm = detach}); },
          [&](const Tensor& s) { return ops::mean(squares(cosines(s, pool, detach), cosines(t, pool, detach))); });
    }
  }
}

TEST_CASE("pairwise_kd: the promises of every loss") {
  for (const auto& options :
       {PairwiseKdOptions{}, kUnpooled, PairwiseKdOptions{.scale = 0, .kernel = 2, .detach_norm = false}}) {
    const PairLoss loss = [&](const Tensor& s, const Tensor& t) { return pairwise_kd(s, t, options); };
    check_zero_for_equal_maps(loss, {2, 19, 13, 15});
    check_zero_for_equal_maps(loss, {2, 1, 1, 1});
    check_large_numbers(loss, {2, 11, 15, 14}, {2, 7, 15, 14});
    check_threads(loss, {2, 19, 40, 41}, {2, 32, 40, 41});
    check_mixed_types(loss, {2, 11, 9, 9}, {2, 19, 9, 9});
    check_nan_shows(loss, {1, 3, 4, 5});
    check_refusals(loss);
  }
}

TEST_CASE("pairwise_kd: both ways of computing agree with the reference; a repetition is exact") {
  const PairwiseKdOptions pooled{.scale = 0, .kernel = 2, .detach_norm = false};
  struct Row {
    Shape student, teacher;
    PairwiseKdOptions options;
  };
  for (const auto& [student, teacher, options] :
       {Row{{2, 19, 20, 21}, {2, 32, 20, 21}, kUnpooled}, Row{{1, 19, 31, 37}, {1, 32, 31, 37}, pooled},
        Row{{2, 45, 9, 11}, {2, 32, 9, 11}, pooled}}) {
    CAPTURE(student[1]);
    const Tensor s = noise_map(student, 1, 2);
    const Tensor t = noise_map(teacher, 2, 2);
    const auto loss = [&](const Tensor& x) { return pairwise_kd(x, t.copy_as(x.dtype()), options); };
    const auto fast = differentiate(loss, s);
    const auto exact = differentiate(loss, s.copy_as(DType::kF64));
    CHECK(fast.loss == doctest::Approx(exact.loss).epsilon(1e-5));
    CHECK(gap(fast.gradient, exact.gradient) < 1e-5);
    CHECK(differentiate(loss, s).gradient == fast.gradient);
  }
}

TEST_CASE("pairwise_kd: small differences of large affinities keep their digits") {
  const Tensor t = noise_map({1, 8, 24, 26}, 1, 2);
  const Tensor s = ops::add(t, ops::mul_scalar(noise_map({1, 8, 24, 26}, 2, 2), 1e-3F));
  const PairwiseKdOptions options{.scale = 0, .kernel = 2, .detach_norm = false};
  const auto loss = [&](const Tensor& x) { return pairwise_kd(x, t.copy_as(x.dtype()), options); };
  const auto fast = differentiate(loss, s);
  const auto exact = differentiate(loss, s.copy_as(DType::kF64));
  CHECK(fast.loss == doctest::Approx(exact.loss).epsilon(1e-5));
  CHECK(gap(fast.gradient, exact.gradient) < 1e-5);
}

TEST_CASE("pairwise_kd: a vector of length zero gets no gradient; wrong options are named") {
  const Tensor s = noise_map({1, 3, 4, 4}, 1, 1);
  for (std::int64_t c = 0; c < 3; ++c) s.view().at<float>(0, c, 1, 2) = 0;
  const Tensor leaf = s.copy();
  leaf.set_requires_grad(true);
  pairwise_kd(leaf, noise_map({1, 3, 4, 4}, 2, 1), kUnpooled).backward();
  CHECK(leaf.grad().view().at<float>(0, 1, 1, 2) == 0.0F);
  CHECK(leaf.grad().view().at<float>(0, 1, 1, 3) != 0.0F);
  CHECK(contains(message_of([&] { return pairwise_kd(s, s, {.scale = 2}); }), "scale 2"));
  CHECK(contains(message_of([&] { return pairwise_kd(s, s, {.scale = 0, .kernel = 0}); }), "kernel 0"));
}

TEST_CASE("batch_similarity_kd: oracle and composite") {
  check_oracle([](const Tensor& s) { return batch_similarity_kd(s, teacher_as(s)); },
               {0.5656787800756, 0.01193895199554, 0.001557046794779});
  const auto gram = [](const Tensor& x) {
    const Tensor f = ops::reshape(x, {2, -1});
    return normalise_rows(ops::matmul(f, f, false, true));
  };
  check_composite([](const Tensor& s) { return batch_similarity_kd(s, oracle_teacher()); },
                  [&](const Tensor& s) { return ops::mean(squares(gram(s), gram(oracle_teacher()))); });
}

TEST_CASE("batch_similarity_kd: the promises of every loss") {
  const PairLoss loss = [](const Tensor& s, const Tensor& t) { return batch_similarity_kd(s, t); };
  check_zero_for_equal_maps(loss, {3, 19, 13, 15});
  check_large_numbers(loss, {3, 11, 15, 14}, {3, 7, 10, 9});
  check_threads(loss, {3, 19, 60, 61}, {3, 32, 60, 61});
  check_mixed_types(loss, {3, 11, 9, 9}, {3, 19, 9, 9});
  check_nan_shows(loss, {2, 3, 4, 5});
  check_refusals(loss);
  // One sample is only like itself.
  const auto r = differentiate(
      [&](const Tensor& s) {
        return loss(s, noise_map({1, 3, 4, 5}, 1, 1));
      },
      noise_map({1, 3, 4, 5}, 2, 1));
  CHECK(r.loss == 0.0);
  CHECK(largest_magnitude(r.gradient) == doctest::Approx(0.0));
}

// bf16 maps take one way or the other, as the processor has matrix units or not; f32 maps always the vectors.
TEST_CASE("products of channels, on vectors and on matrix units, for any number of channels and pixels") {
  for (const std::int64_t c : {1, 3, 16, 19, 33, 70}) {
    for (const std::int64_t pixels : {1, 7, 31, 64, 255, 256}) {
      CAPTURE(c);
      CAPTURE(pixels);
      Generator g(static_cast<std::uint64_t>(100 * c + pixels));
      std::vector<bfloat16> x(static_cast<std::size_t>(pixels * c));  // exactly: whoever reads behind the map is found
      std::vector<float> wide(x.size()), d(static_cast<std::size_t>(c * c));
      for (std::size_t i = 0; i < x.size(); ++i)
        wide[i] = static_cast<float>(x[i] = bfloat16(static_cast<float>(g.normal())));
      for (float& v : d) v = static_cast<float>(g.normal());
      const auto at = [](std::int64_t row, std::int64_t column, std::int64_t width) {
        return static_cast<std::size_t>(row * width + column);
      };
      std::vector<double> gram(d.size(), 0.0), mixed(x.size(), 0.0);
      for (std::int64_t m = 0; m < pixels; ++m) {
        for (std::int64_t i = 0; i < c; ++i) {
          for (std::int64_t j = 0; j < c; ++j) {
            const auto right = static_cast<double>(wide[at(m, j, c)]);
            gram[at(i, j, c)] += static_cast<double>(wide[at(m, i, c)]) * right;
            mixed[at(m, i, c)] += static_cast<double>(d[at(i, j, c)]) * right;
          }
        }
      }
      const auto check = [](const auto& actual, const std::vector<double>& expected, double tolerance) {
        double gap = 0, largest = 0;
        for (std::size_t i = 0; i < expected.size(); ++i) {
          gap = std::max(gap, std::abs(static_cast<double>(actual[i]) - expected[i]));
          largest = std::max(largest, std::abs(expected[i]));
        }
        CHECK(gap <= tolerance * largest);
      };
      std::vector<double> k(d.size());
      channel_gram(x.data(), pixels, c, k.data());
      check(k, gram, 2e-6);
      channel_gram(wide.data(), pixels, c, k.data());
      check(k, gram, 2e-6);
      std::vector<float> panels(static_cast<std::size_t>(panels_of(c) * kGramRun * kPanelLanes));
      std::vector<float> same = panels;
      load_panels(x.data(), c, pixels, pixels * c, panels.data());
      load_panels(wide.data(), c, pixels, pixels * c, same.data());
      bool equal = true;  // lanes behind the last channel are anybody's
      for (std::int64_t m = 0; m < pixels; ++m) {
        for (std::int64_t i = 0; i < c; ++i) {
          const std::size_t lane = at(i / kPanelLanes * kGramRun + m, i % kPanelLanes, kPanelLanes);
          equal = equal && panels[lane] == same[lane] && panels[lane] == wide[at(m, i, c)];
        }
      }
      CHECK(equal);
      std::vector<float> y(x.size());
      channel_mix(d.data(), wide.data(), pixels, c, y.data());
      check(y, mixed, 2e-6);
      channel_mix(d.data(), x.data(), pixels, c, y.data());
      check(y, mixed, 2e-6);
      std::vector<bfloat16> low(x.size());
      channel_mix(d.data(), x.data(), pixels, c, low.data());
      for (std::size_t i = 0; i < y.size(); ++i) y[i] = static_cast<float>(low[i]);
      check(y, mixed, 5e-3);
    }
  }
}

TEST_CASE("inter_channel_kd: oracles and composite") {
  check_oracle([](const Tensor& s) { return inter_channel_kd(s, teacher_as(s)); },
               {0.3837308509262, 0.1079281454666, 0.02002122375489});
  check_oracle([](const Tensor& s) { return inter_channel_kd(s, teacher_as(s), {.divide_by_n_squared = true}); },
               {0.1918654254631, 0.05396407273331, 0.01001061187744});
  const auto correlation = [](const Tensor& x) { return normalise_rows(ops::matmul(rows(x), rows(x), false, true)); };
  check_composite([](const Tensor& s) { return inter_channel_kd(s, oracle_teacher()); },
                  [&](const Tensor& s) {
                    return ops::mul_scalar(ops::sum(squares(correlation(s), correlation(oracle_teacher()))), 1.0 / 6);
                  });
}

TEST_CASE("inter_channel_kd: the promises of every loss") {
  const PairLoss loss = [](const Tensor& s, const Tensor& t) { return inter_channel_kd(s, t); };
  check_zero_for_equal_maps(loss, {2, 19, 23, 25});
  check_zero_for_equal_maps(loss, {2, 5, 1, 1});
  check_large_numbers(loss, {2, 11, 15, 14}, {2, 11, 15, 14});
  check_threads(loss, {2, 19, 60, 61}, {2, 19, 60, 61});
  check_mixed_types(loss, {2, 11, 9, 9}, {2, 11, 9, 9});
  check_nan_shows(loss, {1, 3, 4, 5});
  check_refusals(loss);
  // One channel is only like itself.
  CHECK(loss(noise_map({2, 1, 5, 5}, 1, 1), noise_map({2, 1, 5, 5}, 2, 1)).item() == 0.0);
}

TEST_CASE("csd_kd: oracles and composite") {
  check_oracle([](const Tensor& s) { return csd_kd(s, teacher_as(s), {.tau = 4}); },
               {7.257733418839e-05, 1.877611943324e-05, -1.129402923436e-06});
  check_oracle([](const Tensor& s) { return csd_kd(s, teacher_as(s), {.tau = 1}); },
               {0.003834263147517, 0.001933546010909, 1.813815622669e-05});
  const auto overlaps = [](const Tensor& x) {
    const Tensor z = ops::mul_scalar(ops::avg_pool2d(x, {.kernel = {2, 2}, .ceil_mode = true}), 0.5);
    const Tensor p = rows(ops::softmax(z, ops::SoftmaxAxis::kSpatial));
    return ops::matmul(p, p, false, true);
  };
  check_composite([](const Tensor& s) { return csd_kd(s, oracle_teacher(), {.tau = 2}); },
                  [&](const Tensor& s) { return ops::mean(squares(overlaps(s), overlaps(oracle_teacher()))); });
}

TEST_CASE("csd_kd: the promises of every loss") {
  const PairLoss loss = [](const Tensor& s, const Tensor& t) { return csd_kd(s, t); };
  check_zero_for_equal_maps(loss, {2, 19, 23, 25});
  check_zero_for_equal_maps(loss, {2, 5, 1, 1});
  check_large_numbers(loss, {2, 11, 15, 14}, {2, 11, 15, 14}, 1e-4, 1e-9);
  check_threads(loss, {2, 19, 60, 61}, {2, 19, 60, 61});
  check_mixed_types(loss, {2, 11, 9, 9}, {2, 11, 9, 9});
  check_nan_shows(loss, {1, 3, 4, 5});
  check_refusals(loss);
  CHECK(contains(message_of([&] { return csd_kd(oracle_student(), oracle_teacher(), {.tau = 0}); }), "tau = 0"));
  // A shift of the logits moves no probability.
  CHECK(csd_kd(ops::add_scalar(oracle_student(), 50), oracle_teacher()).item() ==
        doctest::Approx(csd_kd(oracle_student(), oracle_teacher()).item()).epsilon(1e-9));
}

TEST_CASE("local_kd: oracle and composite") {
  check_oracle([](const Tensor& s) { return local_kd(s, teacher_as(s)); },
               {1.095434313533, 0.5010970552194, -0.02797292274442});
  check_composite([](const Tensor& s) { return local_kd(s, oracle_teacher()); },
                  [](const Tensor& s) {
                    const Tensor t = oracle_teacher();
                    const Tensor sum = ops::add(ops::add(local_sum(s, t, 0, 1), local_sum(s, t, 1, -1)),
                                                ops::add(local_sum(s, t, 1, 0), local_sum(s, t, 1, 1)));
                    return ops::mul_scalar(sum, 1.0 / (2 * (4 * 4 + 3 * 5 + 2 * 3 * 4)));
                  });
}

TEST_CASE("local_kd: the promises of every loss") {
  const PairLoss loss = [](const Tensor& s, const Tensor& t) { return local_kd(s, t); };
  check_zero_for_equal_maps(loss, {2, 19, 13, 15});
  check_zero_for_equal_maps(loss, {2, 5, 1, 1});
  check_large_numbers(loss, {2, 11, 15, 14}, {2, 7, 15, 14});
  check_threads(loss, {2, 19, 60, 61}, {2, 32, 60, 61});
  check_mixed_types(loss, {2, 11, 9, 9}, {2, 19, 9, 9});
  check_nan_shows(loss, {1, 3, 4, 5});
  check_refusals(loss);
}

TEST_CASE("local_kd: a shift of the whole map changes nothing; flat regions get no gradient") {
  const double plain = local_kd(oracle_student(), oracle_teacher()).item();
  CHECK(local_kd(ops::add_scalar(oracle_student(), 100), oracle_teacher()).item() ==
        doctest::Approx(plain).epsilon(1e-10));
  const auto r = differentiate(
      [](const Tensor& s) {
        return local_kd(s, noise_map({1, 3, 4, 5}, 1, 1));
      },
      Tensor::zeros({1, 3, 4, 5}));
  CHECK(r.loss > 0);
  CHECK(largest_magnitude(r.gradient) == 0.0);
}
