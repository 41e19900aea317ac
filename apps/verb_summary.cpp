// The verb `summary`: builds a network on the meta device (no memory, no arithmetic) and prints what is in it.
#include <algorithm>

#include "apps/cli.h"
#include "models/summary.h"
#include "models/zoo.h"

namespace limbeck::apps {

models::ModelSpec spec_of(const NetworkArgs& args) {
  models::ModelSpec spec;
  spec.name = args.model;
  spec.classes = args.classes > 0 ? args.classes : models::is_classification(args.model) ? 1000 : 21;
  spec.output_stride = args.output_stride;
  spec.width = args.width;
  spec.width_divisor = args.width_divisor;
  spec.variant = args.variant;
  spec.stem = args.stem;
  spec.dilation = args.dilation;
  spec.padding = args.padding;
  spec.aux = args.aux;
  spec.separable = args.separable;
  if (!args.aspp_rates.empty()) std::copy_n(args.aspp_rates.begin(), spec.aspp_rates.size(), spec.aspp_rates.begin());
  return spec;
}

int run_summary(const SummaryArgs& args) {
  const models::ModelSpec spec = spec_of(args);
  const auto size = parse_size(args.size, "summary --size");
  const auto summary = models::summarize(spec, {1, 3, size[0], size[1]});
  fmt::print("{}\n", args.json ? models::summary_json(summary) : models::summary_table(summary));
  return 0;
}

}  // namespace limbeck::apps
