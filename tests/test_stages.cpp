// Staged configurations: what a stage consists of, and what is refused before anything runs.
#include <doctest/doctest.h>

#include <string>
#include <string_view>

#include "apps/stages.h"
#include "tests/harness/temp_dir.h"

using namespace limbeck;
using namespace limbeck::apps;
using limbeck::test::check_throws;

TEST_SUITE_BEGIN("stages");

namespace {

const std::string kCommon = R"(out: runs/x
splits: [val, test]
common:
  seed: 4
  data: {kind: scenes, scene_size: [48, 64], scene_train: 8, scene_val: 2}
  distill: {terms: [{loss: channel_kd}]}
stages:
  teacher:
    verb: train
    model: {name: deeplabv3_mobilenet_v2}
    train: {steps: 5, batch: 2}
  student:
    verb: train
    model: {name: mobilenet_v2_seg, width: 0.25}
    train: {steps: 7, batch: 2, lr: 0.03}
)";

const std::string kDistilled = R"(  distilled:
    verb: distill
    like: student
    teacher: {init: "@teacher"}
    train: {epochs: 3}
)";

StagedConfig read(const std::string& text) { return read_stages(Config::parse(text, "staged.yaml")); }

void check_refused(const std::string& text, std::initializer_list<std::string_view> parts) {
  check_throws<ConfigError>([&] { static_cast<void>(read(text)); }, parts);
}

}  // namespace

TEST_CASE("a stage is the common part, the stage it is like, and its own keys") {
  const StagedConfig staged = read(kCommon + kDistilled);
  CHECK(staged.out == "runs/x");
  CHECK(staged.splits == std::vector<std::string>{"val", "test"});
  REQUIRE(staged.stages.size() == 3);
  const Stage& teacher = staged.stages[0];
  CHECK(teacher.name == "teacher");
  CHECK(teacher.verb == Verb::kTrain);
  CHECK(teacher.needs.empty());
  CHECK_FALSE(teacher.config.has("distill.terms"));  // a verb gets only the common parts that it reads

  const Stage& distilled = staged.stages[2];
  CHECK(distilled.like == "student");
  CHECK(distilled.needs == std::vector<std::string>{"teacher"});
  const Settings s = read_settings(distilled.resolved("root"), distilled.verb);
  CHECK(s.seed == 4);
  CHECK(s.model.spec.name == "mobilenet_v2_seg");
  CHECK(s.model.spec.width == 0.25);
  CHECK(s.train.lr == 0.03);
  CHECK(s.train.steps == 0);  // epochs of its own replace the steps it would have inherited
  CHECK(s.train.epochs == 3);
}

TEST_CASE("references become paths, and the teacher's name comes with them") {
  const StagedConfig staged = read(kCommon +
                                   "  distilled: {verb: distill, like: student, teacher: {init: \"@teacher\"}, "
                                   "distill: {terms: [{loss: pixel_kd}, {loss: channel_kd}]}}\n");
  const Stage& stage = staged.stages.back();
  CHECK(stage.text().find("@teacher") != std::string::npos);
  const Config resolved = stage.resolved("some root");
  CHECK(resolved.get<std::string>("out") == "some root/distilled");
  const Settings s = read_settings(resolved, stage.verb);
  CHECK(s.teacher.init == "some root/teacher");
  CHECK(s.teacher.spec.name == "deeplabv3_mobilenet_v2");
  CHECK(s.terms.size() == 2);
}

TEST_CASE("a stage can be taken from a run elsewhere") {
  std::string text =
      kCommon +
      "  distilled: {verb: distill, like: student, teacher: {init: \"@teacher\"}, distill: {terms: [{loss: pixel_kd}]}}\n";
  const std::string before = read(text).stages[0].text();
  text.insert(text.find("    verb: train\n"), "    from: runs/other/teacher\n");
  const StagedConfig staged = read(text);
  const Stage& teacher = staged.stages[0];
  CHECK(teacher.from == "runs/other/teacher");
  CHECK(teacher.result("root") == "runs/other/teacher");
  CHECK(teacher.text() == "from: runs/other/teacher\n");
  CHECK(before.find("from:") == std::string::npos);
  CHECK(staged.stages[1].result("root") == "root/student");
  const Stage& distilled = staged.stages[2];
  const Settings s = read_settings(distilled.resolved("root"), distilled.verb);
  CHECK(s.teacher.init == "runs/other/teacher");
  CHECK(s.teacher.spec.name == "deeplabv3_mobilenet_v2");
  CHECK(distilled.needs == std::vector<std::string>{"teacher"});
}

TEST_CASE("the autoencoder of the published recipe needs no training section of its own") {
  const StagedConfig staged = read(kCommon +
                                   "  code: {verb: autoencoder, teacher: {init: \"@teacher\"}, train: {batch: 4}, "
                                   "autoencoder: {strides: [2, 1, 1]}}\n");
  const Stage& stage = staged.stages.back();
  const Settings s = read_settings(stage.resolved("r"), stage.verb);
  CHECK(s.train.epochs == 1);
  CHECK(s.train.lr == 0.1);
  CHECK(s.train.weight_decay == 1e-4);
  CHECK(s.train.momentum == 0.9);
  CHECK(s.autoencoder.tap == "aspp");
  CHECK(s.autoencoder.strides == std::array<std::int64_t, 3>{2, 1, 1});
  CHECK(s.model.spec.name.empty());
}

TEST_CASE("mistakes in any stage are found before the first one runs") {
  check_refused("out: x\nstages: {}\n", {"staged.yaml", "stages"});
  check_refused(kCommon + "  late: {verb: distill, like: student, teacher: {init: \"@teacher\"}, trian: {lr: 1}}\n",
                {"staged.yaml:16", "trian", "did you mean 'train'"});
  check_refused(kCommon + "  late: {verb: distil, like: student}\n", {"staged.yaml:16", "verb", "distill"});
  check_refused(kCommon + "  late: {verb: distill, like: student, teacher: {init: \"@teecher\"}}\n",
                {"staged.yaml:16", "no stage 'teecher' before", "did you mean 'teacher'"});
  check_refused(kCommon + "  late: {verb: train, like: latest}\n",
                {"staged.yaml:16", "no stage 'latest' before", "teacher, student"});
  check_refused(kCommon + "  a/b: {verb: train, like: student}\n", {"staged.yaml:16", "folder"});
  check_refused(kCommon +
                    "  late: {verb: distill, like: student, teacher: {init: \"@teacher\"}, "
                    "distill: {terms: [{loss: channel_kd, teacher: asp}]}}\n",
                {"no tap 'asp'", "did you mean 'aspp'"});
  check_refused(kCommon + "  late: {verb: autoencoder, teacher: {init: \"@teacher\"}, autoencoder: {tap: hea}}\n",
                {"no tap 'hea'", "did you mean 'head'"});
  // Not reached by a train stage, so a mistake there.
  check_refused(kCommon + "  late: {verb: train, like: student, teacher: {init: \"@teacher\"}}\n",
                {"staged.yaml:16", "teacher"});
  check_refused(kCommon +
                    "  late: {verb: distill, like: student, teacher: {init: \"@teacher\"}, "
                    "distill: {terms: [{loss: channel_kd, weight: -1}]}}\n",
                {"staged.yaml:16", "weight"});
}

TEST_SUITE_END();
