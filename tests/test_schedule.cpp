// Learning-rate schedules against their formulas.
#include <doctest/doctest.h>

#include <cmath>

#include "core/error.h"
#include "nn/schedule.h"
#include "tests/harness/temp_dir.h"

using namespace limbeck;
using nn::learning_rate;
using nn::ScheduleKind;
using nn::ScheduleOptions;
using test::check_throws;

TEST_SUITE_BEGIN("schedule");

TEST_CASE("poly is base * (1 - it/max)^0.9, and stays at its minimum afterwards") {
  const ScheduleOptions o{.kind = ScheduleKind::kPoly, .base_lr = 0.01, .total_steps = 40000};
  CHECK(learning_rate(o, 0) == 0.01);
  CHECK(learning_rate(o, 20000) == doctest::Approx(0.00535886731268).epsilon(1e-11));  // 0.01 * 0.5^0.9
  CHECK(learning_rate(o, 39999) == doctest::Approx(0.01 * std::pow(1.0 / 40000, 0.9)).epsilon(1e-9));
  CHECK(learning_rate(o, 40000) == 0.0);
  CHECK(learning_rate(o, 50000) == 0.0);
  ScheduleOptions mmseg = o;
  mmseg.min_lr = 1e-4;
  CHECK(learning_rate(mmseg, 20000) == doctest::Approx(0.0099 * 0.535886731268 + 1e-4).epsilon(1e-11));
  CHECK(learning_rate(mmseg, 90000) == 1e-4);
}

TEST_CASE("cosine, step and constant") {
  const ScheduleOptions cosine{.kind = ScheduleKind::kCosine, .base_lr = 2.0, .total_steps = 100, .min_lr = 1.0};
  CHECK(learning_rate(cosine, 0) == 2.0);
  CHECK(learning_rate(cosine, 50) == doctest::Approx(1.5));
  CHECK(learning_rate(cosine, 25) == doctest::Approx(1.0 + 0.5 * (1 + std::sqrt(0.5))));
  CHECK(learning_rate(cosine, 100) == doctest::Approx(1.0));
  const ScheduleOptions step{.kind = ScheduleKind::kStep, .base_lr = 1.0, .milestones = {10, 20}, .gamma = 0.5};
  CHECK(learning_rate(step, 9) == 1.0);
  CHECK(learning_rate(step, 10) == 0.5);
  CHECK(learning_rate(step, 19) == 0.5);
  CHECK(learning_rate(step, 20) == 0.25);
  const ScheduleOptions constant{.kind = ScheduleKind::kConstant, .base_lr = 0.3};
  CHECK(learning_rate(constant, 123456) == 0.3);
}

TEST_CASE("warm-up multiplies the schedule by a line from ratio to 1") {
  const ScheduleOptions o{.kind = ScheduleKind::kConstant, .base_lr = 1.0, .warmup_steps = 10, .warmup_ratio = 0.1};
  CHECK(learning_rate(o, 0) == doctest::Approx(0.1));
  CHECK(learning_rate(o, 5) == doctest::Approx(0.55));
  CHECK(learning_rate(o, 10) == 1.0);
  const ScheduleOptions poly{
      .kind = ScheduleKind::kPoly, .base_lr = 1.0, .total_steps = 100, .warmup_steps = 10, .warmup_ratio = 0.0};
  CHECK(learning_rate(poly, 5) == doctest::Approx(0.5 * std::pow(0.95, 0.9)));
}

TEST_CASE("wrong options are configuration errors") {
  check_throws<ConfigError>([] { static_cast<void>(nn::parse_schedule_kind("ploy")); }, {"'ploy'", "poly", "cosine"});
  CHECK(nn::parse_schedule_kind("cosine") == ScheduleKind::kCosine);
  check_throws<ConfigError>([] { static_cast<void>(learning_rate({.total_steps = 0}, 1)); }, {"total_steps 0"});
  check_throws<ConfigError>([] { static_cast<void>(learning_rate({}, -1)); }, {"step -1"});
  check_throws<ConfigError>([] { static_cast<void>(learning_rate({.milestones = {5, 3}}, 1)); }, {"milestones"});
}

TEST_SUITE_END();
