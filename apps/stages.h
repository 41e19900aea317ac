// What this is: a staged configuration: several runs in one file, each a configuration of its own made of what is common to
//   all, of an earlier stage it is like, and of its own keys.
//
//   out: runs/scenes/ka
//   splits: [val, test]                # for the table
//   common: {seed: 1, data: {...}}     # part of every stage
//   stages:                            # run in this order
//     teacher:     {verb: train, model: {...}, train: {...}}
//     student:     {verb: train, model: {...}, train: {...}}
//     autoencoder: {verb: autoencoder, teacher: {init: "@teacher"}, model: {...}}
//     distilled:   {verb: distill, like: student, teacher: {init: "@teacher"},
//                   distill: {autoencoder: "@autoencoder", terms: [...]}}
//   A stage with `from: PATH` is not run: its result is the run folder, step folder or weight file at PATH.
//
// What it is not: the running of them (verb_run.cpp).
#pragma once

#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "apps/settings.h"
#include "core/config.h"

namespace limbeck::apps {

struct Stage {
  std::string name;
  Verb verb = Verb::kTrain;
  std::string like;                              ///< the earlier stage it starts from; empty: the common part
  std::string from;                              ///< where its result is, if it is not to be run
  Config config;                                 ///< merged; "@teacher" is still written like that
  std::vector<std::string> needs;                ///< earlier stages whose results it reads
  std::map<std::string, std::string> elsewhere;  ///< those of `needs` that are taken `from` somewhere, and from where

  /// What was asked for, without defaults: the same text as long as the file says the same.
  [[nodiscard]] std::string text() const;
  /// Where its result is: ROOT/NAME, or `from`.
  [[nodiscard]] std::filesystem::path result(const std::filesystem::path& root) const;
  /// The configuration of the run in ROOT/NAME: results of other stages by their paths, `out` filled in.
  [[nodiscard]] Config resolved(const std::filesystem::path& root) const;
};

struct StagedConfig {
  std::string out;
  std::vector<std::string> splits;  ///< of the data set, on which networks are scored for the table
  std::vector<Stage> stages;
};

/// Reads and checks a whole staged file, so that a mistake in the last stage does not show after the hours of the first:
/// the settings of each stage, unknown keys, references to stages that do not come before.
/// Throws ConfigError naming file, line and key.
[[nodiscard]] StagedConfig read_stages(const Config& config);

}  // namespace limbeck::apps
