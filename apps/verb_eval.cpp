// The verb `eval`: scores of a trained network, with the protocol they belong to.
#include <filesystem>
#include <optional>

#include "apps/cli.h"
#include "apps/data_part.h"
#include "apps/scoring.h"
#include "core/file_io.h"
#include "core/log.h"
#include "nn/module.h"

namespace limbeck::apps {

int run_eval(const EvalArgs& args) {
  const nn::ParameterDevice parameters(open_device(args.device));
  Config config = stored_config(args, args.model);
  if (!args.split.empty()) config.override_with("data.val_split=" + args.split);
  const DataSettings data = read_data_part(config, args.overrides, {"eval.precision"});
  std::optional<Precision> precision;
  if (config.has("eval.precision"))
    precision = parse_precision(config.get<std::string>("eval.precision"), "eval.precision");
  if (!args.precision.empty()) precision = parse_precision(args.precision, "--precision");
  const ScoredModel scored = score_model(args.model, data, precision, args.protocol);
  fmt::print("{}{}", args.json ? scored.json() : scored.text(), args.json ? "\n" : "");
  if (!args.out.empty()) write_file_atomic(args.out, scored.json() + "\n");
  return 0;
}

}  // namespace limbeck::apps
