// The baseline losses as terms of a Distiller: options, several taps, labels of another size, owned adapters, margins.
#include <doctest/doctest.h>

#include <memory>

#include "core/autograd.h"
#include "core/rng.h"
#include "distill/attention_kd.h"
#include "distill/csd_kd.h"
#include "distill/distiller.h"
#include "distill/feature_mse.h"
#include "distill/ifvd.h"
#include "distill/inter_class_kd.h"
#include "distill/local_kd.h"
#include "distill/ofd_kd.h"
#include "distill/pairwise_kd.h"
#include "models/zoo.h"
#include "nn/layers.h"
#include "ops/elementwise.h"
#include "ops/interpolate.h"
#include "ops/softmax.h"
#include "tests/harness/oracle_maps.h"
#include "tests/harness/temp_dir.h"

using namespace limbeck;
using namespace limbeck::distill;
using limbeck::test::check_throws;

TEST_SUITE_BEGIN("baseline_terms");

namespace {

/// conv - norm - ReLU ("features", before it "features.pre_relu") - 1x1 conv to 3 classes.
class Toy final : public models::Model {
 public:
  Toy(std::uint64_t seed, std::int64_t stride, std::int64_t width) : width_(width), stride_(stride), generator_(seed) {
    conv_ = std::make_unique<nn::Conv2d>(
        nn::ConvArgs{.in = 3, .out = width, .kernel = 3, .stride = stride, .padding = 1, .bias = false}, generator_);
    norm_ = std::make_unique<nn::BatchNorm2d>(width);
    head_ = std::make_unique<nn::Conv2d>(nn::ConvArgs{.in = width, .out = 3}, generator_);
    register_module("features.conv", *conv_);
    register_module("features.norm", *norm_);
    register_module("head", *head_);
    models::ModelSpec spec;
    spec.classes = 3;
    set_spec(spec);
  }
  models::Output forward(const Tensor& x, std::span<const std::string> taps) override {
    models::Output out;
    const Tensor linear = (*norm_)((*conv_)(x));
    const Tensor f = ops::relu(linear);
    for (const auto& tap : taps) out.taps[tap] = tap == "features" ? f : linear;
    out.logits = (*head_)(f);
    return out;
  }
  [[nodiscard]] std::vector<std::string> tap_names() const override { return {"features", "features.pre_relu"}; }
  [[nodiscard]] std::vector<models::TapInfo> tap_infos() const override {
    return {{"features", width_, stride_}, {"features.pre_relu", width_, stride_}};
  }

 private:
  std::int64_t width_, stride_;
  Generator generator_;
  std::unique_ptr<nn::Conv2d> conv_;
  std::unique_ptr<nn::BatchNorm2d> norm_;
  std::unique_ptr<nn::Conv2d> head_;
};

Term make_term(const std::string& yaml, const char* tap = "features") {
  const Config config = Config::parse(yaml, "test");
  Term term;
  term.loss = make_loss(config);
  config.check_all_used();
  term.name = config.get<std::string>("loss");
  term.student_tap = term.teacher_tap = tap;
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

/// Student (4 channels) and teacher (6 channels) at the same stride, and the maps that a term sees.
struct Pair {
  std::shared_ptr<Toy> student = std::make_shared<Toy>(1, 2, 4);
  std::shared_ptr<Toy> teacher = std::make_shared<Toy>(2, 2, 6);
  Batch batch;

  double value(const std::string& yaml, const char* tap = "features") {
    Distiller d(student, teacher, {make_term(yaml, tap)});
    return d.forward(batch.images, batch.labels, 0, 10).terms.at(1).raw.item();
  }
  models::Output output(Toy& net) {
    const NoGradGuard off;
    const std::vector<std::string> taps{"features", "features.pre_relu"};
    return net.forward(batch.images, taps);
  }
};

}  // namespace

TEST_CASE("every baseline trains the student") {
  for (const char* yaml : {"{loss: attention_kd}", "{loss: attention_kd, form: norm}", "{loss: psd_kd}",
                           "{loss: pairwise_kd}", "{loss: pairwise_kd, variant: cirkd}", "{loss: batch_similarity_kd}",
                           "{loss: ifvd}", "{loss: ofd_kd}", "{loss: local_kd, on: features}", "{loss: fitnet}",
                           "{loss: channel_transform}", "{loss: mgd}", "{loss: channel_kd, adapter: cwd}"}) {
    CAPTURE(yaml);
    Pair p;
    ObjectiveOptions without_labels;
    without_labels.ce_weight = WeightSchedule(0.0);
    Distiller d(p.student, p.teacher, {make_term(yaml)}, without_labels);
    const Objective o = d.forward(p.batch.images, p.batch.labels, 0, 10);
    CHECK(o.terms.at(1).raw.item() > 0);
    o.total.backward();
    for (const auto& [name, parameter] : p.student->named_parameters()) {
      if (!name.starts_with("features.conv")) continue;
      CHECK(test::largest_magnitude(parameter.grad().to_vector<double>()) > 0);
    }
    for (const auto& [name, parameter] : p.teacher->named_parameters()) CHECK(!parameter.grad().defined());
    CHECK(!d.describe().at(1).empty());
  }
  for (const char* yaml : {"{loss: csd_kd}", "{loss: inter_channel_kd}", "{loss: local_kd}", "{loss: icsd}",
                           "{loss: fitnet, connector: false}"}) {
    CAPTURE(yaml);
    Pair p;
    CHECK(p.value(yaml, "logits") > 0);
  }
}

TEST_CASE("options reach the ops") {
  Pair p;
  const auto s = p.output(*p.student);
  p.teacher->freeze();
  const auto t = p.output(*p.teacher);
  const Tensor& sf = s.taps.at("features");
  const Tensor& tf = t.taps.at("features");
  const auto same = [](double a, double b) { CHECK(a == doctest::Approx(b).epsilon(1e-5)); };
  same(p.value("{loss: attention_kd, form: columns}"), attention_kd(sf, tf, {.form = AttentionForm::kColumns}).item());
  same(p.value("{loss: pairwise_kd}"), pairwise_kd(sf, tf).item());
  same(p.value("{loss: pairwise_kd, scale: 0.25}"), pairwise_kd(sf, tf, {.scale = 0.25}).item());
  same(p.value("{loss: pairwise_kd, kernel: 1}"), pairwise_kd(sf, tf, {.scale = 0, .kernel = 1}).item());
  same(p.value("{loss: pairwise_kd, variant: cirkd}"),
       pairwise_kd(sf, tf, {.scale = 0, .kernel = 2, .detach_norm = false}).item());
  same(p.value("{loss: icsd, tau: 2, mode: image_norm}", "logits"),
       icsd(s.logits, t.logits, {.tau = 2, .mode = IcsdMode::kImageNorm}).item());
  same(p.value("{loss: fitnet, connector: false, reduction: sum_per_image}", "logits"),
       feature_mse(s.logits, t.logits, {FeatureReduction::kSumPerImage}).item());
  same(p.value("{loss: csd_kd, tau: 2}", "logits"), csd_kd(s.logits, t.logits, {.tau = 2}).item());
  same(p.value("{loss: local_kd}", "logits"), local_kd(ops::softmax(s.logits), ops::softmax(t.logits)).item());
  same(p.value("{loss: local_kd, on: features}"), local_kd(sf, tf).item());
  // Labels come at image size and are resized to the maps, 6x8 here.
  same(p.value("{loss: ifvd}"), ifvd(sf, tf, ops::resize_nearest(p.batch.labels, {6, 8})).item());
  const std::array students{sf, s.logits, s.taps.at("features.pre_relu")};
  const std::array teachers{tf, t.logits, t.taps.at("features.pre_relu")};
  same(p.value("{loss: psd_kd}"), psd_kd(std::span(students).first(2), std::span(teachers).first(2)).item());
  same(p.value("{loss: psd_kd, more_student: [logits, features.pre_relu], more_teacher: [logits, features.pre_relu]}"),
       psd_kd(students, teachers).item());
}

TEST_CASE("every loss refuses a teacher that requires grad") {
  Toy teacher(2, 2, 3);
  LossContext context;
  context.student = context.teacher = {"features.pre_relu", 3, 2};
  context.teacher_model = &teacher;
  context.classes = 3;
  Generator g(4);
  const auto map = [&](bool differentiated) {
    Tensor x = Tensor::empty({2, 3, 64, 64});
    fill_normal_(x, g, 0, 1);
    x.set_requires_grad(differentiated);
    return x;
  };
  for (const std::string& name : loss_names()) {
    CAPTURE(name);
    const auto loss = make_loss(Config::parse("{loss: " + name + "}", "test"));
    loss->connect(context);
    LossInputs in;
    in.student = map(true);
    in.teacher = map(true);
    in.labels = Tensor::zeros({2, 64, 64}, DType::kU8);
    in.more_student = {map(true)};
    in.more_teacher = {map(true)};
    check_throws<Error>([&] { static_cast<void>(loss->evaluate(in)); }, {"teacher requires grad", "freeze()"});
    in.teacher = map(false);
    in.more_teacher = {map(false)};
    CHECK(std::isfinite(loss->evaluate(in).item()));
  }
}

TEST_CASE("psd_kd: taps of different sizes are brought to the smallest") {
  Batch batch;
  auto student = std::make_shared<Toy>(1, 4, 4);
  auto teacher = std::make_shared<Toy>(2, 2, 6);
  Distiller d(student, teacher, {make_term("{loss: psd_kd}")});
  CHECK(std::isfinite(d.forward(batch.images, batch.labels, 0, 10).terms.at(1).raw.item()));
  check_throws<ConfigError>(
      [] { static_cast<void>(make_term("{loss: psd_kd, more_student: [a, b], more_teacher: [a]}")); },
      {"2 student taps and 1 teacher taps"});
  check_throws<ConfigError>(
      [&] {
        Distiller(student, teacher, {make_term("{loss: psd_kd, more_student: [feature], more_teacher: [logits]}")});
      },
      {"the student has no tap 'feature'", "did you mean 'features'"});
}

TEST_CASE("ofd_kd: margin of the norm before the tap, connector of its own") {
  Pair p;
  // Norms that are told apart by their margins: mu 0 and s 2 give -2 sqrt(2 / pi).
  for (const auto& [name, parameter] : p.teacher->named_parameters()) {
    if (name == "features.norm.weight") parameter.detach().fill_(2);
  }
  const Term term = make_term("{loss: ofd_kd}", "features.pre_relu");
  Distiller d(p.student, p.teacher, {term});
  const auto state = d.state_dict();
  CHECK(state.at("term0.margin").shape() == Shape{6});
  CHECK(state.at("term0.margin").to_vector<double>()[5] == doctest::Approx(-1.5957691));
  CHECK(state.at("term0.conv.weight").shape() == Shape{6, 4, 1, 1});
  CHECK(state.count("term0.conv.bias") == 0);
  d.forward(p.batch.images, p.batch.labels, 0, 10).total.backward();
  CHECK(state.count("term0.bn.weight") == 1);
  for (const auto& [name, parameter] : term.loss->named_parameters()) CHECK(parameter.grad().defined());
  check_throws<ConfigError>(
      [&] { Distiller(p.student, p.teacher, {make_term("{loss: ofd_kd, norm: features.nrm}", "features.pre_relu")}); },
      {"no batch norm 'features.nrm' of 6 channels", "did you mean 'features.norm'"});
  check_throws<ConfigError>([&] { Distiller(p.student, p.teacher, {make_term("{loss: ofd_kd}", "logits")}); },
                            {"no batch norm of 3 channels below 'logits'"});
}

TEST_CASE("ofd_kd: the margin of a residual stage comes from the last norm of its last block") {
  Generator g(1);
  const auto teacher = models::make_model({.name = "deeplabv3plus_resnet18", .classes = 3}, g);
  for (const auto& [name, parameter] : teacher->named_parameters()) {
    if (name.find("layer3.1.bn2.weight") != std::string::npos) parameter.detach().fill_(2);
  }
  const auto loss = make_loss(Config::parse("{loss: ofd_kd}", "test"));
  LossContext context;
  context.student = {"layer3.pre_relu", 256, 16};
  context.teacher = teacher->tap_info("layer3.pre_relu");
  context.teacher_model = teacher.get();
  loss->connect(context);
  CHECK(loss->state_dict().at("margin").to_vector<double>()[0] == doctest::Approx(-1.5957691));
}

TEST_CASE("losses with layers of their own: names, sizes, who trains them") {
  const auto names_of = [](const std::string& yaml) {
    Pair p;
    const Term term = make_term(yaml);
    Distiller d(p.student, p.teacher, {term});
    d.forward(p.batch.images, p.batch.labels, 0, 10).total.backward();
    std::string names;
    for (const auto& [name, parameter] : term.loss->named_parameters()) {
      CHECK(parameter.grad().defined());
      names += name + parameter.shape().to_string() + " ";
    }
    return names;
  };
  CHECK(names_of("{loss: fitnet}") == "connector.0.weight[6, 4, 1, 1] ");
  CHECK(names_of("{loss: channel_transform}") ==
        "mlp.0.weight[6, 4, 1, 1] mlp.0.bias[6] mlp.2.weight[6, 6, 1, 1] mlp.2.bias[6] ");
  CHECK(names_of("{loss: channel_transform, hidden: 5}") ==
        "mlp.0.weight[5, 4, 1, 1] mlp.0.bias[5] mlp.2.weight[6, 5, 1, 1] mlp.2.bias[6] ");
  CHECK(
      names_of("{loss: channel_transform, connector: true}") ==
      "connector.0.weight[6, 4, 1, 1] mlp.0.weight[6, 6, 1, 1] mlp.0.bias[6] mlp.2.weight[6, 6, 1, 1] mlp.2.bias[6] ");
  CHECK(names_of("{loss: mgd}") ==
        "align.0.weight[6, 4, 1, 1] align.0.bias[6] generation.0.weight[6, 6, 3, 3] generation.0.bias[6] "
        "generation.2.weight[6, 6, 3, 3] generation.2.bias[6] ");
  CHECK(names_of("{loss: channel_kd, adapter: cwd}") ==
        "adapter.0.weight[6, 4, 1, 1] adapter.1.weight[6] adapter.1.bias[6] ");
  const auto unknown = make_loss(Config::parse("{loss: fitnet}", "test"));
  LossContext context;
  context.student.name = "somewhere";
  check_throws<ConfigError>([&] { unknown->connect(context); }, {"'somewhere'", "channels"});
}

TEST_CASE("feature losses bring the student to the teacher's size") {
  for (const char* yaml : {"{loss: fitnet}", "{loss: channel_transform}", "{loss: mgd}"}) {
    CHECK(std::string(make_loss(Config::parse(yaml, "test"))->alignment()) == "teacher");
  }
  CHECK(std::string(make_loss(Config::parse("{loss: ifvd}", "test"))->alignment()) == "larger");
}

TEST_CASE("mgd: the mask is a function of seed and step and leaves a quarter of the positions") {
  LossContext context;
  context.student = context.teacher = {"features", 3, 8};
  context.seed = 11;
  const auto make = [&](const char* yaml) {
    auto loss = make_loss(Config::parse(yaml, "test"));
    loss->connect(context);
    return loss;
  };
  const auto loss = make("{loss: mgd}");
  const Tensor s = Tensor::empty({2, 3, 40, 50});
  Generator g(1);
  fill_normal_(s, g, 0, 1);
  const auto value = [&](Loss& l, std::int64_t step) {
    LossInputs in;
    in.student = s;
    in.teacher = Tensor::zeros({2, 3, 40, 50});
    in.step = step;
    return l.evaluate(in).item();
  };
  CHECK(value(*loss, 5) == value(*loss, 5));
  CHECK(value(*loss, 5) == value(*make("{loss: mgd}"), 5));
  CHECK(value(*loss, 5) != value(*loss, 6));
  CHECK(value(*make("{loss: mgd, masked: 1}"), 5) == value(*make("{loss: mgd, masked: 1}"), 6));

  // A generator that passes its input on (identity at the centre, values made positive) shows the mask.
  const auto open = make("{loss: mgd, reduction: mean}");
  for (const auto& [name, parameter] : open->named_parameters()) {
    parameter.detach().fill_(0);
    if (!name.ends_with("weight")) continue;
    for (std::int64_t c = 0; c < 3; ++c) parameter.detach().view().at<float>(c, c, 1, 1) = 1.0F;
  }
  LossInputs in;
  in.student = Tensor::empty({2, 3, 40, 50});
  in.student.fill_(1);
  in.teacher = Tensor::zeros({2, 3, 40, 50});
  const double kept = open->evaluate(in).item();  // the mean of a map of zeros and ones
  CHECK(kept == doctest::Approx(0.25).epsilon(0.1));
  CHECK(std::round(kept * 4000) ==
        doctest::Approx(kept * 4000).epsilon(1e-6));  // whole positions, all channels together
}

TEST_SUITE_END();
