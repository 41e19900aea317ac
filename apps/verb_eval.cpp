// The verb `eval`: scores of a trained network, with the protocol they belong to.
#include <filesystem>

#include "apps/cli.h"
#include "apps/scoring.h"
#include "apps/settings.h"
#include "core/file_io.h"
#include "core/log.h"

namespace limbeck::apps {
namespace {

/// The configuration given with -c, or the one stored in the run folder of the model.
Config config_of(const EvalArgs& args) {
  if (!args.config.empty()) return load_config(args);
  namespace fs = std::filesystem;
  fs::path folder = args.model;
  if (!fs::is_directory(folder)) folder = folder.parent_path();
  for (const fs::path& candidate : {folder / "config.yaml", folder.parent_path() / "config.yaml"}) {
    if (fs::exists(candidate)) {
      CommonArgs stored = args;
      stored.config = candidate.string();
      return load_config(stored);
    }
  }
  fail<ConfigError>("eval", "no data set: {} is not inside a run folder, so give a configuration with -c", args.model);
}

}  // namespace

int run_eval(const EvalArgs& args) {
  Config config = config_of(args);
  if (!args.split.empty()) config.override_with("data.val_split=" + args.split);
  const DataSettings data = read_data(config);
  const bool bf16 = config.has("eval.precision") && config.get<std::string>("eval.precision") == "bf16";
  const ScoredModel scored = score_model(args.model, data, bf16, args.protocol);
  fmt::print("{}{}", args.json ? scored.json() : scored.text(), args.json ? "\n" : "");
  if (!args.out.empty()) write_file_atomic(args.out, scored.json() + "\n");
  return 0;
}

}  // namespace limbeck::apps
