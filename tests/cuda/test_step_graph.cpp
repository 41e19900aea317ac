// Steps recorded and replayed on the GPU, real or emulated, are those launched one by one; what cannot be recorded is noticed.
#include <doctest/doctest.h>

#include <deque>
#include <set>

#include "core/autocast.h"
#include "core/autograd.h"
#include "core/cuda.h"
#include "core/readback.h"
#include "core/step_graph.h"
#include "nn/clip.h"
#include "nn/ema.h"
#include "nn/optim.h"
#include "ops/dropout.h"
#include "ops/elementwise.h"
#include "tests/cuda/device.h"
#include "tests/cuda/tiny_training.h"
#include "tests/harness/op_case.h"

using namespace limbeck;
using test::kGpu;
using test::no_device;
using test::Outcome;

namespace {

/// Twenty steps in which everything changes that may: rate, weights of terms, random numbers, masks, inputs, the average. `recorded`: the first two
/// are launched, the third is rehearsed, the fourth recorded.
Outcome train_with_everything(bool adamw, bool bf16, bool recorded) {
  constexpr int kSteps = 20;
  cuda::trim(kGpu);
  const nn::ParameterDevice on(kGpu);
  Generator g(1);
  const models::ModelSpec spec = test::tiny_network(0.1);
  std::vector<distill::Term> terms = test::terms_of({test::kChannelKd, test::kPixelKd, "{loss: mgd}"});
  terms[0].weight = distill::WeightSchedule::linear(0.5, 3);
  distill::ObjectiveOptions options;
  options.ce_weight = distill::WeightSchedule::linear(1, 0.2);
  distill::Distiller objective(models::make_model(spec, g), models::make_model(spec, g), std::move(terms), options);
  std::vector<nn::ParameterGroup> groups(2);
  groups[0].weight_decay = 1e-2;
  groups[1].lr_multiplier = 4;
  nn::assign_parameters(groups, objective, [](const nn::NamedTensor& p) { return nn::is_vector_parameter(p) ? 1 : 0; });
  const auto optimizer = nn::make_optimizer({.name = adamw ? "adamw" : "sgd"}, std::move(groups));
  objective.train();
  nn::Ema average(objective, {.decay = 0.8});

  Generator data(2);
  const Tensor images = Tensor::empty({2, 3, 32, 32}, DType::kF32, kGpu);
  const Tensor labels = Tensor::empty({2, 32, 32}, DType::kU8, kGpu);
  Outcome out;
  std::vector<Tensor> numbers;
  const auto work = [&](int step) {
    const auto stream = [](std::int64_t at) { return mix_stream(9, static_cast<std::uint64_t>(at)); };
    Generator random(3, stream(step));
    if (StepGraph* graph = StepGraph::current()) graph->random_stream(stream);
    optimizer->zero_grad();
    distill::Objective o;
    {
      const AutocastGuard precision(bf16);
      o = objective.forward(ops::dropout(images, 0.2, true, random), labels, step, kSteps);
    }
    o.total.backward();
    numbers = {o.total.detach(), nn::clip_grad_norm_on_device_(optimizer->parameters(), 5.0)};
    optimizer->step(1e-3 / (1 + step));
    average.update();
  };
  StepGraph graph(std::make_shared<GraphMemory>(kGpu));
  std::deque<Readback> late;
  const auto read = [&] {
    const auto values = late.front().wait();
    out.losses.insert(out.losses.end(), values.begin(), values.end());
    late.pop_front();
  };
  for (int step = 0; step < kSteps; ++step) {
    images.copy_(test::random_normal(data, images.shape()));
    labels.copy_(test::random_labels(data, labels.shape(), 5));
    if (!recorded || step < 2) {
      work(step);
    } else if (step == 2) {
      CHECK(graph.rehearse(step, [&] { work(step); }) == "");
    } else if (step == 3) {
      CHECK(graph.record(step, [&] { work(step); }) == "");
      CHECK(graph.nodes() > 300);
    } else {
      optimizer->set_rate(1e-3 / (1 + step));
      graph.replay(step);
    }
    late.emplace_back(numbers);
    if (late.size() > 4) read();
  }
  while (!late.empty()) read();
  for (const auto& state : {objective.state_dict(), optimizer->state_dict(), average.state_dict()}) {
    for (const auto& [name, tensor] : state) {
      const auto values = tensor.to_vector<double>();
      out.weights.insert(out.weights.end(), values.begin(), values.end());
    }
  }
  return out;
}

}  // namespace

TEST_SUITE_BEGIN("step_graph");

TEST_CASE("twenty steps recorded and replayed are those launched one by one, bit for bit") {
  if (no_device()) return;
  for (const bool adamw : {false, true}) {
    CAPTURE(adamw);  // in bf16
    const Outcome plain = train_with_everything(adamw, adamw, false);
    const Outcome recorded = train_with_everything(adamw, adamw, true);
    CHECK(recorded.losses == plain.losses);
    CHECK(recorded.weights == plain.weights);
    // The numbers that change by step do change what is computed: the comparison could fail.
    CHECK(std::set<double>(plain.losses.begin(), plain.losses.end()).size() > 15);
  }
}

TEST_CASE("a discriminator trained within a recorded step is that of steps launched one by one") {
  if (no_device()) return;
  std::vector<std::vector<double>> results;
  for (const bool recorded : {false, true}) {
    const nn::ParameterDevice on(kGpu);
    const auto loss = distill::make_loss(Config::parse("{loss: holistic, form: wgan_gp}", "test"));
    distill::LossContext context;
    context.student = context.teacher = {"logits", 2, 8};
    context.classes = 2;
    context.seed = 7;
    loss->connect(context);
    loss->train();
    Generator data(2);
    const Tensor student = test::random_normal(data, {1, 2, 64, 64}).copy_as(DType::kF32).to(kGpu);
    const Tensor teacher = test::random_normal(data, {1, 2, 64, 64}).copy_as(DType::kF32).to(kGpu);
    student.set_requires_grad(true);
    Tensor value;
    const auto work = [&](std::int64_t step) {
      student.set_grad({});
      const Tensor term = loss->forward(student, teacher, {});
      term.backward();
      value = term.detach();
      loss->after_step(step, 3);
    };
    std::vector<double> all;
    StepGraph graph(std::make_shared<GraphMemory>(kGpu));
    for (std::int64_t step = 0; step < 3; ++step) {
      if (!recorded) {
        work(step);
      } else if (step == 0) {
        CHECK(graph.rehearse(step, [&] { work(step); }) == "");
      } else if (step == 1) {
        CHECK(graph.record(step, [&] { work(step); }) == "");
      } else {
        graph.replay(step);
      }
      all.push_back(value.item());
    }
    for (const auto& [name, tensor] : loss->state_dict()) {
      const auto values = tensor.to_vector<double>();
      all.insert(all.end(), values.begin(), values.end());
    }
    results.push_back(std::move(all));
  }
  CHECK(results[0] == results[1]);
  CHECK(std::set<double>(results[0].begin(), results[0].begin() + 3).size() == 3);
}

TEST_CASE("a recording that is impossible is noticed in its rehearsal, and leaves no trace") {
  if (no_device()) return;
  StepGraph graph(std::make_shared<GraphMemory>(kGpu));
  const Tensor x = Tensor::full({8}, 1, DType::kF32, kGpu);
  std::int64_t counter = 0;
  const auto work = [&] {
    ops::mul_scalar_(x, 2.0);
    ++counter;
    StepGraph::current()->on_replay([&](std::int64_t times) { counter += times; });
    ops::add_(x, Tensor::full({8}, 1).to(kGpu), 1.0);
  };
  CHECK(graph.rehearse(0, work).find("copies 32 bytes to the device") != std::string::npos);
  CHECK(x.to_vector<float>() == std::vector<float>(8, 3.0F));
  CHECK(counter == 1);
  CHECK(graph.record(1, work).find("copies 32 bytes to the device") != std::string::npos);
  CHECK(x.to_vector<float>() == std::vector<float>(8, 3.0F));
  CHECK(counter == 1);
  CHECK_THROWS_WITH_AS(graph.replay(2), doctest::Contains("nothing has been recorded"), Error);
  CHECK(graph.record(3, [&] { ops::mul_scalar_(x, 2.0); }).empty());
  graph.replay(4);
  CHECK(x.to_vector<float>() == std::vector<float>(8, 12.0F));
  const Generator other(1, 2);
  Generator unknown = other;
  const auto drop = [&] { static_cast<void>(ops::dropout(x, 0.5, true, unknown)); };
  CHECK(graph.rehearse(5, drop).find("does not know how they depend on the step") != std::string::npos);
}

TEST_CASE("what a graph uses is nobody else's, and is given back with it") {
  if (no_device()) return;
  const auto in_use = [] { return cuda::memory_stats(kGpu).in_use; };
  const std::size_t before = in_use();
  const Tensor x = Tensor::full({300000}, 1, DType::kF32, kGpu);
  Tensor y;
  const auto work = [&] { y = ops::mul_scalar(ops::mul_scalar(x, 2.0), 3.0); };
  {
    StepGraph graph(std::make_shared<GraphMemory>(kGpu));
    REQUIRE(graph.record(0, work).empty());
    cuda::trim(kGpu);
    std::vector<Tensor> others;
    for (int i = 0; i < 40; ++i) others.push_back(Tensor::full({300000}, 7, DType::kF32, kGpu));
    graph.replay(1);
    for (const Tensor& other : others) CHECK(other.to_vector<float>() == std::vector<float>(300000, 7.0F));
    CHECK(y.to_vector<float>() == std::vector<float>(300000, 6.0F));
  }
  CHECK(y.to_vector<float>() == std::vector<float>(300000, 6.0F));
  y = Tensor();
  CHECK(in_use() == before + 300000 * sizeof(float) / 512 * 512 + 512);
}

TEST_SUITE_END();
