#include "apps/stages.h"

#include <algorithm>
#include <array>
#include <map>
#include <utility>

#include "apps/train_run.h"
#include "core/json.h"
#include "core/nearest_word.h"
#include "distill/teacher_code.h"

namespace limbeck::apps {
namespace {

namespace fs = std::filesystem;

// Keys whose value may be "@STAGE".
constexpr std::array kReferences{"model.init", "teacher.init", "distill.autoencoder"};

const Stage* find_stage(const std::vector<Stage>& stages, const std::string& name) {
  const auto found = std::find_if(stages.begin(), stages.end(), [&](const Stage& s) { return s.name == name; });
  return found == stages.end() ? nullptr : &*found;
}

/// The stage of that name among those before; otherwise an error at `key` of `section`.
const Stage& earlier_stage(const std::vector<Stage>& before, const std::string& name, const Config& section,
                           const char* key) {
  if (const Stage* stage = find_stage(before, name)) return *stage;
  std::vector<std::string> names;
  for (const Stage& s : before) names.push_back(s.name);
  const std::string near = nearest_word(name, names);
  section.reject(key,
                 fmt::format("there is no stage '{}' before this one{}; before it: {}", name,
                             near.empty() ? "" : fmt::format(", did you mean '{}'?", near), fmt::join(names, ", ")));
}

/// The common part without what the verb does not read.
Config common_part(const Config& common, Verb verb) {
  switch (verb) {
    case Verb::kTrain: return common.copy({"teacher", "autoencoder", "distill"});
    case Verb::kAutoencoder: return common.copy({"distill"});
    case Verb::kDistill: break;
  }
  return common.copy({"autoencoder"});
}

/// "@teacher" -> "teacher"; empty for anything else.
std::string reference(const Config& config, const char* key) {
  // A copy is asked, so that the key still counts as unknown where the verb does not read it.
  const auto value = config.copy().find<std::string>(key);
  return value && value->starts_with('@') ? value->substr(1) : std::string();
}

Verb read_verb(const Config& section) {
  if (!section.has("verb")) {
    section.reject("verb",
                   "the stage has none, expected train, autoencoder or distill; is the name of the stage mistyped?");
  }
  const std::string word = section.choice("verb", "", {"train", "autoencoder", "distill"});
  if (word == "train") return Verb::kTrain;
  return word == "autoencoder" ? Verb::kAutoencoder : Verb::kDistill;
}

void check_name(const std::string& name, const Config& stages) {
  const bool plain = std::all_of(name.begin(), name.end(),
                                 [](unsigned char c) { return std::isalnum(c) != 0 || c == '_' || c == '-'; });
  if (!plain) stages.reject(name, "a stage is also a folder; use letters, digits, '_' and '-' for its name");
}

Stage read_stage(const std::string& name, const Config& section, const Config& common,
                 const std::vector<Stage>& before) {
  Stage stage;
  stage.name = name;
  stage.verb = read_verb(section);
  stage.like = section.get("like", "");
  stage.from = section.get("from", "");
  const Config own = section.copy({"verb", "like", "from"});
  stage.config = common_part(common, stage.verb);
  if (!stage.like.empty()) stage.config.merge(earlier_stage(before, stage.like, section, "like").config);
  // A length of its own replaces the other kind of length.
  const Config probe = own.copy();
  if (probe.has("train.steps") && !probe.has("train.epochs")) stage.config.override_with("train.epochs=null");
  if (probe.has("train.epochs") && !probe.has("train.steps")) stage.config.override_with("train.steps=null");
  stage.config.merge(own);
  for (const char* key : kReferences) {
    const std::string other = reference(stage.config, key);
    if (other.empty()) continue;
    const Config asked = stage.config.copy();
    const Stage& source = earlier_stage(before, other, asked, key);
    stage.needs.push_back(other);
    if (!source.from.empty()) stage.elsewhere[other] = source.from;
    // The architecture comes with the weights; the name is only there for the reader.
    if (std::string_view(key) == "teacher.init" && !stage.config.copy().has("teacher.name")) {
      stage.config.override_with("teacher.name=" + source.config.copy().get<std::string>("model.name"));
    }
  }
  return stage;
}

/// The taps of a stage whose teacher is an earlier stage: a wrong one would show only when that teacher is trained.
void check_taps(const Settings& s, const models::ModelSpec& teacher) {
  if (s.verb == Verb::kAutoencoder) static_cast<void>(tap_of_spec(teacher, s.autoencoder.tap));
  const auto known = [](const std::string& tap) { return tap == "logits" || tap == distill::kCodeTap; };
  for (const distill::Term& term : s.terms) {
    if (!known(term.student_tap)) static_cast<void>(tap_of_spec(s.model.spec, term.student_tap));
    if (!known(term.teacher_tap)) static_cast<void>(tap_of_spec(teacher, term.teacher_tap));
  }
}

}  // namespace

std::string Stage::text() const { return from.empty() ? config.copy().dump() : fmt::format("from: {}\n", from); }

fs::path Stage::result(const fs::path& root) const { return from.empty() ? root / name : fs::path(from); }

Config Stage::resolved(const fs::path& root) const {
  Config out = config.copy();
  for (const char* key : kReferences) {
    const std::string other = reference(config, key);
    if (other.empty()) continue;
    const auto taken = elsewhere.find(other);
    const std::string path = taken != elsewhere.end() ? taken->second : (root / other).string();
    out.override_with(fmt::format("{}={}", key, json_quote(path)));
  }
  out.override_with("out=" + json_quote((root / name).string()));
  return out;
}

StagedConfig read_stages(const Config& config) {
  StagedConfig staged;
  staged.out = config.get<std::string>("out");
  staged.splits = config.get("splits", std::vector<std::string>{"val"});
  const Config common = config.section("common");
  const Config stages = config.section("stages");
  for (const std::string& name : stages.keys()) {
    check_name(name, stages);
    staged.stages.push_back(read_stage(name, stages.section(name), common, staged.stages));
  }
  if (staged.stages.empty())
    config.reject("stages", "the file gives no stages; `limbeck init-config scenes/ka` prints an example");
  static_cast<void>(common.copy());  // parts of it may be for verbs that no stage has
  config.check_all_used();
  std::map<std::string, models::ModelSpec> specs;
  for (const Stage& stage : staged.stages) {
    const Config resolved = stage.resolved(staged.out);
    const Settings settings = read_settings(resolved, stage.verb);
    static_cast<void>(resolved.get<std::string>("out"));
    resolved.check_all_used();
    const std::string teacher = reference(stage.config, "teacher.init");
    if (!teacher.empty()) check_taps(settings, specs.at(teacher));
    specs.emplace(stage.name, settings.model.spec);
  }
  return staged;
}

}  // namespace limbeck::apps
