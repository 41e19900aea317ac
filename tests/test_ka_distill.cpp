// The knowledge-adaptation system as configurations use it: the terms with their adapters, the frozen encoder behind the
// teacher's tap "code", and an autoencoder's file that is tied to its teacher.
#include <doctest/doctest.h>

#include <memory>

#include "apps/settings.h"
#include "core/autograd.h"
#include "core/rng.h"
#include "distill/distiller.h"
#include "distill/ka_adapt.h"
#include "distill/ka_affinity.h"
#include "distill/teacher_code.h"
#include "models/connectors.h"
#include "models/zoo.h"
#include "nn/layers.h"
#include "nn/tracer.h"
#include "ops/elementwise.h"
#include "ops/interpolate.h"
#include "tests/harness/oracle_maps.h"
#include "tests/harness/temp_dir.h"
#include "tests/harness/toy_model.h"

using namespace limbeck;
using namespace limbeck::distill;
using limbeck::test::check_throws;
using limbeck::test::largest_magnitude;
using limbeck::test::ToyModel;

TEST_SUITE_BEGIN("ka_distill");

namespace {

std::shared_ptr<models::Model> network(std::uint64_t seed) {
  Generator g(seed);
  return models::make_model({.name = "deeplabv3_mobilenet_v2", .classes = 3, .width = 0.25}, g);
}

Term make_term(const std::string& yaml, const char* teacher_tap) {
  const Config config = Config::parse(yaml, "test");
  Term term;
  term.loss = make_loss(config);
  config.check_all_used();
  term.name = config.get<std::string>("loss");
  term.student_tap = "features";
  term.teacher_tap = teacher_tap;
  return term;
}

/// A student of 4 channels at stride 4, a teacher of 6 at stride 2, and an autoencoder with a code of 5 at the student's size.
struct Set {
  std::shared_ptr<ToyModel> student = std::make_shared<ToyModel>(1, 4, 4);
  std::shared_ptr<ToyModel> teacher = std::make_shared<ToyModel>(2, 2, 6);
  test::TempDir folder;
  Tensor images = Tensor::empty({2, 3, 16, 24});
  Tensor labels = Tensor::zeros({2, 16, 24}, DType::kU8);

  Set() {
    Generator g(5);
    fill_normal_(images, g, 0, 1);
    save(folder / "ae.safetensors", autoencoder_metadata(*teacher, "features"));
  }
  void save(const std::filesystem::path& path, const std::map<std::string, std::string>& metadata) const {
    Generator g(3);
    const models::Autoencoder ae({.channels = 6, .code = 5, .strides = {2, 1, 1}}, g);
    models::save_autoencoder(ae, path, metadata);
  }
  [[nodiscard]] ObjectiveOptions options() const {
    ObjectiveOptions o;
    o.seed = 9;
    o.teacher_code = load_teacher_code(folder / "ae.safetensors", *teacher);
    return o;
  }
  [[nodiscard]] Tensor feature(ToyModel& net) const {
    const NoGradGuard off;
    const std::vector<std::string> taps{"features"};
    return net.forward(images, taps).taps.at("features");
  }
  double value(const Term& term) {
    Distiller d(student, teacher, {term}, options());
    return d.forward(images, labels, 0, 10).terms.at(1).raw.item();
  }
};

}  // namespace

TEST_CASE("the fingerprint of a teacher: its weights and nothing else") {
  const auto teacher = network(1);
  const std::string fingerprint = teacher_fingerprint(*teacher);
  CHECK(teacher_fingerprint(*network(1)) == fingerprint);
  CHECK(teacher_fingerprint(*network(2)) != fingerprint);
  teacher->freeze();
  CHECK(teacher_fingerprint(*teacher) == fingerprint);
  for (const auto& [name, buffer] : teacher->named_buffers()) {
    if (name.ends_with("num_batches_tracked")) buffer.fill_(7);
  }
  CHECK(teacher_fingerprint(*teacher) == fingerprint);
  const Tensor last = teacher->parameters().back().detach();
  last.fill_(0.125);
  CHECK(teacher_fingerprint(*teacher) != fingerprint);
}

TEST_CASE("the terms own adapters of the right size, and train them with the student") {
  for (const char* yaml : {"{loss: ka_adapt}", "{loss: ka_adapt, scope: pixel, p: 2}", "{loss: ka_affinity}",
                           "{loss: ka_affinity, reduce: rownorm}", "{loss: ka_affinity, reduce: tdl}"}) {
    for (const char* tap : {"features", "code"}) {
      CAPTURE(yaml);
      CAPTURE(tap);
      Set set;
      ObjectiveOptions options = set.options();
      options.ce_weight = WeightSchedule(0.0);
      const Term term = make_term(yaml, tap);
      Distiller d(set.student, set.teacher, {term}, options);
      const auto state = d.state_dict();
      CHECK(state.at("term0.adapter.0.weight").shape() == Shape{std::string_view(tap) == "code" ? 5 : 6, 4, 3, 3});
      const Objective o = d.forward(set.images, set.labels, 0, 10);
      CHECK(o.terms.at(1).raw.item() > 0);
      o.total.backward();
      for (const auto& [name, parameter] : term.loss->named_parameters()) {
        CAPTURE(name);
        CHECK(largest_magnitude(parameter.grad().to_vector<double>()) > 0);
      }
      for (const auto& [name, parameter] : set.student->named_parameters()) {
        if (name.starts_with("conv")) CHECK(largest_magnitude(parameter.grad().to_vector<double>()) > 0);
      }
      for (const auto& parameter : set.teacher->parameters()) CHECK_FALSE(parameter.grad().defined());
    }
  }
}

TEST_CASE("C_f is convolution, batch norm, ReLU; C_a a convolution with bias") {
  Set set;
  Distiller d(set.student, set.teacher,
              {make_term("{loss: ka_adapt}", "code"), make_term("{loss: ka_affinity}", "code")}, set.options());
  const auto state = d.state_dict();
  CHECK(state.count("term0.adapter.0.bias") == 0);
  CHECK(state.at("term0.adapter.1.running_var").shape() == Shape{5});
  CHECK(state.at("term1.adapter.0.bias").shape() == Shape{5});
  CHECK(state.count("term1.adapter.1.weight") == 0);
  for (const auto& [name, tensor] : state) CHECK((name.starts_with("student.") || name.starts_with("term")));
  const auto lines = d.describe();
  REQUIRE(lines.size() == 4);
  CHECK(lines[1].find("code: 5 channels, frozen encoder of ") == 0);
  CHECK(lines[1].find("ae.safetensors on teacher 'features'") != std::string::npos);
  CHECK(lines[2] ==
        "ka_adapt: weight 1, ka_adapt p=1 q=2 scope=image (mean) adapter=conv3x3+bn+relu, student 'features' <- "
        "teacher 'code'");
  CHECK(lines[3].find("ka_affinity (mean_square) adapter=conv3x3,") != std::string::npos);
}

TEST_CASE("options reach the ops; the code is the encoder's output in eval mode") {
  Set set;
  set.teacher->freeze();
  const Tensor s = set.feature(*set.student);
  const auto code = load_teacher_code(set.folder / "ae.safetensors", *set.teacher);
  CHECK_FALSE(code->encoder->is_training());
  const Tensor t = [&] {
    const NoGradGuard off;
    return (*code->encoder)(set.feature(*set.teacher));
  }();
  CHECK(t.shape() == Shape{2, 5, 4, 6});
  const auto same = [](double a, double b) { CHECK(a == doctest::Approx(b).epsilon(1e-5)); };
  // Without an adapter the affinity compares any two channel counts.
  same(set.value(make_term("{loss: ka_affinity, adapter: none}", "code")), ka_affinity(s, t).item());
  same(set.value(make_term("{loss: ka_affinity, adapter: none, reduce: rownorm}", "code")),
       ka_affinity(s, t, {.reduce = KaAffinityReduce::kRowNorm}).item());
  // Maps of other sizes: the teacher's own feature has twice the student's.
  const Tensor smaller = ops::resize_bilinear(set.feature(*set.teacher), {4, 6}, false);
  same(set.value(make_term("{loss: ka_affinity, adapter: none}", "features")), ka_affinity(s, smaller).item());
  // The adapter's initial values are a function of the seed and the place of the term.
  Generator g(mix_stream(9, 0));
  models::Connector adapter(models::ka_feature_adapter(4, 5), g);
  same(set.value(make_term("{loss: ka_adapt, p: 2, q: 1, scope: pixel, reduction: sum}", "code")),
       ka_adapt(adapter(s), t, {.p = 2, .q = 1, .scope = KaScope::kPixel, .reduction = KaReduction::kSum}).item());
}

TEST_CASE("the encoder runs once per step however many terms share its code, and not for terms without weight") {
  Set set;
  const auto macs = [&](const std::vector<Term>& terms) {
    Distiller d(set.student, set.teacher, terms, set.options());
    nn::LayerTracer tracer;
    static_cast<void>(d.forward(set.images, set.labels, 0, 10));
    return tracer.total_macs();
  };
  const Term term = make_term("{loss: ka_affinity, adapter: none}", "code");
  const Term other = make_term("{loss: ka_affinity, adapter: none, reduce: rownorm}", "code");
  const Term plain = make_term("{loss: ka_affinity, adapter: none}", "features");
  Term silent = term;
  silent.weight = WeightSchedule(0.0);
  CHECK(macs({term, other}) == macs({term}));
  CHECK(macs({plain, silent}) == macs({plain}));
  // The three convolutions of the encoder on maps of 4x6.
  CHECK(macs({term}) - macs({plain}) == std::int64_t{2} * 4 * 6 * 9 * (6 * 6 + 6 * 5 + 5 * 5));
}

TEST_CASE("the encoder stays as it is while the student trains") {
  Set set;
  const ObjectiveOptions options = set.options();
  const auto numbers = [&] {
    std::vector<std::vector<double>> all;
    for (const auto& [name, tensor] : options.teacher_code->encoder->state_dict())
      all.push_back(tensor.to_vector<double>());
    return all;
  };
  const auto before = numbers();
  Distiller d(set.student, set.teacher, {make_term("{loss: ka_adapt}", "code")}, options);
  d.train();
  d.forward(set.images, set.labels, 0, 10).total.backward();
  CHECK(numbers() == before);
  for (const auto& parameter : options.teacher_code->encoder->parameters()) {
    CHECK_FALSE(parameter.requires_grad());
    CHECK_FALSE(parameter.grad().defined());
  }
}

TEST_CASE("an autoencoder of another teacher, or of none, is refused") {
  Set set;
  const auto file = set.folder / "ae.safetensors";
  ToyModel other(7, 2, 6);
  check_throws<WeightsError>([&] { static_cast<void>(load_teacher_code(file, other)); },
                             {"ae.safetensors is from another teacher", teacher_fingerprint(*set.teacher),
                              teacher_fingerprint(other), "train the autoencoder on this teacher"});
  set.save(set.folder / "plain.safetensors", {});
  check_throws<WeightsError>(
      [&] { static_cast<void>(load_teacher_code(set.folder / "plain.safetensors", *set.teacher)); },
      {"does not say which teacher it belongs to", "'teacher_tap'"});
  save_safetensors(set.folder / "net.safetensors", {});
  check_throws<WeightsError>(
      [&] { static_cast<void>(load_teacher_code(set.folder / "net.safetensors", *set.teacher)); },
      {"is no autoencoder"});
  set.save(set.folder / "tap.safetensors", autoencoder_metadata(*set.teacher, "feature"));
  ObjectiveOptions options;
  options.teacher_code = load_teacher_code(set.folder / "tap.safetensors", *set.teacher);
  check_throws<ConfigError>(
      [&] { Distiller(set.student, set.teacher, {make_term("{loss: ka_adapt}", "code")}, options); },
      {"the teacher has no tap 'feature'", "did you mean 'features'"});
}

TEST_CASE("mistakes in a configuration are named") {
  Set set;
  check_throws<ConfigError>([&] { Distiller(set.student, set.teacher, {make_term("{loss: ka_adapt}", "code")}); },
                            {"term 'ka_adapt'", "tap 'code'", "distill.autoencoder"});
  check_throws<ConfigError>(
      [&] {
        Distiller(set.student, set.teacher, {make_term("{loss: ka_adapt, adapter: none}", "code")}, set.options());
      },
      {"has 4 channels", "has 5", "add a connector"});
  check_throws<ConfigError>([] { static_cast<void>(make_term("{loss: ka_adapt, adapter: conv}", "code")); },
                            {"adapter"});
  check_throws<ConfigError>([] { static_cast<void>(make_term("{loss: ka_adapt, p: 0}", "code")); }, {"p"});
  check_throws<ConfigError>([] { static_cast<void>(make_term("{loss: ka_affinity, reduce: rows}", "code")); },
                            {"reduce"});
}

TEST_CASE("distill.autoencoder names the file") {
  const Config config = Config::parse(
      "{model: {name: deeplabv3_mobilenet_v2}, data: {kind: scenes}, train: {steps: 1}, "
      "teacher: {name: deeplabv3_resnet50, init: t}, "
      "distill: {autoencoder: runs/ae, terms: [{loss: ka_adapt, student: head, teacher: code, weight: 50}]}}",
      "test");
  const apps::Settings settings = apps::read_settings(config, apps::Verb::kDistill);
  CHECK(settings.teacher_code == "runs/ae");
  CHECK(settings.terms.at(0).teacher_tap == "code");
  CHECK(settings.terms.at(0).weight.at(0, 1) == 50);
}

TEST_SUITE_END();
