// What this is: the engine of `limbeck check-data`: opens every image and mask and says in plain words what is wrong and
//   which setting or step would put it right.
// What it is not: a repair tool; it never writes to the data set.
// Read next: check_data.cpp (the scan), check_findings.cpp (the rules), check_report.cpp (text and JSON).
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "datasets/dataset.h"

namespace limbeck::datasets {

struct CheckOptions {
  int threads = 0;        ///< 0: one per core
  std::size_t limit = 0;  ///< look at this many samples per split, evenly spread; 0: all
  /// Called after each sample, from one thread at a time.
  std::function<void(std::size_t done, std::size_t total)> progress;
};

/// One observation. Errors make the verdict "not ok".
struct Finding {
  bool error = true;
  std::string code;  ///< short and stable, e.g. "bad-id", "size-mismatch"
  std::string split;
  std::string text;  ///< what, how often, the first places
  std::string fix;   ///< what to do; empty if there is nothing to do
};

/// Numbers about one split.
struct SplitReport {
  std::string name;
  bool whole_images = false;                                ///< one class per picture: "pixels" below are pictures
  std::size_t listed = 0;                                   ///< pairs in the split
  std::size_t scanned = 0;                                  ///< of these, looked at
  std::int64_t min_h = 0, min_w = 0, max_h = 0, max_w = 0;  ///< image sizes
  std::uint64_t pixels = 0;                                 ///< of readable masks
  std::uint64_t ignored = 0;                                ///< of these, without a label
  std::vector<std::uint64_t> class_pixels;                  ///< per class
  std::vector<std::uint64_t> class_images;                  ///< number of images in which the class occurs
  /// Pixels of the images in which the class occurs; the denominator of median frequency balancing.
  std::vector<std::uint64_t> class_image_pixels;
  std::map<std::string, std::size_t> mask_formats;  ///< "8-bit grey" -> number of files
};

struct CheckReport {
  bool ok = true;
  std::string kind, root;
  ClassInfo classes;
  std::vector<SplitReport> splits;
  std::vector<Finding> findings;      ///< errors first
  std::vector<double> class_weights;  ///< of the first split, see median_frequency_weights()
};

/// Scans the splits; the first is taken as the training split. All specs describe the same data set.
/// Never throws for what it is meant to report. Throws ConfigError for settings that make no sense (unknown kind, missing
///   class names); a missing folder or list becomes a finding.
[[nodiscard]] CheckReport check_data(const std::vector<DatasetSpec>& splits, const CheckOptions& options = {});

/// Class weights median(f) / f_k with f_k = pixels of class k / pixels of the images that contain it (Eigen & Fergus,
/// ICCV 2015). Classes that do not occur get weight 1.
[[nodiscard]] std::vector<double> median_frequency_weights(const SplitReport& split);

/// Plain text for people; ends with a line "verdict: ok" or "verdict: not ok (2 errors, 1 warning)".
[[nodiscard]] std::string to_text(const CheckReport& report);
/// The same for programs.
[[nodiscard]] std::string to_json(const CheckReport& report, int indent = 2);

}  // namespace limbeck::datasets
