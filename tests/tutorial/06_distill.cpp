// Tutorial 6: distillation. What a student learns from a teacher's maps, pixel by pixel (KD) and channel by channel (CWD),
// read off the gradients of maps small enough to print; then a small network that learns from a bigger one.
//
// Run it with `ctest --test-dir build -R tutorial_06 -V`. Before: 05_train.cpp. Next: core/README.md. All losses in one
// table: distill/README.md. KL is the Kullback-Leibler divergence of two distributions, sum p_T (ln p_T - ln p_S).
#include <cmath>
#include <string>
#include <utility>
#include <vector>

#include "core/autograd.h"
#include "core/rng.h"
#include "distill/channel_kd.h"
#include "distill/pixel_kd.h"
#include "nn/layers.h"
#include "nn/sgd.h"
#include "ops/cross_entropy.h"
#include "ops/elementwise.h"
#include "ops/reduce.h"
#include "ops/softmax.h"
#include "tests/tutorial/expect.h"

using namespace limbeck;
using distill::channel_kd;
using distill::pixel_kd;
using distill::PixelKdReduction;
using tutorial::expect;
using tutorial::message_of;
using tutorial::section;

namespace {

bool near(double a, double b, double tolerance = 1e-5) {
  return std::abs(a - b) <= tolerance * std::max(1.0, std::abs(b));
}

std::string row(const std::vector<double>& values) {
  std::string text;
  for (const double v : values) text += fmt::format("{:8.4f}", v);
  return text;
}

/// Gradient of a loss with respect to the student's map, in NCHW order.
template <class Loss>
std::vector<double> gradient(const Tensor& student, const Loss& loss) {
  const Tensor leaf = student.copy();
  leaf.set_requires_grad(true);
  loss(leaf).backward();
  return leaf.grad().to_vector<double>();
}

void one_pixel() {
  section("1. KD at one pixel: the whole distribution is the label");
  // Scores of one pixel for road, pavement, sky. A label says "road" and no more. The teacher also says that pavement is
  // the likely mistake, and sky is absurd.
  const Tensor teacher = Tensor::from(std::vector<float>{3, 2, -2}, {1, 3, 1, 1});
  const Tensor student = Tensor::from(std::vector<float>{1, 0, 1}, {1, 3, 1, 1});
  const Tensor label = Tensor::zeros({1, 1, 1}, DType::kU8);
  const auto p_t = ops::softmax(teacher).to_vector<double>();
  const auto p_s = ops::softmax(student).to_vector<double>();
  const auto from_label = gradient(student, [&](const Tensor& s) { return ops::cross_entropy(s, label); });
  const auto from_teacher = gradient(student, [&](const Tensor& s) { return pixel_kd(s, teacher); });
  fmt::print("                     road   pavement  sky\n  teacher says   {}\n  student says   {}\n", row(p_t),
             row(p_s));
  fmt::print("  gradient, label{}\n  gradient, KD   {}\n", row(from_label), row(from_teacher));
  expect(near(from_teacher[0], p_s[0] - p_t[0]) && near(from_teacher[1], p_s[1] - p_t[1]),
         "the gradient of KD is p_student - p_teacher");
  expect(from_label[1] > 0 && from_teacher[1] < 0, "the label pushes pavement down, the teacher pulls it up");
  expect(near(from_teacher[0] + from_teacher[1] + from_teacher[2], 0), "what one class gains, the others lose");
}

void temperature() {
  section("2. The temperature: how much the unlikely classes matter");
  const Tensor teacher = Tensor::from(std::vector<float>{6, 2, -2}, {1, 3, 1, 1});
  const Tensor student =
      Tensor::from(std::vector<float>{6, -2, 2}, {1, 3, 1, 1});  // sure of road, wrong about the rest
  double loss_at_1 = 0;
  for (const double tau : {1.0, 4.0}) {
    const auto p = ops::softmax(ops::mul_scalar(teacher, 1 / tau)).to_vector<double>();
    const double loss = pixel_kd(student, teacher, {.tau = tau}).item();
    fmt::print("  tau {:.0f}: teacher {}   tau^2 KL = {:.4f}\n", tau, row(p), loss);
    if (tau == 1) loss_at_1 = loss;
    expect(tau == 1 ? loss < 0.1 : loss > 10 * loss_at_1,
           tau == 1 ? "tau 1: nearly all mass is on road, the error goes unnoticed" : "tau 4: the same error counts");
  }
  // Dividing the scores by tau divides the gradient by tau twice: once in the slope, once because the two distributions
  // come closer. The factor tau^2 keeps the weight of the term meaningful when tau changes. Not all published code has it.
  const auto with = gradient(student, [&](const Tensor& s) { return pixel_kd(s, teacher, {.tau = 4}); });
  const auto without = gradient(student, [&](const Tensor& s) {
    return pixel_kd(s, teacher, {.tau = 4, .reduction = PixelKdReduction::kMeanAll});
  });
  expect(near(with[0], 16 * 3 * without[0]),
         "mean_all lacks the factor tau^2 and divides by C as well: 48 times smaller");
}

void reductions() {
  section("3. Four reductions under one name");
  Generator generator(3);
  const Tensor teacher = Tensor::empty({2, 5, 4, 6});
  const Tensor student = Tensor::empty({2, 5, 4, 6});
  fill_normal_(teacher, generator, 0, 2);
  fill_normal_(student, generator, 0, 2);
  const auto value = [&](PixelKdReduction r) {
    const double v = pixel_kd(student, teacher, {.tau = 2, .reduction = r}).item();
    fmt::print("  {:18} {:10.4f}\n", distill::name_of(r), v);
    return v;
  };
  const double mean_all = value(PixelKdReduction::kMeanAll);
  const double per_pixel = value(PixelKdReduction::kPerPixel);
  const double batch_mean = value(PixelKdReduction::kBatchMean);
  const double skd = value(PixelKdReduction::kSkdCrossEntropy);
  expect(near(per_pixel, 4 * 5 * mean_all), "per_pixel = tau^2 C mean_all");
  expect(near(batch_mean, 24 * per_pixel), "batch_mean = H W per_pixel: it grows with the crop");
  expect(skd > 2 * per_pixel / 4, "skd_cross_entropy adds the teacher's entropy, a constant without gradient");
  // So a recipe's "KD weight 10" says nothing before the reduction is named.
}

void one_channel() {
  section("4. CWD: where a channel is active");
  // One channel, say the scores of "sign" in a strip of five pixels. Teacher: a sign at pixel 1. Student: at pixel 3.
  const Tensor teacher = Tensor::from(std::vector<float>{0, 4, 0, 0, 0}, {1, 1, 1, 5});
  const Tensor student = Tensor::from(std::vector<float>{0, 0, 0, 4, 0}, {1, 1, 1, 5});
  const auto g = gradient(student, [&](const Tensor& s) { return channel_kd(s, teacher, {.tau = 1}); });
  fmt::print("  gradient of the student's five scores {}\n", row(g));
  expect(g[1] < -0.9 && g[3] > 0.9, "the step against the gradient moves the activity from pixel 3 to pixel 1");
  expect(near(g[0], 0) && near(g[2], 0) && near(g[4], 0), "pixels on which both agree are left alone");
}

void what_each_loss_sees() {
  section("5. KD and CWD look along different axes");
  Generator generator(5);
  const Tensor map = Tensor::empty({1, 3, 2, 4});
  fill_normal_(map, generator, 0, 2);
  // The student equals the teacher, except for a constant on one pixel or on one channel.
  const Tensor pixel_shift = map.copy();
  for (std::int64_t c = 0; c < 3; ++c) pixel_shift.view().at<float>(0, c, 1, 2) += 2.0F;
  const Tensor channel_shift = map.copy();
  for (std::int64_t h = 0; h < 2; ++h) {
    for (std::int64_t w = 0; w < 4; ++w) channel_shift.view().at<float>(0, 1, h, w) += 2.0F;
  }
  const auto both = [&](const char* what, const Tensor& student) {
    const std::pair<double, double> v{std::abs(pixel_kd(student, map).item()),
                                      std::abs(channel_kd(student, map, {.tau = 1}).item())};
    fmt::print("  +2 on {}: KD {:.4f}, CWD {:.4f}\n", what, v.first, v.second);
    return v;
  };
  const auto p = both("all channels of one pixel", pixel_shift);
  const auto c = both("all pixels of one channel", channel_shift);
  expect(near(p.first, 0) && p.second > 0.01, "KD is blind to how active a pixel is altogether; CWD is not");
  expect(near(c.second, 0) && c.first > 0.01, "CWD is blind to a class that is too likely everywhere; KD is not");
  // This is why published recipes often use both, and why CWD alone still needs the cross entropy.
}

void frozen_teacher() {
  section("6. The teacher is a constant");
  const Tensor student = Tensor::zeros({1, 3, 2, 2}).set_requires_grad(true);
  const Tensor trained = Tensor::zeros({1, 3, 2, 2}).set_requires_grad(true);
  const std::string error = message_of([&] { static_cast<void>(pixel_kd(student, trained)); });
  expect(error.find("freeze()") != std::string::npos, "a teacher that would be trained along is an error");
}

/// Share of pixels at which two score maps prefer the same class.
double agreement(const Tensor& a, const Tensor& b) {
  const auto x = ops::argmax(a, 1).to_vector<int>();
  const auto y = ops::argmax(b, 1).to_vector<int>();
  std::size_t same = 0;
  for (std::size_t i = 0; i < x.size(); ++i) same += x[i] == y[i] ? 1U : 0U;
  return static_cast<double>(same) / static_cast<double>(x.size());
}

void a_small_network_learns() {
  section("7. A student of 112 parameters learns from a teacher of 512, without labels");
  Generator generator(9);
  nn::Conv2d teacher_in({.in = 3, .out = 16, .kernel = 3, .padding = 1}, generator);
  nn::Conv2d teacher_out({.in = 16, .out = 4, .kernel = 1, .bias = false}, generator);
  nn::Conv2d student({.in = 3, .out = 4, .kernel = 3, .padding = 1}, generator);
  fmt::print("  teacher {} parameters, student {}\n", teacher_in.parameter_count() + teacher_out.parameter_count(),
             student.parameter_count());
  teacher_in.freeze();
  teacher_out.freeze();
  const auto teach = [&](const Tensor& x) {
    const NoGradGuard off;
    return ops::mul_scalar(teacher_out(ops::relu(teacher_in(x))),
                           5);  // 5: an untrained network is never sure of itself
  };

  std::vector<nn::ParameterGroup> groups(1);
  nn::assign_parameters(groups, student, [](const nn::NamedTensor&) { return 0; });
  nn::Sgd sgd(std::move(groups), {.momentum = 0.9});
  const Tensor unseen = Tensor::empty({4, 3, 16, 16});
  fill_normal_(unseen, generator, 0, 1);
  const double before = agreement(student(unseen), teach(unseen));
  double first = 0;
  double last = 0;
  for (int step = 0; step < 200; ++step) {
    const Tensor x = Tensor::empty({4, 3, 16, 16});
    fill_normal_(x, generator, 0, 1);
    const Tensor t = teach(x);
    const Tensor s = student(x);
    const Tensor kd = pixel_kd(s, t, {.tau = 2});
    const Tensor cwd = channel_kd(s, t, {.tau = 2});
    const Tensor loss = ops::add(kd, ops::mul_scalar(cwd, 0.5));
    sgd.zero_grad();
    loss.backward();
    sgd.step(0.05);
    last = loss.item();
    if (step == 0) first = last;
    if (step % 50 == 0) fmt::print("  step {:3}  kd {:.4f}  cwd {:.4f}\n", step, kd.item(), cwd.item());
  }
  const double after = agreement(student(unseen), teach(unseen));
  fmt::print("  on unseen input the student chooses the teacher's class at {:.0f} % of the pixels, before {:.0f} %\n",
             100 * after, 100 * before);
  expect(last < 0.5 * first, "the loss fell to less than half");
  expect(after > 0.7 && after > before + 0.3, "the student chooses as its teacher at most pixels");
}

}  // namespace

int main() {
  one_pixel();
  temperature();
  reductions();
  one_channel();
  what_each_loss_sees();
  frozen_teacher();
  a_small_network_learns();
  return tutorial::result();
}
