// Tutorial 5: training. A network of three convolutions learns to find bright squares in noise, pixel by pixel. All parts of
// a real run are here: data, loss, gradient, schedule, optimizer, evaluation, checkpoint, resume.
//
// Run it with `ctest --test-dir build -R tutorial_05 -V`. Before: 04_module.cpp. Next: 06_distill.cpp.
#include <filesystem>
#include <string>
#include <vector>

#include "core/rng.h"
#include "models/model.h"
#include "nn/checkpoint.h"
#include "nn/clip.h"
#include "nn/ema.h"
#include "nn/fused.h"
#include "nn/schedule.h"
#include "nn/sgd.h"
#include "ops/cross_entropy.h"
#include "ops/reduce.h"
#include "tests/tutorial/expect.h"

using namespace limbeck;
using tutorial::expect;
using tutorial::section;

namespace {

constexpr std::int64_t kSize = 16;
constexpr std::int64_t kSteps = 120;

struct Batch {
  Tensor images;  // [N, 1, 16, 16]
  Tensor labels;  // [N, 16, 16], 1 inside the square, 255 (not judged) on its rim
};

/// Noise with one square per image. A single pixel says little (step 1, noise 0.8): the neighbourhood tells.
/// Batch k is a pure function of k, so a resumed run sees what an uninterrupted one would have seen.
Batch make_batch(std::uint64_t k, std::int64_t count) {
  Generator g(2024, k);
  std::vector<float> image(static_cast<std::size_t>(count * kSize * kSize));
  std::vector<std::uint8_t> label(image.size());
  for (std::int64_t n = 0; n < count; ++n) {
    const auto side = 5 + static_cast<std::int64_t>(g.below(5));
    const auto top = static_cast<std::int64_t>(g.below(static_cast<std::uint64_t>(kSize - side)));
    const auto left = static_cast<std::int64_t>(g.below(static_cast<std::uint64_t>(kSize - side)));
    for (std::int64_t y = 0; y < kSize; ++y) {
      for (std::int64_t x = 0; x < kSize; ++x) {
        const auto i = static_cast<std::size_t>((n * kSize + y) * kSize + x);
        const bool inside = y >= top && y < top + side && x >= left && x < left + side;
        const bool rim = inside && (y == top || y == top + side - 1 || x == left || x == left + side - 1);
        image[i] = static_cast<float>(0.8 * g.normal() + (inside ? 1.0 : 0.0));
        label[i] = rim ? 255 : inside ? 1 : 0;
      }
    }
  }
  return {Tensor::from(image, {count, 1, kSize, kSize}), Tensor::from(label, {count, kSize, kSize})};
}

struct Net : nn::Module {
  explicit Net(std::uint64_t seed) : Net(Generator(seed)) {}
  explicit Net(Generator g)
      : first({.in = 1, .out = 16, .kernel = 5, .padding = 2}, {}, ops::Activation::kRelu, g),
        second({.in = 16, .out = 16, .kernel = 5, .padding = 2}, {}, ops::Activation::kRelu, g),
        head({.in = 16, .out = 2}, g) {
    register_module("first", first);
    register_module("second", second);
    register_module("head", head);
  }
  Tensor forward(const Tensor& x) { return head(second(first(x))); }
  nn::ConvBnAct first;
  nn::ConvBnAct second;
  nn::Conv2d head;
};

/// Share of judged pixels with the right class, on images that training never sees.
double accuracy(Net& net) {
  const NoGradGuard off;
  net.eval();
  const Batch batch = make_batch(1'000'000, 64);
  const auto predicted = ops::argmax(net.forward(batch.images), 1).to_vector<std::int64_t>();
  const auto truth = batch.labels.to_vector<std::int64_t>();
  std::int64_t right = 0;
  std::int64_t judged = 0;
  for (std::size_t i = 0; i < truth.size(); ++i) {
    if (truth[i] == 255) continue;
    ++judged;
    right += predicted[i] == truth[i] ? 1 : 0;
  }
  net.train();
  return static_cast<double>(right) / static_cast<double>(judged);
}

/// Everything a run consists of. The average is an exponential one of the weights (Ema), which is less noisy than the weights
/// of a single step. The rate rises for 5 steps and then falls as (1 - step / steps)^0.9 (kPoly).
struct Run {
  explicit Run(std::uint64_t seed)
      : net(seed),
        sgd(models::parameter_groups(net, {.weight_decay = 1e-4}), {.momentum = 0.9}),
        average(net, {.decay = 0.95}) {}

  double step() {
    const Batch batch = make_batch(static_cast<std::uint64_t>(iteration), 8);
    const Tensor loss = ops::cross_entropy(net.forward(batch.images), batch.labels);
    loss.backward();                                   // gradients arrive in the parameters' grad()
    nn::clip_grad_norm_(sgd.parameters(), 5.0);        // a rare wild batch must not ruin the run
    sgd.step(nn::learning_rate(schedule, iteration));  // the rate of this step
    sgd.zero_grad();                                   // gradients add up otherwise
    average.update();
    ++iteration;
    return loss.item();
  }

  nn::Checkpoint save() const {
    nn::Checkpoint c;
    c.step = iteration;
    c.model = net.state_dict();
    c.parts = {{"optimizer", sgd.state_dict()}, {"average", average.state_dict()}};
    return c;
  }
  void load(const nn::Checkpoint& c) {
    iteration = c.step;
    net.load_state_dict(c.model);
    sgd.load_state_dict(c.parts.at("optimizer"));
    average.load_state_dict(c.parts.at("average"));
  }

  Net net;
  nn::Sgd sgd;
  nn::Ema average;
  nn::ScheduleOptions schedule{
      .kind = nn::ScheduleKind::kPoly, .base_lr = 0.1, .total_steps = kSteps, .warmup_steps = 5};
  std::int64_t iteration = 0;
};

void train() {
  section("1. Training");
  Run run(1);
  const double untrained = accuracy(run.net);
  double first = 0;
  double last = 0;
  while (run.iteration < kSteps) {
    last = run.step();
    if (run.iteration == 1) first = last;
    if (run.iteration % 20 == 0) {
      fmt::print("  iter {:3}  lr {:.4f}  loss {:.3f}  accuracy {:.3f}\n", run.iteration,
                 nn::learning_rate(run.schedule, run.iteration - 1), last, accuracy(run.net));
    }
  }
  const double trained = accuracy(run.net);
  fmt::print("  before {:.3f}, after {:.3f}\n", untrained, trained);
  expect(last < 0.25 * first, "the loss fell to less than a quarter");
  expect(trained > 0.97, "more than 97 % of the pixels of unseen images are right");
  {
    const nn::EmaScope average(run.average);  // the averaged weights, for evaluation only
    fmt::print("  averaged weights {:.3f}\n", accuracy(run.net));
    expect(accuracy(run.net) > 0.97, "so are those of the averaged weights");
  }
  expect(accuracy(run.net) == trained, "afterwards the run has its own weights back");
}

void resume() {
  section("2. Checkpoints: a run that was cut is the same run");
  const std::filesystem::path folder = std::filesystem::temp_directory_path() / "limbeck-tutorial-05";
  std::filesystem::remove_all(folder);
  std::filesystem::create_directories(folder);
  Run straight(7);
  double loss = 0;
  for (int i = 0; i < 10; ++i) loss = straight.step();

  {
    Run cut(7);
    for (int i = 0; i < 4; ++i) cut.step();
    nn::save_checkpoint(folder / nn::checkpoint_name(cut.iteration), cut.save());
  }                // the process ends here
  Run resumed(8);  // another seed, to show that everything comes from the file
  resumed.load(nn::load_checkpoint(*nn::latest_checkpoint(folder)));
  double resumed_loss = 0;
  for (int i = 0; i < 6; ++i) resumed_loss = resumed.step();
  fmt::print("  loss of step 10: {} and {}\n", loss, resumed_loss);
  expect(loss == resumed_loss, "4 + 6 steps give the very bits of 10 steps");
  std::filesystem::remove_all(folder);
}

}  // namespace

int main() {
  train();
  resume();
  return tutorial::result();
}
