// What the training loop asks of a GPU, real or emulated: steps of many shapes and phases, recorded or not, give the same numbers.
#include <doctest/doctest.h>

#include "apps/step_recorder.h"
#include "core/error.h"
#include "ops/elementwise.h"
#include "ops/reduce.h"
#include "tests/cuda/device.h"

using namespace limbeck;
using apps::StepInputs;
using apps::StepOutputs;
using apps::StepRecorder;
using test::kGpu;
using test::no_device;

namespace {

/// 40 steps of two batches whose size depends on the step: step^2 * (sum of the images + sum of the labels) of both.
std::vector<double> run(const std::string& mode, std::int64_t shapes, std::int64_t* host_runs) {
  StepRecorder recorder(kGpu, mode);
  std::vector<double> out;
  for (std::int64_t step = 0; step < 40; ++step) {
    const std::int64_t n = 1 + step % shapes;
    std::int64_t given = 0;
    const auto next = [&] {
      ++given;
      const double value = static_cast<double>(step * given);
      return StepInputs{Tensor::full({n, 3, 2, 2}, value), Tensor::full({n, 2, 2}, value, DType::kF32)};
    };
    const auto square = [](std::int64_t at) { return static_cast<double>(at * at); };
    const auto work = [&](const StepRecorder::Source& inputs) {
      ++*host_runs;
      Tensor total;
      for (int k = 0; k < 2; ++k) {
        const StepInputs batch = inputs();
        const Tensor sum = ops::add(ops::sum(batch.images), ops::sum(batch.labels));
        total = total.defined() ? ops::add(total, sum) : sum;
      }
      StepOutputs made;
      StepGraph* graph = StepGraph::current();
      made.numbers = {graph != nullptr ? ops::mul(total, graph->number(square)) : ops::mul_scalar(total, square(step))};
      return made;
    };
    const StepOutputs made = recorder.run(step, "phase", 2, next, work);
    CHECK(given == 2);
    out.push_back(made.numbers.at(0).item());
  }
  return out;
}

}  // namespace

TEST_SUITE_BEGIN("cuda_recorder");

TEST_CASE("steps of one shape, of several, and of more than are kept") {
  if (no_device()) return;
  for (const std::int64_t shapes : {1, 3, 6}) {
    CAPTURE(shapes);
    std::int64_t plain_runs = 0;
    std::int64_t runs = 0;
    const auto plain = run("off", shapes, &plain_runs);
    const auto recorded = run("auto", shapes, &runs);
    CHECK(recorded == plain);
    CHECK(plain[3] == 9 * (3 + 6) * 16 * (1 + 3 % shapes));
    CHECK(plain_runs == 40);
    // Two steps are launched, one is rehearsed, one recorded, per shape; with six shapes in turn none lives long enough.
    CHECK(runs == (shapes == 6 ? 40 : 4 * shapes));
  }
}

TEST_CASE("a recording that is asked for and impossible is an error") {
  if (no_device()) return;
  StepRecorder recorder(kGpu, "on");
  const auto next = [] { return StepInputs{Tensor::zeros({1, 3, 2, 2}), Tensor::zeros({1, 2, 2})}; };
  const auto work = [](const StepRecorder::Source& inputs) {
    static_cast<void>(ops::sum(inputs().images).item());
    return StepOutputs{};
  };
  static_cast<void>(recorder.run(0, "", 1, next, work));
  static_cast<void>(recorder.run(1, "", 1, next, work));
  CHECK_THROWS_WITH_AS(static_cast<void>(recorder.run(2, "", 1, next, work)),
                       doctest::Contains("copies 4 bytes to the host"), ConfigError);
  CHECK_THROWS_WITH_AS(StepRecorder(kCpu, "on"), doctest::Contains("the device is cpu"), ConfigError);
  static_cast<void>(StepRecorder(kCpu, "auto"));
}

TEST_SUITE_END();
