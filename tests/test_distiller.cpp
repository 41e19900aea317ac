// The Distiller on toy networks: the sum of terms, frozen teacher, taps, alignment, weights by step, and its errors.
#include <doctest/doctest.h>

#include <memory>

#include "core/autograd.h"
#include "core/log.h"
#include "core/rng.h"
#include "distill/channel_kd.h"
#include "distill/distiller.h"
#include "distill/pixel_kd.h"
#include "models/zoo.h"
#include "nn/layers.h"
#include "ops/interpolate.h"

using namespace limbeck;
using namespace limbeck::distill;

TEST_SUITE_BEGIN("distiller");

namespace {

/// One convolution with stride; taps: "features" (6 channels), logits with 3 classes.
class Toy final : public models::Model {
 public:
  Toy(std::uint64_t seed, std::int64_t stride, std::int64_t width = 6) : generator_(seed) {
    conv_ = std::make_unique<nn::Conv2d>(
        nn::ConvArgs{.in = 3, .out = width, .kernel = 3, .stride = stride, .padding = 1}, generator_);
    head_ = std::make_unique<nn::Conv2d>(nn::ConvArgs{.in = width, .out = 3}, generator_);
    register_module("conv", *conv_);
    register_module("head", *head_);
  }
  models::Output forward(const Tensor& x, std::span<const std::string> taps) override {
    models::Output out;
    const Tensor f = (*conv_)(x);
    for (const auto& tap : taps) {
      if (tap == "features") out.taps["features"] = f;
    }
    out.logits = (*head_)(f);
    return out;
  }
  [[nodiscard]] std::vector<std::string> tap_names() const override { return {"features"}; }

 private:
  Generator generator_;
  std::unique_ptr<nn::Conv2d> conv_;
  std::unique_ptr<nn::Conv2d> head_;
};

Term make_term(const char* yaml, double weight) {
  const Config config = Config::parse(yaml, "test");
  Term term;
  term.loss = make_loss(config);
  term.name = config.get<std::string>("loss");
  term.weight = WeightSchedule(weight);
  return term;
}

struct Batch {
  Tensor images = Tensor::empty({2, 3, 12, 16});
  Tensor labels;
  Batch() {
    Generator g(5);
    fill_normal_(images, g, 0, 1);
    std::vector<std::uint8_t> ids(2 * 12 * 16);
    for (auto& id : ids) id = g.uniform() < 0.1 ? std::uint8_t{255} : static_cast<std::uint8_t>(g.below(3));
    labels = Tensor::from(ids, {2, 12, 16});
  }
};

}  // namespace

TEST_CASE("the total is the weighted sum of the terms, each equal to its own op") {
  const Batch batch;
  auto student = std::make_shared<Toy>(1, 4);
  auto teacher = std::make_shared<Toy>(2, 4);
  Distiller d(student, teacher,
              {make_term("{loss: channel_kd, tau: 2}", 3.0), make_term("{loss: pixel_kd, tau: 1}", 0.5)});
  const Objective o = d.forward(batch.images, batch.labels, 0, 10);
  REQUIRE(o.terms.size() == 3);
  CHECK(o.terms[0].name == "ce");
  double sum = 0;
  for (const auto& term : o.terms) sum += term.weight * term.raw.item();
  CHECK(o.total.item() == doctest::Approx(sum).epsilon(1e-6));

  const NoGradGuard off;
  const Tensor s = student->forward(batch.images, {}).logits;
  const Tensor t = teacher->forward(batch.images, {}).logits;
  CHECK(
      o.terms[0].raw.item() ==
      doctest::Approx(ops::cross_entropy(ops::resize_bilinear(s, {12, 16}, false), batch.labels).item()).epsilon(1e-6));
  CHECK(o.terms[1].raw.item() == doctest::Approx(channel_kd(s, t, {.tau = 2}).item()).epsilon(1e-6));
  CHECK(o.terms[2].raw.item() == doctest::Approx(pixel_kd(s, t, {.tau = 1}).item()).epsilon(1e-6));
}

TEST_CASE("the student learns, the teacher stays as it is") {
  const Batch batch;
  auto student = std::make_shared<Toy>(1, 4);
  auto teacher = std::make_shared<Toy>(2, 4);
  Distiller d(student, teacher, {make_term("{loss: channel_kd}", 3.0)});
  d.train();
  CHECK_FALSE(teacher->is_training());
  d.forward(batch.images, batch.labels, 0, 10).total.backward();
  for (const auto& p : student->parameters()) CHECK(p.grad().defined());
  for (const auto& p : teacher->parameters()) {
    CHECK_FALSE(p.requires_grad());
    CHECK_FALSE(p.grad().defined());
  }
  for (const auto& p : d.named_parameters()) CHECK(p.name.starts_with("student."));
}

TEST_CASE("a student that equals its teacher has zero distillation loss") {
  const Batch batch;
  Distiller d(std::make_shared<Toy>(7, 4), std::make_shared<Toy>(7, 4), {make_term("{loss: channel_kd}", 1.0)});
  CHECK(d.forward(batch.images, batch.labels, 0, 10).terms[1].raw.item() == doctest::Approx(0.0));
}

TEST_CASE("maps of different size are aligned, and the log says how") {
  const Batch batch;
  std::vector<std::string> lines;
  set_log_sink([&](LogLevel, std::string_view m) { lines.emplace_back(m); });
  auto student = std::make_shared<Toy>(1, 4);
  auto teacher = std::make_shared<Toy>(2, 2);
  Distiller d(student, teacher, {make_term("{loss: channel_kd}", 1.0)});
  const double value = d.forward(batch.images, batch.labels, 0, 10).terms[1].raw.item();
  static_cast<void>(d.forward(batch.images, batch.labels, 1, 10));
  set_log_sink({});
  REQUIRE(lines.size() == 1);
  CHECK(lines[0].find("student map 3x4, teacher map 6x8; the teacher map is resized") != std::string::npos);
  const NoGradGuard off;
  const Tensor t = ops::resize_bilinear(teacher->forward(batch.images, {}).logits, {3, 4}, false);
  CHECK(value == doctest::Approx(channel_kd(student->forward(batch.images, {}).logits, t, {}).item()).epsilon(1e-5));
}

TEST_CASE("channel transformation and mgd resize without align_corners, whatever the objective does") {
  const auto network = [](std::uint64_t seed, std::int64_t output_stride) {
    Generator g(seed);
    return models::make_model({.name = "mobilenet_v2_seg", .classes = 3, .output_stride = output_stride, .width = 0.1},
                              g);
  };
  Generator g(4);
  Tensor images = Tensor::empty({2, 3, 48, 48});
  fill_normal_(images, g, 0, 1);
  const Tensor labels = Tensor::zeros({2, 48, 48}, DType::kU8);
  set_log_sink([](LogLevel, std::string_view) {});
  const auto value = [&](const char* loss, bool align_corners) {
    ObjectiveOptions options;
    options.align_corners = align_corners;
    Distiller d(network(1, 16), network(2, 8), {make_term(loss, 1.0)}, options);
    return d.forward(images, labels, 0, 10).terms.at(1).raw.item();
  };
  for (const char* loss : {"{loss: channel_transform}", "{loss: mgd, masked: 0}"}) {
    CHECK(value(loss, true) == value(loss, false));
  }
  CHECK(value("{loss: fitnet}", true) != value("{loss: fitnet}", false));
  set_log_sink({});
}

TEST_CASE("align: image compares both maps at the size of the labels") {
  const Batch batch;
  std::vector<std::string> lines;
  set_log_sink([&](LogLevel, std::string_view m) { lines.emplace_back(m); });
  for (const bool corners : {false, true}) {
    CAPTURE(corners);
    auto student = std::make_shared<Toy>(1, 4);
    auto teacher = std::make_shared<Toy>(2, 2);
    auto term = make_term("{loss: channel_kd}", 1.0);
    term.align = SizeAlign::kImage;
    ObjectiveOptions options;
    options.align_corners = corners;
    Distiller d(student, teacher, {term}, options);
    CHECK(d.describe().at(1).ends_with("student 'logits' <- teacher 'logits', both at the size of the image"));
    const Objective o = d.forward(batch.images, batch.labels, 0, 10);
    o.total.backward();
    for (const auto& p : student->parameters()) CHECK(p.grad().defined());
    const NoGradGuard off;
    const auto full = [&](Toy& net) {
      return ops::resize_bilinear(net.forward(batch.images, {}).logits, {12, 16}, corners);
    };
    CHECK(o.terms[1].raw.item() ==
          doctest::Approx(channel_kd(full(*student), full(*teacher), {}).item()).epsilon(1e-5));
  }
  set_log_sink({});
  REQUIRE(lines.size() == 2);
  CHECK(lines[0] == "term 'channel_kd': student map 3x4, teacher map 6x8; both maps are resized to 12x16 (bilinear)");

  auto whole = make_term("{loss: channel_kd}", 1.0);
  whole.align = SizeAlign::kImage;
  ObjectiveOptions pictures;
  pictures.whole_images = true;
  CHECK_THROWS_WITH_AS(
      Distiller(std::make_shared<Toy>(1, 4), std::make_shared<Toy>(2, 4), {whole}, pictures),
      "[distiller] term 'channel_kd': align: image, but these labels are classes of whole pictures and have no size",
      ConfigError);
}

TEST_CASE("connectors first: the student's weights rest until the epoch is over") {
  const Batch batch;
  Generator g(3);
  auto term = make_term("{loss: channel_kd}", 1.0);
  term.student_tap = term.teacher_tap = "features";
  const auto connector = std::make_shared<nn::Conv2d>(nn::ConvArgs{.in = 4, .out = 6}, g);
  term.connector = connector;
  const auto student = std::make_shared<Toy>(1, 4, 4);
  ObjectiveOptions options;
  options.connector_epochs = 1;
  Distiller d(student, std::make_shared<Toy>(2, 4, 6), {term}, options);
  CHECK_THROWS_WITH_AS(static_cast<void>(d.forward(batch.images, batch.labels, 0, 10)),
                       doctest::Contains("set_steps_per_epoch"), Error);
  d.set_steps_per_epoch(2.5);  // steps 0, 1 and 2 begin in the first epoch
  for (const std::int64_t step : {0, 2, 3}) {
    CAPTURE(step);
    d.zero_grad();
    const Objective o = d.forward(batch.images, batch.labels, step, 10);
    CHECK(o.terms.at(0).raw.item() > 0);
    o.total.backward();
    CHECK(connector->weight().grad().defined());
    for (const auto& p : student->parameters()) CHECK(p.grad().defined() == (step == 3));
  }
  CHECK(d.describe().at(1) == "connectors: trained alone until the end of epoch 1; the student's weights rest");
  CHECK_THROWS_WITH_AS(static_cast<void>(d.forward(batch.images, batch.labels, 0, 3)),
                       "[distiller] connector_epochs is 1: 3 steps of 3 for the connectors leave none for the student",
                       ConfigError);
  CHECK_THROWS_WITH_AS(Distiller(student, std::make_shared<Toy>(2, 4), {make_term("{loss: pixel_kd}", 1.0)}, options),
                       "[distiller] connector_epochs is 1, but no term has layers of its own to train in them",
                       ConfigError);
}

TEST_CASE("released code: an epoch for connectors that are not there trains nothing") {
  const Batch batch;
  const auto student = std::make_shared<Toy>(1, 4);
  ObjectiveOptions options;
  options.connector_epochs = 1;
  options.teacher_in_train_mode = true;
  std::string log;
  set_log_sink([&](LogLevel, std::string_view text) { log += text; });
  Distiller d(student, std::make_shared<Toy>(2, 4), {make_term("{loss: pixel_kd}", 1.0)}, options);
  set_log_sink({});
  CHECK(log.find("nothing is trained in them, only batch statistics move") != std::string::npos);
  d.set_steps_per_epoch(2);
  CHECK_FALSE(d.forward(batch.images, batch.labels, 1, 10).total.requires_grad());
  const Objective o = d.forward(batch.images, batch.labels, 2, 10);
  o.total.backward();
  for (const auto& p : student->parameters()) CHECK(p.grad().defined());
}

TEST_CASE("weights follow their schedule; a term of weight zero is not computed") {
  const Batch batch;
  auto term = make_term("{loss: channel_kd}", 1.0);
  term.weight = WeightSchedule::until(2.0, 5);
  Distiller d(std::make_shared<Toy>(1, 4), std::make_shared<Toy>(2, 4), {term});
  CHECK(d.forward(batch.images, batch.labels, 4, 10).terms.size() == 2);
  CHECK(d.forward(batch.images, batch.labels, 5, 10).terms.size() == 1);

  CHECK(WeightSchedule::linear(0, 3).at(5, 10) == doctest::Approx(1.5));
  CHECK(WeightSchedule::linear(0, 3).at(20, 10) == doctest::Approx(3));
  const auto steps = WeightSchedule::steps(1, {{10, 0.5}, {20, 0.1}});
  CHECK(steps.at(9, 100) == 1);
  CHECK(steps.at(10, 100) == 0.5);
  CHECK(steps.at(99, 100) == 0.1);
  const Config c =
      Config::parse("{a: 2, b: {from: 0, to: 4}, c: {value: 3, until: 7}, d: {value: 1, at: [2], to: [5]}}", "t");
  CHECK(WeightSchedule::from_config(c, "a", 1).at(3, 10) == 2);
  CHECK(WeightSchedule::from_config(c, "b", 1).at(5, 10) == 2);
  CHECK(WeightSchedule::from_config(c, "c", 1).at(7, 10) == 0);
  CHECK(WeightSchedule::from_config(c, "d", 1).at(2, 10) == 5);
  CHECK(WeightSchedule::from_config(c, "e", 1.5).at(2, 10) == 1.5);
  for (const auto& [text, message] : std::initializer_list<std::pair<const char*, const char*>>{
           {"w: -1", "w.yaml:1"},
           {"w: {from: -1, to: 3}", "w.yaml:1"},
           {"w: {from: 0, to: -3, per: epoch}", "w.yaml:1"},
           {"w: {value: -2, until: 7}", "w.yaml:1"},
           {"w: {value: 1, at: [2, 3], to: [5, -1]}", "got [5, -1], expected weights >= 0"},
           {"w: {value: 1, at: [3, 2], to: [5, 1]}", "got [3, 2], expected steps that ascend"}}) {
    CAPTURE(text);
    const Config bad = Config::parse(text, "w.yaml");
    CHECK_THROWS_WITH_AS(static_cast<void>(WeightSchedule::from_config(bad, "w", 1)), doctest::Contains(message),
                         ConfigError);
    CHECK_THROWS_WITH_AS(static_cast<void>(WeightSchedule::from_config(bad, "w", 1)), doctest::Contains("w.yaml:1"),
                         ConfigError);
  }
  CHECK_THROWS_AS(WeightSchedule(-1.0), ConfigError);
  CHECK_THROWS_AS(static_cast<void>(WeightSchedule::steps(1, {{5, 1}, {5, 2}})), ConfigError);
}

TEST_CASE("weights that change by epochs") {
  // 25 steps of 10 per epoch: three epochs, the last one short.
  const auto w = WeightSchedule::epochs(0, 3);
  CHECK(w.at(0, 25, 10) == 0);
  CHECK(w.at(9, 25, 10) == 0);
  CHECK(w.at(10, 25, 10) == doctest::Approx(1));
  CHECK(w.at(19, 25, 10) == doctest::Approx(1));
  CHECK(w.at(24, 25, 10) == doctest::Approx(2));
  CHECK(w.at(99, 25, 10) == doctest::Approx(2));
  // Accumulated batches: 7 batches of an epoch, two per step; epochs begin at steps 0, 4 (3.5) and 7.
  CHECK(w.at(3, 10, 3.5) == 0);
  CHECK(w.at(4, 10, 3.5) == doctest::Approx(1));
  CHECK(w.at(7, 10, 3.5) == doctest::Approx(2));
  const Config c = Config::parse(
      "{a: {from: 0, to: 9500, per: epoch}, b: {from: 10, to: 0, per: epoch}, "
      "c: {from: 0, to: 4, per: step}, d: {from: 0, to: 1, per: batch}}",
      "t");
  CHECK(WeightSchedule::from_config(c, "a", 1).at(30, 120, 1) == doctest::Approx(2375));
  CHECK(WeightSchedule::from_config(c, "b", 1).at(30, 120, 1) == doctest::Approx(7.5));
  CHECK(WeightSchedule::from_config(c, "c", 1).at(5, 10) == 2);
  CHECK_THROWS_AS(static_cast<void>(WeightSchedule::from_config(c, "d", 1)), ConfigError);
  CHECK(WeightSchedule::from_config(c, "a", 1).describe() == "0 -> 9500 by epochs");

  const Batch batch;
  auto term = make_term("{loss: channel_kd}", 1.0);
  term.weight = WeightSchedule::epochs(3, 0);
  Distiller d(std::make_shared<Toy>(1, 4), std::make_shared<Toy>(2, 4), {term});
  CHECK_THROWS_WITH_AS((void)d.forward(batch.images, batch.labels, 0, 30), doctest::Contains("set_steps_per_epoch"),
                       Error);
  d.set_steps_per_epoch(10);
  CHECK(d.forward(batch.images, batch.labels, 10, 30).terms.at(1).weight == doctest::Approx(2));
  CHECK(d.forward(batch.images, batch.labels, 29, 30).terms.at(1).weight == doctest::Approx(1));
}

TEST_CASE("wrong set-ups are refused with one message") {
  const Batch batch;
  auto term = make_term("{loss: channel_kd}", 1.0);
  term.student_tap = "featurse";
  CHECK_THROWS_WITH_AS(
      Distiller(std::make_shared<Toy>(1, 4), std::make_shared<Toy>(2, 4), {term}),
      "[distiller] term 'channel_kd': the student has no tap 'featurse', did you mean 'features'?; taps: "
      "logits, features",
      ConfigError);
  CHECK_THROWS_AS(Distiller(std::make_shared<Toy>(1, 4), nullptr, {make_term("{loss: channel_kd}", 1.0)}), ConfigError);
  CHECK_THROWS_WITH_AS(static_cast<void>(make_term("{loss: chanel_kd}", 1.0)),
                       doctest::Contains("did you mean 'channel_kd'"), ConfigError);
  CHECK_THROWS_AS(static_cast<void>(make_term("{loss: channel_kd, tau: 0}", 1.0)), ConfigError);

  auto features = make_term("{loss: channel_kd}", 1.0);
  features.student_tap = features.teacher_tap = "features";
  Distiller d(std::make_shared<Toy>(1, 4, 4), std::make_shared<Toy>(2, 4, 6), {features});
  CHECK_THROWS_WITH_AS(static_cast<void>(d.forward(batch.images, batch.labels, 0, 10)),
                       doctest::Contains("has 4 channels, teacher tap 'features' has 6; add a connector"), Error);
}

TEST_CASE("networks that tell their channels are checked before the first step") {
  Generator g(1);
  const auto network = [&](const char* name, std::int64_t classes) {
    return models::make_model({.name = name, .classes = classes, .width = 0.25}, g);
  };
  const auto student = network("mobilenet_v2_seg", 3);
  const auto terms = [](const char* tap) {
    std::vector<Term> list{make_term("{loss: pixel_kd}", 1.0)};
    list[0].student_tap = tap;
    list[0].teacher_tap = tap;
    return list;
  };
  CHECK_THROWS_WITH_AS(Distiller(student, network("deeplabv3_mobilenet_v2", 3), terms("head")),
                       doctest::Contains("teacher tap 'head' has 256; add a connector"), ConfigError);
  CHECK_THROWS_WITH_AS(Distiller(student, network("deeplabv3_mobilenet_v2", 4), terms("logits")),
                       doctest::Contains("student tap 'logits' has 3 channels, teacher tap 'logits' has 4"),
                       ConfigError);
  CHECK_NOTHROW(Distiller(student, network("deeplabv3_mobilenet_v2", 3), terms("logits")));
}

TEST_CASE("a teacher in train mode drifts, gets no gradient, and its statistics are saved") {
  const auto network = [](std::uint64_t seed) {
    Generator g(seed);
    return models::make_model({.name = "mobilenet_v2_seg", .classes = 3, .width = 0.1}, g);
  };
  const auto run = [&](bool train_mode) {
    auto teacher = network(2);
    const Tensor mean = teacher->named_buffers().front().tensor;
    const auto before = mean.to_vector<float>();
    ObjectiveOptions options;
    options.teacher_in_train_mode = train_mode;
    Distiller d(network(1), teacher, {make_term("{loss: pixel_kd}", 1.0)}, options);
    d.train();
    Generator g(4);
    Tensor images = Tensor::empty({2, 3, 32, 32});
    fill_normal_(images, g, 0, 1);
    d.forward(images, Tensor::from(std::vector<std::uint8_t>(2 * 32 * 32, 1), {2, 32, 32}), 0, 10).total.backward();
    for (const auto& p : teacher->named_parameters()) CHECK_FALSE(p.tensor.grad().defined());
    for (const auto& p : d.named_parameters()) CHECK(p.name.starts_with("student."));
    bool saved = false;
    for (const auto& [name, tensor] : d.state_dict()) saved = saved || name.starts_with("teacher.");
    CHECK(saved == train_mode);
    return mean.to_vector<float>() != before;
  };
  CHECK(run(true));
  CHECK_FALSE(run(false));
}

TEST_CASE("a connector makes channels agree and is trained") {
  const Batch batch;
  auto term = make_term("{loss: channel_kd}", 1.0);
  term.student_tap = term.teacher_tap = "features";
  Generator g(3);
  auto connector = std::make_shared<nn::Conv2d>(nn::ConvArgs{.in = 4, .out = 6}, g);
  term.connector = connector;
  Distiller d(std::make_shared<Toy>(1, 4, 4), std::make_shared<Toy>(2, 4, 6), {term});
  d.forward(batch.images, batch.labels, 0, 10).total.backward();
  CHECK(connector->weight().grad().defined());
  CHECK(d.state_dict().count("connector0.weight") == 1);
}

TEST_CASE("a projection is a connector that the Distiller makes") {
  Generator g(1);
  const auto network = [&](double width) {
    return models::make_model({.name = "mobilenet_v2_seg", .classes = 3, .width = width}, g);
  };
  Tensor images = Tensor::empty({2, 3, 32, 32});
  fill_normal_(images, g, 0, 1);
  const Tensor labels = Tensor::zeros({2, 32, 32}, DType::kU8);
  ObjectiveOptions seeded;
  seeded.seed = 5;
  for (const std::int64_t kernel : {1, 3}) {
    CAPTURE(kernel);
    Term term = make_term("{loss: inter_channel_kd}", 1.0);  // wants equal channels, and has no adapter of its own
    term.student_tap = term.teacher_tap = "features.3";
    CHECK_THROWS_WITH_AS(Distiller(network(0.25), network(1.0), {term}), doctest::Contains("project: 1x1"),
                         ConfigError);
    term.projection = kernel;
    Distiller d(network(0.25), network(1.0), {term}, seeded);
    const Tensor weight = d.state_dict().at("connector0.0.weight");
    CHECK(weight.shape() == Shape{24, 8, kernel, kernel});
    CHECK(d.describe().at(1) ==
          fmt::format(
              "inter_channel_kd: weight 1, inter_channel_kd (sum/(C*N)), student 'features.3' through conv{0}x{0} "
              "<- teacher 'features.3'",
              kernel));
    d.train();
    const Objective o = d.forward(images, labels, 0, 10);
    CHECK(o.terms.at(1).raw.item() > 0);
    o.total.backward();
    for (const auto& p : d.named_parameters()) CHECK_MESSAGE(p.tensor.grad().defined(), p.name);
    // A function of the seed alone.
    Distiller again(network(0.25), network(1.0), {term}, seeded);
    CHECK(again.state_dict().at("connector0.0.weight").to_vector<float>() == weight.to_vector<float>());
  }
  Term silent = make_term("{loss: channel_kd}", 1.0);
  silent.student_tap = silent.teacher_tap = "features";
  silent.projection = 1;
  CHECK_THROWS_WITH_AS(
      Distiller(std::make_shared<Toy>(1, 4, 4), std::make_shared<Toy>(2, 4, 6), {silent}),
      "[distiller] term 'channel_kd': taps 'features' and 'features' do not tell their channels, which its "
      "projection needs",
      ConfigError);
}

TEST_SUITE_END();
