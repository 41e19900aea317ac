// Every preset must be a configuration that runs: all keys known and used, networks and taps there, channels that fit,
// every term with a finite value. Networks have random weights and see tiny pictures; no data set is opened.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "apps/classify.h"
#include "apps/presets.h"
#include "apps/stages.h"
#include "apps/sweep.h"
#include "apps/train_run.h"
#include "core/autograd.h"
#include "core/log.h"
#include "core/rng.h"
#include "distill/distiller.h"
#include "distill/teacher_code.h"
#include "models/zoo.h"
#include "tests/harness/meta_model.h"
#include "tests/harness/temp_dir.h"

using namespace limbeck;
using namespace limbeck::apps;

TEST_SUITE_BEGIN("presets");

namespace {

namespace fs = std::filesystem;

bool is_sweep(const Preset& preset) { return preset.text.find("\nmethods:") != std::string_view::npos; }
bool is_staged(const Preset& preset) { return preset.text.find("\nstages:") != std::string_view::npos; }

/// Classes of the data sets that presets use; the sets themselves are not here.
std::int64_t classes_of(const Settings& s) {
  static const std::map<std::string, std::int64_t> table{{"voc2012", 21},        {"coco_voc", 21}, {"cityscapes", 19},
                                                         {"pascal_context", 60}, {"camvid", 11},   {"scenes", 11},
                                                         {"image_folder", 1000}, {"ade20k", 150}};
  return table.at(s.data.train.kind);
}

models::ModelSpec spec_of(const Settings& s) {
  models::ModelSpec spec = s.model.spec;
  spec.classes = classes_of(s);
  return spec;
}

/// Filling a large network with random numbers takes longer than its forward pass, so the last one is kept.
std::shared_ptr<models::Model> frozen_network(const models::ModelSpec& spec) {
  static std::shared_ptr<models::Model> last;
  if (last && last->spec() == spec) return last;
  last.reset();
  Generator g(1);
  last = models::make_model(spec, g);
  last->freeze();
  return last;
}

/// What distinguishes the teachers of presets, as text: presets in this order share them.
std::string teacher_key(const Preset& preset) {
  const auto line_of = [&](std::string_view word) {
    const auto at = preset.text.find(word);
    return std::string(at == std::string_view::npos ? "" : preset.text.substr(at, preset.text.find('\n', at) - at));
  };
  return line_of("model:") + line_of("kind:");
}

/// The stages of one preset, whose networks later stages need.
struct StagedNets {
  std::map<std::string, Settings> settings;

  std::shared_ptr<models::Model> teacher_of(const Settings& s) {
    const std::string stage = fs::path(s.teacher.init).filename().string();
    REQUIRE_MESSAGE(settings.contains(stage), s.teacher.init);
    return frozen_network(spec_of(settings.at(stage)));
  }
};

/// The frozen encoder that an earlier stage would have trained.
std::shared_ptr<distill::TeacherCode> code_of(const Settings& s, StagedNets& nets, const models::Model& teacher) {
  const Settings& stage = nets.settings.at(fs::path(s.teacher_code).filename().string());
  const auto autoencoder = build_autoencoder(stage, teacher);
  autoencoder->encoder().freeze();
  auto code = std::make_shared<distill::TeacherCode>();
  code->encoder = std::shared_ptr<models::FeatureEncoder>(autoencoder, &autoencoder->encoder());
  code->tap = stage.autoencoder.tap;
  return code;
}

void check_distillation(const Settings& s, StagedNets& nets) {
  Generator g(2);
  const auto student = models::make_model(spec_of(s), g);
  const auto teacher = nets.teacher_of(s);
  distill::ObjectiveOptions options;
  options.ce_weight = s.ce_weight;
  options.aux_weight = s.aux_weight;
  options.align_corners = s.train.align_corners;
  options.whole_images = s.classify;
  options.connector_epochs = s.connector_epochs;
  if (!s.teacher_code.empty()) options.teacher_code = code_of(s, nets, *teacher);
  distill::Distiller distiller(student, teacher, s.terms, options);
  distiller.set_steps_per_epoch(5);
  distiller.eval();

  constexpr std::int64_t kSize = 33;
  Tensor images = Tensor::empty({2, 3, kSize, kSize});
  fill_normal_(images, g, 0, 1);
  const Tensor labels =
      s.classify
          ? Tensor::from(std::vector<std::int64_t>{3, 999}, {2})
          : Tensor::from(std::vector<std::uint8_t>(static_cast<std::size_t>(2 * kSize * kSize), 4), {2, kSize, kSize});
  const NoGradGuard off;
  const auto objective = distiller.forward(images, labels, 5, 20);
  std::set<std::string> names;
  for (const auto& term : objective.terms) {
    CAPTURE(term.name);
    CHECK(std::isfinite(term.raw.item()));
    CHECK(term.weight > 0);
    names.insert(term.name);
  }
  for (const auto& term : s.terms) CHECK_MESSAGE(names.contains(term.name), term.name);
  CHECK(names.contains("aux") == spec_of(s).aux);
}

/// Discriminators want maps of 64 pixels, which tiny pictures do not give.
void enlarge_discriminator_maps(Config& config) {
  const auto terms = config.copy().section("distill").sections("terms");
  for (std::size_t i = 0; i < terms.size(); ++i) {
    if (terms[i].get<std::string>("loss") == "holistic")
      config.override_with(fmt::format("distill.terms.{}.size=64", i));
  }
}

void check_staged(const Preset& preset) {
  Config config = Config::parse(preset.text, std::string(preset.name));
  if (config.copy().section("common.data").get("root", "").empty()) config.override_with("common.data.root=data");
  const StagedConfig staged = read_stages(config);
  StagedNets nets;
  for (const Stage& stage : staged.stages) {
    CAPTURE(stage.name);
    Config own = stage.resolved("runs");
    if (stage.verb == Verb::kDistill) enlarge_discriminator_maps(own);
    const Settings s = read_settings(own, stage.verb);
    nets.settings.emplace(stage.name, s);
    if (stage.verb == Verb::kDistill) {
      check_distillation(s, nets);
    } else if (stage.verb == Verb::kTrain) {
      const auto target = s.classify ? datasets::Target::kImage : datasets::Target::kPixels;
      CHECK_NOTHROW(require_fitting_network(s.model.spec.name, target, "model"));
      CHECK(test::on_meta(spec_of(s))->parameter_count() > 1000);
    } else {
      static_cast<void>(build_autoencoder(s, *nets.teacher_of(s)));
    }
  }
}

/// A preset of one run. The verb is the one that reads all of it.
Settings read_single(const Preset& preset) {
  const Config probe =
      Config::parse(preset.text, std::string(preset.name));  // asking counts as use, so the real one is not asked
  const Verb verb = probe.has("distill")       ? Verb::kDistill
                    : probe.has("autoencoder") ? Verb::kAutoencoder
                                               : Verb::kTrain;
  Config config = Config::parse(preset.text, std::string(preset.name));
  if (probe.section("data").get("root", "").empty()) config.override_with("data.root=data");
  Settings s = read_settings(config, verb);
  static_cast<void>(config.get<std::string>("out"));
  config.check_all_used();
  return s;
}

/// The networks of a run whose teacher and code come from elsewhere.
StagedNets nets_of(const Settings& s) {
  StagedNets nets;
  Settings teacher = s;
  teacher.model = s.teacher;
  nets.settings.emplace(fs::path(s.teacher.init).filename().string(), teacher);
  if (s.teacher_code.empty()) return nets;
  const auto code = std::find_if(presets().begin(), presets().end(),
                                 [](const Preset& p) { return std::string_view(p.name) == "camvid/autoencoder"; });
  REQUIRE(code != presets().end());
  nets.settings.emplace(fs::path(s.teacher_code).filename().string(), read_single(*code));
  return nets;
}

void check_single(const Preset& preset) {
  const Settings s = read_single(preset);
  CHECK(test::on_meta(spec_of(s))->parameter_count() > 1000);
  if (s.verb == Verb::kTrain) return;
  StagedNets nets = nets_of(s);
  if (s.verb == Verb::kAutoencoder) {
    static_cast<void>(build_autoencoder(s, *nets.teacher_of(s)));
  } else {
    check_distillation(s, nets);
  }
}

void check_sweep(const Preset& preset) {
  const test::TempDir folder;
  std::ofstream(folder / "sweep.yaml") << preset.text;
  const SweepSpec sweep = read_sweep((folder / "sweep.yaml").string(), {"data.root=data"});
  CHECK(sweep.baseline == "alone");
  for (const SweepMethod& method : sweep.methods) {
    CAPTURE(method.name);
    Config config = method.config.copy();
    const Settings s = read_settings(config, method.distillation ? Verb::kDistill : Verb::kTrain);
    config.check_all_used();
    if (!method.distillation) continue;
    StagedNets nets = nets_of(s);
    check_distillation(s, nets);
  }
}

}  // namespace

TEST_CASE("every preset is complete and runs its first step") {
  set_log_sink([](LogLevel, std::string_view) {});  // maps that are resized, networks that are built: not of interest
  int staged = 0;
  std::vector<Preset> sorted(presets().begin(), presets().end());
  std::stable_sort(sorted.begin(), sorted.end(),
                   [](const auto& a, const auto& b) { return teacher_key(a) < teacher_key(b); });
  for (const Preset& preset : sorted) {
    CAPTURE(preset.name);
    INFO(preset.name);
    try {
      is_sweep(preset) ? check_sweep(preset) : is_staged(preset) ? check_staged(preset) : check_single(preset);
    } catch (const Error& e) {
      FAIL_CHECK(std::string(e.what()));
    }
    staged += is_staged(preset);
  }
  set_log_sink({});
  CHECK(staged >= 29);  // the published recipes
}

TEST_CASE("weight decay spares what a configuration says") {
  const auto model = test::on_meta({.name = "ka_student_mobilenet_v2", .width = 0.35});
  for (const auto& [vectors, depthwise] : {std::pair{true, true}, {false, true}, {true, false}, {false, false}}) {
    CAPTURE(vectors);
    CAPTURE(depthwise);
    TrainSettings t;
    t.weight_decay = 0.25;
    t.decay_vectors = vectors;
    t.decay_depthwise = depthwise;
    std::size_t kernels = 0, count = 0;
    const auto optimizer = build_optimizer(t, *model);
    for (const auto& group : optimizer->groups()) {
      for (const auto& p : group.params) {
        const bool kernel = p.tensor.ndim() == 4 && p.tensor.size(2) == 3 && p.tensor.size(1) == 1;
        const bool decays = kernel ? depthwise : p.tensor.ndim() > 1 || vectors;
        CHECK_MESSAGE(group.weight_decay == (decays ? 0.25 : 0.0), p.name);
        kernels += kernel;
        ++count;
      }
    }
    CHECK(kernels == 17);  // one per block
    CHECK(count == model->named_parameters().size());
  }
}

TEST_CASE("the layers of terms may keep their learning rate") {
  Generator g(1);
  const auto network = [&] { return models::make_model({.name = "mobilenet_v2_seg", .classes = 3, .width = 0.1}, g); };
  const auto distiller = [&](const char* loss) {
    distill::Term term;
    term.loss = distill::make_loss(Config::parse(loss, "test"));
    return std::make_shared<distill::Distiller>(network(), network(), std::vector{term});
  };
  TrainSettings t;
  t.lr = 0.5;
  t.head_lr = 10;
  const auto adapted = distiller("{loss: channel_kd, adapter: cwd}");
  for (const bool constant : {false, true}) {
    CAPTURE(constant);
    t.constant_term_lr = constant;
    std::size_t of_term = 0;
    const auto optimizer = build_optimizer(t, *adapted);
    for (const auto& group : optimizer->groups()) {
      for (const auto& p : group.params) {
        const bool term = p.name.starts_with("term0.");
        const double at_tenth = term && constant ? 5 : p.name.find("backbone.") == std::string::npos ? 0.5 : 0.05;
        CHECK_MESSAGE(group.rate(0.05) == doctest::Approx(at_tenth), p.name);
        of_term += term;
      }
    }
    CHECK(of_term == 3);  // convolution, and two vectors of batch norm
  }
  CHECK_THROWS_WITH_AS(static_cast<void>(build_optimizer(t, *distiller("{loss: channel_kd}"))),
                       "[train] term_lr is constant, but no distillation term has layers of its own", ConfigError);
}

TEST_CASE("options of a network and of the data reach them from a configuration") {
  Config config = Config::parse(
      "{model: {name: deeplabv3plus_mobilenet_v2, padding: before_expansion, dilation: jf, bn_momentum: 0.0003, bn_eps: 1.0e-3, "
      "head_bn_eps: 1.0e-5, aspp_dropout: 0, aspp_rates: [12, 24, 36]}, "
      "data: {kind: cityscapes, root: x, crop: 8, coarse_split: train_extra, pad_label: background, eval_absent: zero}, "
      "train: {steps: 1, term_lr: constant}}",
      "test");
  const Settings settings = read_settings(config, Verb::kTrain);
  CHECK(settings.data.train.coarse_split == "train_extra");
  CHECK(settings.data.val.coarse_split.empty());
  CHECK(settings.data.transform.pad_background);
  CHECK(evaluation_options(settings.data, false).absent == datasets::AbsentClasses::kZero);
  CHECK(settings.train.constant_term_lr);
  const models::ModelSpec& spec = settings.model.spec;
  CHECK(spec.head_bn_eps == 1e-5);
  CHECK(spec.aspp_dropout == 0);
  CHECK(spec.aspp_rates == std::array<std::int64_t, 3>{12, 24, 36});
  CHECK(spec.padding == "before_expansion");
  CHECK(spec.dilation == "jf");
  CHECK(spec.bn_momentum == 0.0003);
  CHECK(spec.bn_eps == 1e-3);
  for (const char* bad : {"model.bn_momentum=0", "model.head_bn_eps=-1", "model.aspp_rates=[6, 12]", "data.pad_label=0",
                          "data.eval_absent=nan", "train.term_lr=fast", "data.label_map={1x: 0}",
                          "data.crop=[8, 70000]", "data.eval_resize=4294967296"}) {
    CAPTURE(bad);
    Config wrong = config.copy();
    wrong.override_with(bad);
    CHECK_THROWS_AS(static_cast<void>(read_settings(wrong, Verb::kTrain)), ConfigError);
  }
}

TEST_CASE("every published pair has its preset") {
  std::set<std::string> names;
  for (const Preset& preset : presets()) names.emplace(preset.name);
  for (const char* teacher : {"resnet50", "xception41"}) {
    for (const char* data : {"voc", "cityscapes", "pascal_context"}) {
      CHECK(names.contains(fmt::format("ka/{}-mnv2-{}", teacher, data)));
    }
  }
  for (const char* student : {"resnet18", "mobilenet_v2"}) {
    CHECK(names.contains(fmt::format("aicsd/deeplabv3plus_{}-voc", student)));
    CHECK(names.contains(fmt::format("aicsd/deeplabv3plus_{}-cityscapes", student)));
    CHECK(names.contains(fmt::format("ofd/deeplabv3plus_{}-voc", student)));
    CHECK(names.contains(fmt::format("cirkd/deeplabv3_{}-cityscapes", student)));
  }
  for (const char* name :
       {"cwd/pspnet_resnet18-cityscapes", "cwd/pspnet_resnet18-cityscapes-feature", "cwd/pspnet_resnet18-ade20k-mmseg",
        "ka/resnet50-mnv2-voc-baselines", "ka/resnet50-mnv2-cityscapes-baselines", "ct/pspnet_resnet18-cityscapes",
        "ct/mobilenet_v1-imagenet", "skd/pspnet_resnet18-cityscapes", "ifvd/pspnet_resnet18-cityscapes"}) {
    CHECK_MESSAGE(names.contains(name), name);
  }
}
