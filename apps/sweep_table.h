// What this is: what the runs of an ablation say together: means, deviations, differences to the paired baseline, as
//   Markdown, as an HTML page and as a bar plot.
// Read next: chart.h.
#pragma once

#include <string>
#include <vector>

#include "apps/chart.h"
#include "apps/sweep.h"

namespace limbeck::apps {

/// One method on one split. A difference is taken between runs of equal seed: same initial weights, same batches, so what
/// the draw of the seed does to both cancels.
struct MethodRow {
  std::string name;
  std::vector<std::int64_t> seeds;  ///< of the finished runs, in order
  std::vector<double> miou;         ///< percent, per seed
  std::vector<double> differences;  ///< to the baseline, over the seeds that both have; empty for the baseline
  std::vector<double> iou;          ///< per class, mean over the seeds
  double seconds_per_step = 0;      ///< median over the runs; NaN when unknown
  double extra_bytes = 0;           ///< peak memory beyond the baseline's, medians; NaN when unknown
};

/// The rows of one split in the order of `methods`; methods without a finished run have empty vectors.
[[nodiscard]] std::vector<MethodRow> summarise(const std::vector<RunRecord>& records,
                                               const std::vector<std::string>& methods, const std::string& baseline,
                                               const std::string& split, const std::string& weights);

/// All that a page about a sweep is made of.
struct SweepReport {
  std::string title;
  std::vector<std::string> facts;  ///< budget, networks, protocol: one line each
  std::vector<std::string> class_names;
  std::vector<std::string> methods;
  std::string baseline;
  std::vector<std::string> splits;
  bool best = false;
  std::size_t planned = 0;         ///< number of runs of the whole sweep
  std::vector<RunRecord> records;  ///< finished and failed ones
};

[[nodiscard]] std::string sweep_markdown(const SweepReport& report);
/// One self-contained page: tables, bar plots, what failed, the objective of every method.
[[nodiscard]] std::string sweep_html(const SweepReport& report);
/// The bar plot of one split.
[[nodiscard]] Chart sweep_chart(const SweepReport& report, const std::string& split, const std::string& weights);
/// Everything as JSON: facts, rows, runs.
[[nodiscard]] std::string sweep_json(const SweepReport& report);

}  // namespace limbeck::apps
