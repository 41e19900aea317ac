// The verb `check-data`: scans the data set of a configuration and says in plain words what is wrong.
#include <cstdio>

#include "apps/cli.h"
#include "apps/data_part.h"
#include "core/file_io.h"
#include "core/log.h"
#include "datasets/check_data.h"

namespace limbeck::apps {

int run_check_data(const CommonArgs& args) {
  const Config config = load_config(args);
  const DataSettings data = read_data_part(config, args.overrides);
  std::vector<datasets::DatasetSpec> splits{data.train};
  if (data.val.split != data.train.split) splits.push_back(data.val);
  datasets::CheckOptions options;
  std::size_t reported = 0;
  std::unique_ptr<Progress> progress;
  options.progress = [&](std::size_t done, std::size_t total) {
    if (!progress) progress = std::make_unique<Progress>("check-data", static_cast<std::int64_t>(total));
    progress->advance(static_cast<std::int64_t>(done - reported));
    reported = done;
  };
  const datasets::CheckReport report = datasets::check_data(splits, options);
  if (progress) progress->finish();
  fmt::print("{}\n", args.json ? datasets::to_json(report) : datasets::to_text(report));
  if (!args.out.empty()) write_file_atomic(args.out, datasets::to_json(report) + "\n");
  return static_cast<int>(report.ok ? ExitCode::kOk : ExitCode::kData);
}

}  // namespace limbeck::apps
