// What this is: the description of an ablation (a list of methods on one base configuration) and the record of each of its
//   runs on disk.
// What it is not: the loop (verb_ablate.cpp) or the tables (sweep_table.h).
//
//   base: camvid/student          # a preset, a file (relative to this one), or a configuration written out here
//   common: {train: {steps: 450}} # laid over the base, for all methods; also where `teacher:` goes
//   seeds: [1, 2]
//   splits: [val, test]           # where the networks are scored; default: data.val_split
//   best: false                   # true: score the best checkpoint too, not only the last step
//   baseline: alone               # default: the first method without terms, or the first
//   methods:
//     - {name: alone}             # a method without terms trains alone
//     - name: kd
//       terms: [{loss: pixel_kd}] # distill.terms
//       train: {lr: 0.02}         # any other key is laid over base and common
// Read next: verb_ablate.cpp.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "core/config.h"

namespace limbeck::apps {

struct SweepMethod {
  std::string name;
  Config config;  ///< complete but for the seed
  bool distillation = false;
};

struct SweepSpec {
  std::string out;  ///< empty when the file has none
  std::vector<std::int64_t> seeds;
  std::vector<std::string> splits;
  bool best = false;
  std::string baseline;
  std::vector<SweepMethod> methods;
};

/// Reads a sweep file. An override whose first word is a key of the sweep (seeds, splits, best, baseline, base, common,
/// methods) changes the sweep; any other goes into the configuration of every run and wins over the methods.
/// Throws ConfigError with file and line for a bad or repeated name, an unknown preset, an unknown baseline, an unknown key.
[[nodiscard]] SweepSpec read_sweep(const std::string& file, const std::vector<std::string>& overrides);

/// Scores on one split.
struct SplitScore {
  std::string split;
  std::string weights;  ///< last | best
  double miou = 0;      ///< percent, as the two below
  double pixel_accuracy = 0;
  std::vector<double> iou;  ///< NaN for an absent class
  std::int64_t images = 0;
  std::string protocol;
};

/// What is known about one run; result.json in its folder.
struct RunRecord {
  std::string method;
  std::int64_t seed = 0;
  std::string state;   ///< stopped | trained | finished | failed
  std::string config;  ///< as written, before defaults; a finished run only counts for the same configuration
  std::string reason;  ///< failed
  int exit_code = 0;   ///< failed
  std::int64_t steps = 0;
  double seconds = 0;           ///< training and validation, over all attempts
  double seconds_per_step = 0;  ///< NaN when it is not known
  double peak_bytes = 0;        ///< tensor memory of the run at its peak during a step, its teacher included
  std::vector<std::string> objective;
  std::vector<SplitScore> scores;
};

void write_record(const std::filesystem::path& file, const RunRecord& record);
/// Nothing when the file does not exist; throws Error when it is not a record.
[[nodiscard]] std::optional<RunRecord> read_record(const std::filesystem::path& file);
/// The record as a JSON object text, without the configuration.
[[nodiscard]] std::string to_json(const RunRecord& record);

/// Says where two configurations differ first: "line 7: 'lr: 0.1' instead of 'lr: 0.2'"; empty when they are equal.
[[nodiscard]] std::string first_difference(const std::string& was, const std::string& is);

}  // namespace limbeck::apps
