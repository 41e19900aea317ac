// Holistic distillation: the student's and the discriminator's side, both forms, resume, and structured knowledge
// distillation (pixel-wise + pair-wise + holistic) as one objective.
#include <doctest/doctest.h>

#include <memory>

#include "core/autograd.h"
#include "core/rng.h"
#include "distill/distiller.h"
#include "models/discriminator.h"
#include "nn/sgd.h"
#include "ops/elementwise.h"
#include "ops/reduce.h"
#include "tests/harness/oracle_maps.h"
#include "tests/harness/temp_dir.h"
#include "tests/harness/toy_model.h"

using namespace limbeck;
using namespace limbeck::distill;
using limbeck::test::check_throws;
using limbeck::test::ToyModel;

TEST_SUITE_BEGIN("holistic");

namespace {

constexpr std::int64_t kClasses = 3;

Tensor noise(const Shape& shape, std::uint64_t seed, double mean = 0) {
  Generator g(seed);
  const Tensor t = Tensor::empty(shape);
  fill_normal_(t, g, mean, 1);
  return t;
}

std::shared_ptr<Loss> connected(const std::string& yaml, std::uint64_t seed = 7) {
  const Config config = Config::parse(yaml, "test");
  auto loss = make_loss(config);
  config.check_all_used();
  LossContext context;
  context.student = context.teacher = {"logits", kClasses, 8};
  context.classes = kClasses;
  context.seed = seed;
  loss->connect(context);
  return loss;
}

/// Score maps of a student and a teacher that are easily told apart.
struct Maps {
  Tensor student = noise({2, kClasses, 64, 64}, 1);
  Tensor teacher = ops::mul_scalar(noise({2, kClasses, 64, 64}, 2), 3);
};

/// Steps of the discriminator alone; returns the student's term of each.
std::vector<double> play(Loss& loss, const Maps& maps, std::int64_t first, std::int64_t end) {
  std::vector<double> values;
  for (std::int64_t step = first; step < end; ++step) {
    values.push_back(loss.forward(maps.student, maps.teacher, {}).item());
    loss.after_step(step, 10);
  }
  return values;
}

}  // namespace

TEST_CASE("holistic: the student's side is minus the mean score, and moves only the student") {
  const auto loss = connected("{loss: holistic}");
  Generator g(7);
  models::Discriminator same(kClasses, g);
  const Maps maps;
  maps.student.set_requires_grad(true);
  const Tensor value = loss->forward(maps.student, maps.teacher, {});
  CHECK(value.item() == doctest::Approx(-ops::mean(same(maps.student.detach())).item()).epsilon(1e-6));
  value.backward();
  CHECK(test::largest_magnitude(maps.student.grad().to_vector<double>()) > 0);
  for (const Tensor& p : loss->parameters()) {
    CHECK(!p.requires_grad());
    CHECK(!p.grad().defined());
  }
}

TEST_CASE("holistic: the discriminator learns to tell the maps apart") {
  for (const char* yaml : {"{loss: holistic}", "{loss: holistic, form: wgan_gp}"}) {
    CAPTURE(yaml);
    const auto loss = connected(yaml);
    const Maps maps;
    const auto values = play(*loss, maps, 0, 6);
    CHECK(values.back() > values.front() + 0.05);  // the student's maps score lower and lower
    const double of_teacher = loss->forward(maps.teacher, maps.teacher, {}).item();
    CHECK(of_teacher < values.back());
    for (const Tensor& p : loss->parameters()) CHECK(!p.requires_grad());
  }
  // Without a pass of the student there is nothing to learn from.
  const auto idle = connected("{loss: holistic}");
  const auto before = idle->state_dict().at("discriminator.last.0.weight").copy().to_vector<double>();
  idle->after_step(0, 10);
  CHECK(idle->state_dict().at("discriminator.last.0.weight").to_vector<double>() == before);
}

TEST_CASE("holistic: options reach the discriminator's optimizer") {
  const Maps maps;
  const auto weight_after = [&](const char* yaml) {
    const auto loss = connected(yaml);
    play(*loss, maps, 5, 6);
    return loss->state_dict().at("discriminator.last.0.weight").copy().to_vector<double>();
  };
  const auto still = weight_after("{loss: holistic, lr: 0}");
  const auto poly = weight_after("{loss: holistic, lr: 0.001}");
  const auto constant = weight_after("{loss: holistic, lr: 0.001, power: 0}");
  // The first step of Adam moves every weight by the rate; half of the way through, poly decay leaves 0.5^0.9 of it.
  CHECK(std::abs(constant[0] - still[0]) == doctest::Approx(1e-3).epsilon(1e-2));
  CHECK(std::abs(poly[0] - still[0]) == doctest::Approx(1e-3 * std::pow(0.5, 0.9)).epsilon(1e-2));
  CHECK(weight_after("{loss: holistic, form: wgan_gp, penalty: 0}") != weight_after("{loss: holistic, form: wgan_gp}"));
  // A step of SGD is the rate times the gradient, plus the weight's own share.
  const auto moved = [&](const char* yaml, std::size_t i) { return weight_after(yaml)[i] - still[i]; };
  const double one = moved("{loss: holistic, optimizer: sgd, lr: 0.01, weight_decay: 0}", 0);
  CHECK(one != 0);
  CHECK(moved("{loss: holistic, optimizer: sgd, lr: 0.02, weight_decay: 0}", 0) ==
        doctest::Approx(2 * one).epsilon(1e-3));
  CHECK(moved("{loss: holistic, optimizer: sgd, lr: 0.01, weight_decay: 0.5}", 0) ==
        doctest::Approx(one - 0.01 * std::pow(0.5, 0.9) * 0.5 * still[0]).epsilon(1e-3));
  check_throws<ConfigError>(
      [] {
        const Config config = Config::parse("{loss: holistic, optimizer: sgd, beta1: 0.5}", "test");
        static_cast<void>(make_loss(config));
        config.check_all_used();
      },
      {"beta1"});
}

TEST_CASE("holistic: a resumed run repeats bit for bit") {
  for (const std::string yaml :
       {"{loss: holistic}", "{loss: holistic, form: wgan_gp}", "{loss: holistic, optimizer: sgd}"}) {
    CAPTURE(yaml);
    const Maps maps;
    const auto whole = connected(yaml);
    play(*whole, maps, 0, 2);
    nn::StateDict saved;
    for (const auto& [name, tensor] : whole->state_dict()) saved.emplace(name, tensor.copy());
    const bool sgd = yaml.find("sgd") != std::string::npos;
    CHECK(saved.count(fmt::format("optimizer.{}.l1.0.weight_orig", sgd ? "momentum" : "exp_avg_sq")) == 1);
    const auto expected = play(*whole, maps, 2, 4);
    const auto resumed = connected(yaml);
    play(*resumed, maps, 0, 1);  // whatever it was before does not matter
    resumed->load_state_dict(saved);
    CHECK(play(*resumed, maps, 2, 4) == expected);
    const auto a = whole->state_dict();
    const auto b = resumed->state_dict();
    REQUIRE(a.size() == b.size());
    for (const auto& [name, tensor] : a) {
      CAPTURE(name);
      CHECK(tensor.to_vector<double>() == b.at(name).to_vector<double>());
    }
  }
}

TEST_CASE("holistic: accumulated batches count like one step over their mean") {
  const Maps maps;
  const auto once = connected("{loss: holistic}");
  const auto twice = connected("{loss: holistic}");
  play(*once, maps, 0, 1);
  static_cast<void>(twice->forward(maps.student, maps.teacher, {}));
  static_cast<void>(twice->forward(maps.student, maps.teacher, {}));
  twice->after_step(0, 10);
  CHECK(twice->state_dict().at("optimizer.steps").to_vector<double>() == std::vector<double>{1});
  // The mean of the gradients, up to what the power iterations of the second pass moved. (Adam's first step is no measure:
  // it only looks at signs.)
  const auto a = once->state_dict().at("optimizer.exp_avg.last.0.weight").to_vector<double>();
  const auto b = twice->state_dict().at("optimizer.exp_avg.last.0.weight").to_vector<double>();
  CHECK(test::gap(b, a) < 0.1);
}

TEST_CASE("holistic: small maps need a size") {
  const auto loss = connected("{loss: holistic}");
  const Tensor small = noise({2, kClasses, 16, 20}, 1);
  check_throws<ConfigError>([&] { static_cast<void>(loss->forward(small, small, {})); },
                            {"[2, 3, 16, 20]", "H, W >= 64", "size: 65"});
  const auto resized = connected("{loss: holistic, size: 65}");
  CHECK(std::isfinite(resized->forward(small, small, {}).item()));
  resized->after_step(0, 10);
  check_throws<ConfigError>([] { static_cast<void>(make_loss(Config::parse("{loss: holistic, size: 32}", "test"))); },
                            {"at least 64"});
}

TEST_CASE("structured knowledge distillation is three terms; its discriminator is not the trainer's") {
  const Config config = Config::parse(
      "terms:\n"
      "  - {loss: pixel_kd, reduction: skd_cross_entropy, weight: 10}\n"
      "  - {loss: pairwise_kd, student: features, teacher: features, weight: 0.5}\n"
      "  - {loss: holistic, form: wgan_gp, weight: 0.1}\n",
      "test");
  std::vector<Term> terms;
  for (const Config& section : config.sections("terms")) {
    Term term;
    term.loss = make_loss(section);
    term.name = section.get<std::string>("loss");
    term.student_tap = section.get("student", "logits");
    term.teacher_tap = section.get("teacher", "logits");
    term.weight = WeightSchedule::from_config(section, "weight", 1.0);
    terms.push_back(std::move(term));
  }
  config.check_all_used();
  Distiller d(std::make_shared<ToyModel>(1), std::make_shared<ToyModel>(2), std::move(terms));
  std::vector<nn::ParameterGroup> groups(1);
  nn::assign_parameters(groups, d, [](const nn::NamedTensor&) { return 0; });
  CHECK(groups[0].params.size() == 4);  // the student's alone
  nn::Sgd optimizer(std::move(groups), {});
  const Tensor images = noise({2, 3, 64, 64}, 3);
  const Tensor labels = Tensor::from(std::vector<std::uint8_t>(2 * 64 * 64, 1), {2, 64, 64});
  const auto weight = [&] {
    return d.state_dict().at("term2.discriminator.l1.0.weight_orig").copy().to_vector<double>();
  };
  const auto start = weight();
  for (std::int64_t step = 0; step < 2; ++step) {
    optimizer.zero_grad();
    const Objective o = d.forward(images, labels, step, 2);
    REQUIRE(o.terms.size() == 4);
    o.total.backward();
    const auto before = weight();
    optimizer.step(0.01);
    CHECK(weight() == before);
    d.after_step(step, 2);
    CHECK(std::isfinite(o.total.item()));
  }
  CHECK(weight() != start);
}

TEST_SUITE_END();
