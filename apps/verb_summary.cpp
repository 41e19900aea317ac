// The verb `summary`: builds a network on the meta device (no memory, no arithmetic) and prints what is in it.
#include "apps/cli.h"
#include "models/summary.h"
#include "models/zoo.h"
#include "nn/module.h"

namespace limbeck::apps {

int run_summary(const SummaryArgs& args) {
  models::ModelSpec spec;
  spec.name = args.model;
  spec.classes = args.classes > 0 ? args.classes : models::default_classes(args.model);
  spec.output_stride = args.output_stride;
  spec.width = args.width;
  const nn::ParameterDevice meta(kMeta);
  Generator unused;
  const auto model = models::make_model(spec, unused);
  const auto size = parse_size(args.size, "summary --size");
  const auto summary = models::summarize(*model, {1, 3, size[0], size[1]});
  fmt::print("{}\n", args.json ? models::to_json(summary) : models::to_table(summary));
  return 0;
}

}  // namespace limbeck::apps
